"""The chart of a training: its losses and its accuracy by epoch."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.figures import PALETTE, Chart
from pipeline.detection.epochs import EpochRecord


def training_chart(history: Sequence[EpochRecord], best_epoch: int) -> Chart:
    """Draw the loss and its parts by epoch on the left, mAP and mAP50 on the eval set on the right."""
    figure = Chart(11, 3.6)
    left, right = figure.subplots(1, 2)
    colours = {"loss": "#222222", "loss_bbox": PALETTE[2], "loss_cls": PALETTE[1], "loss_obj": PALETTE[3]}
    trained = [record for record in history if record.epoch]
    for part in sorted({name for record in trained for name in record.loss}):
        values = [record.loss.get(part, float("nan")) for record in trained]
        colour, width = colours.get(part, PALETTE[4]), 2.0 if part == "loss" else 1.2
        epochs = [record.epoch for record in trained]
        left.plot(epochs, values, color=colour, linewidth=width, label=part.removeprefix("loss_"))
    for name, colour in (("mAP", PALETTE[0]), ("mAP50", PALETTE[5])):
        points = [(r.epoch, value) for r in history if (value := getattr(r, name)) is not None]
        right.plot([x for x, _ in points], [y for _, y in points], color=colour, marker="o", markersize=3, label=name)
    if len(trained) < len(history):
        right.axhline(history[0].mAP, color=PALETTE[0], linestyle="--", linewidth=1, label="mAP of the given weights")
    if history:
        right.axvline(best_epoch, color="#999999", linestyle=":", label=f"best epoch, {best_epoch}")
        right.legend(frameon=False)
        left.legend(frameon=False)
    title = "training loss" if history else "no training: the pretrained weights as they are"
    for axis, text in ((left, title), (right, "on the eval set")):
        axis.set_title(text, loc="left", fontsize=10)
        axis.set_xlabel("epoch")
        axis.set_ylim(bottom=0)
        axis.margins(x=0.08)
        axis.spines[["top", "right"]].set_visible(False)
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure
