"""What a person sees of a training, and what is left of it: a line while it runs, and the history of its epochs."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from torch import Tensor
from tqdm import tqdm

from pipeline.detection.hooks import EpochRecord, measured, peak_rate

INTERVAL = 0.5  # seconds between two looks at the loss: each makes a GPU wait


class ProgressHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Tells how far training is, and keeps the history of its epochs.

    Args:
        images: A step learns from, on all devices.
        tell: Called with the step reached, all steps, and a line of figures.

    Attributes:
        history: One record an epoch so far.
    """

    priority = "LOW"

    def __init__(self, images: int, tell: Callable[[int, int, str], None]) -> None:
        self.history: list[EpochRecord] = []
        self._images = images
        self._tell = tell
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._told = self._since = 0.0

    def before_train_epoch(self, runner: Any) -> None:
        """Start the epoch's means."""
        self._sums, self._steps = {}, 0
        self._since = time.monotonic()

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Count a step.

        Raises:
            FloatingPointError: The loss is no longer finite, and no later step would repair it.
        """
        self._steps += 1
        for name, value in (outputs or {}).items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        now = time.monotonic()
        if now - self._told >= INTERVAL:
            self._told = now
            self._check(runner)
            self._tell(runner.iter + 1, runner.max_iters, self._line(runner))

    def after_train_epoch(self, runner: Any) -> None:
        """Close the epoch's means; mmengine validates after this."""
        for total in self._sums.values():
            all_reduce(total, op="mean")  # each process has its own share of the images
        self._check(runner)
        loss = {name: float(total) / self._steps for name, total in self._sums.items()}
        self.history.append(EpochRecord(runner.epoch + 1, loss, peak_rate(runner)))

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Put the metrics beside the epoch they belong to; before training that is epoch 0."""
        if not self.history:
            self.history.append(EpochRecord(0, {}, 0.0))
        last = self.history[-1]
        self.history[-1] = EpochRecord(last.epoch, last.loss, last.learning_rate, **measured(metrics))
        self._tell(runner.iter, runner.max_iters, self._line(runner))

    def _check(self, runner: Any) -> None:
        total = self._sums.get("loss")  # what was once not finite stays so in a sum
        if total is not None and not isfinite(float(total)):
            raise FloatingPointError(f"the loss became {float(total)} by step {runner.iter + 1}")

    def _line(self, runner: Any) -> str:
        """The epoch, its loss, the rate, the speed, and the last mAP; short enough for a line of 80 characters."""
        parts = [f"epoch {min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}"]
        if self._steps:
            speed = self._steps * self._images / max(time.monotonic() - self._since, 1e-9)
            loss = float(self._sums["loss"]) / self._steps
            parts += [f"loss {loss:.2f}", f"rate {peak_rate(runner):.1e}", f"{speed:.0f} images/s"]
        known = [record.mAP for record in self.history if record.mAP is not None]
        return " ".join(parts + ([f"mAP {known[-1]:.3f}"] if known else []))


class Bar:
    """A line with the share done, the figures, and the time that remains; evaluation counts in."""

    def __init__(self) -> None:
        self._bar: Any = None

    def tell(self, step: int, steps: int, line: str) -> None:
        """Show how far training is."""
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
