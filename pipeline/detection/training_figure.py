"""How a training run went, as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.figures import PALETTE, Chart
from pipeline.detection.hooks import EpochRecord

PARTS = {"loss_bbox": PALETTE[2], "loss_cls": PALETTE[1], "loss_obj": PALETTE[3], "loss_l1": PALETTE[4]}
LOSS, PART, MAP, MAP50 = "#222222", "#999999", PALETTE[0], PALETTE[5]


def training_chart(history: Sequence[EpochRecord], best_epoch: int) -> Chart:
    """Loss and its parts by epoch on the left, mAP and mAP50 on the eval set on the right.

    Args:
        history: One record an epoch, with epoch 0 for pretrained weights before any training; may be empty, for
            weights that were passed on untouched.
        best_epoch: Marked on the right.
    """
    figure = Chart(11, 3.6)
    left, right = figure.subplots(1, 2)
    trained = [record for record in history if record.epoch]
    epochs = [record.epoch for record in trained]
    for part in sorted({name for record in trained for name in record.loss}):
        values = [record.loss.get(part) for record in trained]
        known = [float("nan") if value is None else value for value in values]
        colour, width = (LOSS, 2.0) if part == "loss" else (PARTS.get(part, PART), 1.2)
        left.plot(epochs, known, color=colour, linewidth=width, label=part.removeprefix("loss_"))
    for name, colour in (("mAP", MAP), ("mAP50", MAP50)):
        points = [(r.epoch, value) for r in history if (value := getattr(r, name)) is not None]
        right.plot([x for x, _ in points], [y for _, y in points], color=colour, marker="o", markersize=3, label=name)
    if len(trained) < len(history):
        right.axhline(history[0].mAP, color=MAP, linestyle="--", linewidth=1, label="mAP of the given weights")
    if history:
        right.axvline(best_epoch, color=PART, linestyle=":", label=f"best epoch, {best_epoch}")
        right.legend(frameon=False)
        left.legend(frameon=False)
    for axis, title in ((left, "training loss"), (right, "on the eval set")):
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xlabel("epoch")
        axis.set_ylim(bottom=0)
        axis.margins(x=0.08)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    if not history:
        left.set_title("no training: the pretrained weights as they are", loc="left", fontsize=10)
    return figure
