"""Hooks of the training loop: start from pretrained weights, keep the best and last weights, agree on statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, nn

from pipeline.data.learned_images import LearnedImages
from pipeline.detection.checkpoints import Checkpoint, fit, write_checkpoint
from pipeline.detection.optimization import balance_filters

METRICS = {"coco/bbox_mAP": "mAP", "coco/bbox_mAP_50": "mAP50"}


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a training; metrics are None in an epoch that is not validated.

    Attributes:
        epoch: 1 for the first; 0 for the pretrained weights before any training.
        loss: Mean over the epoch's steps, by part: `loss`, `loss_cls`, `loss_bbox`, `loss_obj`, ...; empty in epoch 0.
        learning_rate: Rate of the head at the end of the epoch.
        mAP: On the eval set, IoU 0.50:0.95.
        mAP50: On the eval set, IoU 0.50.
    """

    epoch: int
    loss: dict[str, float]
    learning_rate: float
    mAP: float | None = None  # noqa: N815  # the field's own spelling
    mAP50: float | None = None  # noqa: N815


def measured(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """The two metrics of a validation, by our names."""
    return {ours: float((metrics or {}).get(theirs, 0.0)) for theirs, ours in METRICS.items()}


class WarmStartHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Loads pretrained weights when the loop starts, after mmengine has initialised the model again.

    Args:
        checkpoint: The weights.
        classes: Class names of the model.
        balanced: Whether to balance filters, after the weights were measured as they are.
    """

    priority = "VERY_HIGH"

    def __init__(self, checkpoint: Checkpoint, classes: tuple[str, ...], *, balanced: bool) -> None:
        self.checkpoint = checkpoint
        self.classes = classes
        self.balanced = balanced

    def before_train(self, runner: Any) -> None:
        """Load the checkpoint into the model and its averaged copy; a continued run has its weights already."""
        if runner.iter == 0:
            fit(self.checkpoint, bare(runner.model), self.classes)
            _restart_average(runner)

    def before_train_epoch(self, runner: Any) -> None:
        """Balance the filters before the first epoch."""
        if runner.iter == 0 and self.balanced:
            balance_filters(bare(runner.model))
            _restart_average(runner)


class InitialValidationHook(Hook):  # type: ignore[misc]
    """Validates the pretrained weights as epoch 0, so that the best weights are never worse than these."""

    priority = "LOWEST"

    def before_train(self, runner: Any) -> None:
        """Validate."""
        if runner.iter == 0:
            runner.val_loop.run()


class WeightsHook(Hook):  # type: ignore[misc]
    """Keeps the weights of the last and of the best validated epoch as plain checkpoints.

    It runs before the EMA hook (priority 49) puts the unaveraged weights back, so it keeps the weights that were
    measured. mmengine's CheckpointHook would also save pickled objects, which torch then refuses to load.

    Args:
        folder: The folder of both files.
        meta: Plain values for both files.
        learned: The images that the weights learn from, for both files.

    Attributes:
        best_epoch: The epoch of `best.pth`; 0 before the first validation, and while no epoch is better than the
            pretrained weights.
        best: Its mAP.
        best_state: Its weights, on the CPU.
        last_epoch: The epoch of `last.pth`.
    """

    priority = 48

    def __init__(self, folder: Path, meta: Mapping[str, Any], learned: LearnedImages | None = None) -> None:
        self.folder = folder
        self.meta = dict(meta)
        self.learned = learned
        self.best_epoch = 0
        self.best = float("-inf")
        self.best_state: dict[str, Tensor] = {}
        self.last_epoch = 0

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
        """Write one of the two files: weights with the epoch and the metrics they were measured at."""
        if is_main_process():
            write_checkpoint(self.folder / name, state, {**self.meta, "epoch": epoch, **metrics}, self.learned)


class SameStatisticsHook(Hook):  # type: ignore[misc]
    """Averages the batch norms' running statistics over all processes at the end of each epoch.

    Each process has seen its own images. Afterwards all have the same model and the same averaged model, as validation,
    the kept weights and a continued training need. mmdet's SyncNormHook omits the averaged model, and epochs that are
    not validated.
    """

    def after_train_epoch(self, runner: Any) -> None:
        """Average in double precision, so that the mean of equal numbers is that number."""
        for model in (bare(runner.model), averaged(runner)):
            buffers = [each for each in model.buffers() if each.is_floating_point()] if model else []
            if buffers:
                whole = torch.cat([each.flatten().double() for each in buffers])
                all_reduce(whole, op="mean")
                for each, mean in zip(buffers, torch.split(whole, [each.numel() for each in buffers]), strict=True):
                    each.copy_(mean.view_as(each))


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


def _restart_average(runner: Any) -> None:
    copy = averaged(runner)
    if copy is not None:
        copy.module.load_state_dict(bare(runner.model).state_dict())
