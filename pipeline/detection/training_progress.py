"""The progress of a training: the line on the terminal, the history of its epochs, and the figure of both."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from torch import Tensor
from tqdm import tqdm

from pipeline.data.figures import PALETTE, Chart
from pipeline.detection.hooks import EpochRecord, measured, peak_rate

INTERVAL = 0.5  # seconds between two reads of the loss: each makes a GPU wait

PARTS = {"loss_bbox": PALETTE[2], "loss_cls": PALETTE[1], "loss_obj": PALETTE[3], "loss_l1": PALETTE[4]}
LOSS, PART, MAP, MAP50 = "#222222", "#999999", PALETTE[0], PALETTE[5]


class ProgressHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Reports the progress of training, and keeps the history of its epochs.

    Args:
        images: Images per step, on all devices.
        report: Called with the step reached, the number of steps, and a line of figures.

    Attributes:
        history: One record an epoch so far.
    """

    priority = "LOW"

    def __init__(self, images: int, report: Callable[[int, int, str], None]) -> None:
        self.history: list[EpochRecord] = []
        self._images = images
        self._report = report
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._reported = self._since = 0.0

    def before_train_epoch(self, runner: Any) -> None:
        """Start the epoch's means."""
        self._sums, self._steps = {}, 0
        self._since = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Count a step.

        Raises:
            FloatingPointError: The loss is not finite, and no later step can repair it.
        """
        self._steps += 1
        for name, value in (outputs or {}).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        now = time.monotonic()
        if now - self._reported >= INTERVAL:
            self._reported = now
            self._check(runner)
            self._report(runner.iter + 1, runner.max_iters, self._line(runner))

    def after_train_epoch(self, runner: Any) -> None:
        """Add the epoch to the history; mmengine validates it afterwards."""
        for total in self._sums.values():
            all_reduce(total, op="mean")  # each process has its own share of the images
        self._check(runner)
        loss = {name: float(total) / self._steps for name, total in self._sums.items()}
        self.history.append(EpochRecord(runner.epoch + 1, loss, peak_rate(runner)))

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Add the metrics to their epoch; before training that is epoch 0."""
        if not self.history:
            self.history.append(EpochRecord(0, {}, 0.0))
        last = self.history[-1]
        self.history[-1] = EpochRecord(last.epoch, last.loss, last.learning_rate, **measured(metrics))
        self._report(runner.iter, runner.max_iters, self._line(runner))

    def _check(self, runner: Any) -> None:
        total = self._sums.get("loss")  # a sum stays infinite or NaN
        if total is not None and not isfinite(float(total)):
            raise FloatingPointError(f"the loss became {float(total)} by step {runner.iter + 1}")

    def _line(self, runner: Any) -> str:
        """Epoch, loss, learning rate, speed and the last mAP, in less than 80 characters."""
        parts = [f"epoch {min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}"]
        if self._steps:
            speed = self._steps * self._images / max(time.monotonic() - self._since, 1e-9)
            loss = float(self._sums["loss"]) / self._steps
            parts += [f"loss {loss:.2f}", f"rate {peak_rate(runner):.1e}", f"{speed:.0f} images/s"]
        known = [record.mAP for record in self.history if record.mAP is not None]
        return " ".join(parts + ([f"mAP {known[-1]:.3f}"] if known else []))


class ProgressBar:
    """A line with the percentage done, the figures, and the remaining time, which includes validation."""

    def __init__(self) -> None:
        self._bar: Any = None

    def show(self, step: int, steps: int, line: str) -> None:
        """Show the progress."""
        if self._bar is None:
            form = "{percentage:3.0f}% {desc}"
            self._bar = tqdm(desc=line, total=steps, initial=step, mininterval=0, bar_format=form)
        done, elapsed = step - self._bar.initial, self._bar.format_dict["elapsed"]
        remaining = f", {tqdm.format_interval(elapsed / done * (steps - step))} left" if done else ""
        self._bar.set_description_str(line + remaining, refresh=False)
        self._bar.update(step - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()


def training_chart(history: Sequence[EpochRecord], best_epoch: int) -> Chart:
    """Draw the loss and its parts by epoch on the left, mAP and mAP50 on the eval set on the right.

    Args:
        history: One record per epoch, epoch 0 for pretrained weights before training; empty without any training.
        best_epoch: The epoch to mark on the right.
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
