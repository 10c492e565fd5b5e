"""Hooks of the training loop: pretrained weights, kept weights, progress, limits, curves and common statistics."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn

from pipeline.data.learned_images import LearnedImages
from pipeline.detection.checkpoints import GIVEN, Checkpoint, fit, write_checkpoint
from pipeline.detection.epochs import HEADER, EpochRecord, epoch_line
from pipeline.detection.optimization import balance_filters

log = logging.getLogger(__name__)

REPORT_INTERVAL = 0.5  # seconds between two reads of the loss: each makes a GPU wait


def measured(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """The two metrics of a validation; 0 where nothing was found."""
    found = metrics or {}
    return {name: float(found.get(name, 0.0)) for name in ("mAP", "mAP50")}


def peak_rate(runner: Any) -> float:
    """The highest learning rate of all groups of parameters."""
    return max(float(group["lr"]) for group in runner.optim_wrapper.optimizer.param_groups)


def averaged(runner: Any) -> Any:
    """The EMA hook's averaged model; None where nothing is averaged."""
    return next((hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)), None)


def bare(model: nn.Module) -> nn.Module:
    """The model itself, without the wrapper of distributed training."""
    module: nn.Module = model.module if isinstance(model, MMDistributedDataParallel) else model
    return module


class GivenWeightsHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Loads pretrained weights when the loop starts, after mmengine has initialised the model, and keeps them.

    `given.pth` has them as they are validated in epoch 0, initial values of new classes included. It is written before
    a continued training restores its own weights, so that it has the bytes of an undisturbed training's.
    """

    priority = "HIGHEST"

    def __init__(self, checkpoint: Checkpoint, folder: Path, meta: Mapping[str, Any]) -> None:
        self.checkpoint, self.folder, self.meta = checkpoint, folder, meta

    def before_train(self, runner: Any) -> None:
        """Load the checkpoint into the model, and write it."""
        model = bare(runner.model)
        fit(self.checkpoint, model, tuple(self.meta["classes"]))
        if is_main_process():
            meta = {**self.meta, "epoch": 0}
            write_checkpoint(self.folder / GIVEN, model.state_dict(), meta, self.checkpoint.learned)


class WarmStartHook(Hook):  # type: ignore[misc]
    """Validates the pretrained weights as epoch 0, so that the best weights are never worse than these.

    With `balanced`, their filters are balanced afterwards. A continued training has its weights already.
    """

    priority = "LOWEST"

    def __init__(self, *, balanced: bool) -> None:
        self.balanced = balanced

    def before_train(self, runner: Any) -> None:
        """Copy the weights to the averaged model, and validate it."""
        if runner.iter == 0:
            self._restart_average(runner)
            runner.val_loop.run()

    def before_train_epoch(self, runner: Any) -> None:
        """Balance the filters before the first epoch."""
        if runner.iter == 0 and self.balanced:
            balance_filters(bare(runner.model))
            self._restart_average(runner)

    def _restart_average(self, runner: Any) -> None:
        if copy := averaged(runner):
            copy.module.load_state_dict(bare(runner.model).state_dict())


class WeightsHook(Hook):  # type: ignore[misc]
    """Keeps the weights of the last and of the best validated epoch as plain checkpoints.

    It runs before the EMA hook (priority 49) puts the unaveraged weights back, so it keeps the weights that were
    measured. mmengine's CheckpointHook would also save pickled objects, which torch then refuses to load.
    """

    priority = 48

    def __init__(self, folder: Path, meta: Mapping[str, Any], learned: LearnedImages | None = None) -> None:
        self.folder, self.meta, self.learned = folder, meta, learned
        self.best_epoch = self.last_epoch = 0  # of `best.pth`, 0 also for the pretrained weights, and of `last.pth`
        self.best = float("-inf")  # mAP of the best epoch
        self.best_state: dict[str, Tensor] = {}  # its weights, on the CPU

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Write `last.pth`, and `best.pth` when this epoch's mAP is the highest so far."""
        # the loop has counted the epoch already
        values, epoch, state = measured(metrics), runner.epoch, bare(runner.model).state_dict()
        self.write("last.pth", state, epoch, values)
        self.last_epoch = epoch
        if values["mAP"] > self.best:
            self.best, self.best_epoch = values["mAP"], epoch
            self.best_state = {name: value.to("cpu", copy=True) for name, value in state.items()}
            self.write("best.pth", state, epoch, values)

    def write(self, name: str, state: Mapping[str, Tensor], epoch: int, metrics: Mapping[str, Any]) -> None:
        """Write one of the two files."""
        if is_main_process():
            write_checkpoint(self.folder / name, state, {**self.meta, "epoch": epoch, **metrics}, self.learned)


