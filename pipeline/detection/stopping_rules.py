"""When training ends before its last epoch: nothing gets better any more, or the time is up."""

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


class LimitsHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Ends training after an epoch.

    A continued run counts what the attempts before it took.

    Args:
        patience: Epochs without a better mAP on the eval set; 0: no limit.
        seconds: Of training and validation; 0: no limit.
        weights: Knows the best epoch.

    Attributes:
        spent: Seconds in attempts before this one.
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
        """Seconds that all attempts took."""
        return self.spent + time.monotonic() - self._since

    def before_train(self, runner: Any) -> None:
        """Start the clock; a continued run may be over already."""
        self._since = time.monotonic()
        if runner.iter and self.weights.last_epoch == runner.epoch:  # what ends is validated
            self._judge(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """End at the time limit, with the epoch just trained as the last to be validated."""
        if not self.seconds:
            return
        # an epoch's end comes on all processes, and the clock of one of them decides
        late = torch.tensor(float(self.elapsed >= self.seconds))
        broadcast(late)
        last = runner.epoch + 1 == runner.max_epochs
        if late and not last:
            self._end(runner, f"the time limit of {self.seconds / 60:g} minutes", runner.epoch + 1)
            runner.train_loop.dynamic_intervals = [1]  # mmengine is about to ask whether this epoch is to be validated

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """End when patience is over."""
        self._judge(runner)

    def _judge(self, runner: Any) -> None:
        if runner.epoch >= runner.max_epochs or self.reason:
            return
        if self.seconds and self.spent >= self.seconds:
            self._end(runner, f"the time limit of {self.seconds / 60:g} minutes", runner.epoch)
        # from scratch nothing is found in the first epochs, and that is no reason to give up
        elif self.patience and self.weights.best > 0 and runner.epoch - self.weights.best_epoch >= self.patience:
            self._end(runner, f"no better mAP in {self.patience} epochs", runner.epoch)

    def _end(self, runner: Any, reason: str, epoch: int) -> None:
        self.reason = reason
        runner.train_loop.stop_training = True
        log.info("training ends after epoch %d of %d: %s", epoch, runner.max_epochs, reason)
