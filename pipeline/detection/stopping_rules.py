"""Rules that end training before its last epoch: no better result for some epochs, or a time limit."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook

from pipeline.detection.hooks import WeightsHook

log = logging.getLogger(__name__)


class StoppingHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Ends training after an epoch.

    Args:
        patience: Epochs without a better mAP on the eval set; 0: no limit.
        seconds: Time of training and validation, over all attempts of a continued training; 0: no limit.
        weights: The hook that knows the best epoch.

    Attributes:
        spent: Seconds that earlier attempts took.
        reason: Why training ended before its last epoch; empty where it did not.
    """

    priority = "VERY_LOW"

    def __init__(self, patience: int, seconds: float, weights: WeightsHook) -> None:
        self.patience = patience
        self.seconds = seconds
        self.weights = weights
        self.spent = 0.0
        self.reason = ""
        self._since = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds that all attempts took so far."""
        return self.spent + time.monotonic() - self._since

    def before_train(self, runner: Any) -> None:
        """Start the clock. A continued training may have reached a limit already."""
        self._since = time.monotonic()
        if runner.iter and self.weights.last_epoch == runner.epoch:  # the last epoch was validated
            self._judge(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Apply the time limit: the epoch just trained is validated as the last one."""
        if not self.seconds:
            return
        # the clock of one process decides for all
        late = torch.tensor(float(self.elapsed >= self.seconds))
        broadcast(late)
        last = runner.epoch + 1 == runner.max_epochs
        if late and not last:
            self._end(runner, f"the time limit of {self.seconds / 60:g} minutes", runner.epoch + 1)
            runner.train_loop.dynamic_intervals = [1]  # makes mmengine validate this epoch

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Apply the patience."""
        self._judge(runner)

    def _judge(self, runner: Any) -> None:
        if runner.epoch >= runner.max_epochs or self.reason:
            return
        if self.seconds and self.spent >= self.seconds:
            self._end(runner, f"the time limit of {self.seconds / 60:g} minutes", runner.epoch)
        # from scratch the first epochs find nothing, so patience starts with the first mAP above 0
        elif self.patience and self.weights.best > 0 and runner.epoch - self.weights.best_epoch >= self.patience:
            self._end(runner, f"no better mAP in {self.patience} epochs", runner.epoch)

    def _end(self, runner: Any, reason: str, epoch: int) -> None:
        self.reason = reason
        runner.train_loop.stop_training = True
        log.info("training ends after epoch %d of %d: %s", epoch, runner.max_epochs, reason)