class StoppingHook(Hook):  # type: ignore[misc]
    """Ends training after some epochs without a better mAP on the eval set, or with the epoch that reaches a time.

    The seconds are those of training and validation, over all attempts of a continued training. 0: no limit.
    """

    priority = "VERY_LOW"

    def __init__(self, patience: int, seconds: float, weights: WeightsHook) -> None:
        self.patience, self.seconds, self.weights = patience, seconds, weights
        self.spent = 0.0  # seconds of earlier attempts
        self.reason = ""  # why training ended before its last epoch
        self._since = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds that all attempts took so far."""
        return self.spent + time.monotonic() - self._since

    def before_train(self, runner: Any) -> None:
        """Start the clock. A continued training may have reached a limit already."""
        self._since = time.monotonic()
        if runner.iter and self.weights.last_epoch == runner.epoch:  # the last epoch was validated
            self.after_val_epoch(runner)

    def after_train_epoch(self, runner: Any) -> None:
        """Apply the time limit: the epoch just trained is validated as the last one."""
        if self.seconds:
            # the clock of one process decides for all
            late = torch.tensor(float(self.elapsed >= self.seconds))
            broadcast(late)
            if late and runner.epoch + 1 < runner.max_epochs:
                self._end(runner, f"the time limit of {self.seconds / 60:g} minutes", runner.epoch + 1)
                runner.train_loop.dynamic_intervals = [1]  # makes mmengine validate this epoch

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Apply the patience, and after a kill the time limit."""
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


class ProgressHook(Hook):  # type: ignore[misc]
    """Reports the step reached, the number of steps, and a line of figures, and keeps the history of the epochs."""

    priority = "LOW"

    def __init__(self, images: int, report: Callable[[int, int, str], None]) -> None:
        self.history: list[EpochRecord] = []
        self._images, self._report = images, report  # per step, on all devices
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._reported = self._since = 0.0
        self._speeds: dict[int, float] = {}  # images per second of each epoch, without its validation
        self._logged = 0  # epochs of the history

    def before_train_epoch(self, runner: Any) -> None:
        """Start the epoch's means."""
        self._log(runner)  # the epoch before, where it was not validated
        self._sums, self._steps, self._since = {}, 0, time.monotonic()

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
        if now - self._reported >= REPORT_INTERVAL:
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
        self._speeds[runner.epoch + 1] = self._speed()

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Add the metrics to their epoch; before training that is epoch 0."""
        last = self.history.pop() if self.history else EpochRecord(0, {}, 0.0)
        self.history.append(EpochRecord(last.epoch, last.loss, last.learning_rate, **measured(metrics)))
        self._report(runner.iter, runner.max_iters, self._line(runner))
        self._log(runner)

    def _log(self, runner: Any) -> None:
        """Log a line for each epoch that has none yet; where training continues, for those of earlier attempts too."""
        if self.history and not self._logged:
            log.info("%s", HEADER)
        for record in self.history[self._logged :]:
            log.info("%s", epoch_line(record, runner.max_epochs, self._speeds.get(record.epoch)))
        self._logged = len(self.history)

    def _speed(self) -> float:
        """Images per second of the epoch so far."""
        return self._steps * self._images / max(time.monotonic() - self._since, 1e-9)

    def _check(self, runner: Any) -> None:
        total = float(self._sums.get("loss", 0.0))  # a sum stays infinite or NaN
        if not isfinite(total):
            raise FloatingPointError(f"the loss became {total} by step {runner.iter + 1}")

    def _line(self, runner: Any) -> str:
        """Epoch, loss, learning rate, speed and the last mAP, in less than 80 characters."""
        parts = [f"epoch {min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}"]
        if self._steps:
            loss = float(self._sums["loss"]) / self._steps
            parts += [f"loss {loss:.2f}", f"rate {peak_rate(runner):.1e}", f"{self._speed():.0f} images/s"]
        known = [record.mAP for record in self.history if record.mAP is not None]
        return " ".join(parts + ([f"mAP {known[-1]:.3f}"] if known else []))


class TrackingHook(Hook):  # type: ignore[misc]
    """Writes losses, learning rate and metrics for TensorBoard, those of training every `interval` steps."""

    priority = "LOW"

    def __init__(self, logs: Path, interval: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # imported here: slow

        self.interval = interval
        self._writer: Any = SummaryWriter(str(logs))

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Tensor] | None = None
    ) -> None:
        """Add a point to the training curves."""
        step = runner.iter + 1
        if step % self.interval == 0 or step == runner.max_iters:
            points = {f"train/{name}": float(value) for name, value in (outputs or {}).items()}
            self._add({**points, "train/rate": peak_rate(runner)}, step)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Add a point to the curves of the eval set, at the same axis of steps."""
        self._add({f"eval/{name}": value for name, value in measured(metrics).items()}, runner.iter)

    def _add(self, points: dict[str, float], step: int) -> None:
        try:
            for name, value in points.items() if self._writer else ():
                self._writer.add_scalar(name, value, step)
        except (OSError, RuntimeError) as error:  # the disk is full: that must not end a training
            self._writer = None
            log.warning("training goes on without tracking: %s", error)

    def close(self) -> None:
        """Flush the files."""
        with contextlib.suppress(OSError, RuntimeError):
            if self._writer:
                self._writer.close()


class SameStatisticsHook(Hook):  # type: ignore[misc]
    """Averages the batch norms' running statistics over all processes at the end of each epoch.

    Each process has seen its own images. Afterwards all have the same model and the same averaged model, as validation,
    the kept weights and a continued training need. mmdet's SyncNormHook omits the averaged model, and epochs that are
    not validated.
    """

    def after_train_epoch(self, runner: Any) -> None:
        """Average in double precision, so that the mean of equal numbers is that number."""
        for model in filter(None, (bare(runner.model), averaged(runner))):
            buffers = [each for each in model.buffers() if each.is_floating_point()]
            whole = torch.cat([each.flatten().double() for each in buffers])
            all_reduce(whole, op="mean")
            for each, mean in zip(buffers, torch.split(whole, [each.numel() for each in buffers]), strict=True):
                each.copy_(mean.view_as(each))
