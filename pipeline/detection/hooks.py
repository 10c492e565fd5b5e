"""What happens beside the training loop: the untouched weights measured, a history, and the best and last weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import EMAHook, Hook
from torch import Tensor

from pipeline.data.learned_images import LearnedImages
from pipeline.detection.checkpoints import Checkpoint, fit, write_checkpoint
from pipeline.detection.families.yolox.detector import bare
from pipeline.detection.filter_norms import balance

METRICS = {"coco/bbox_mAP": "mAP", "coco/bbox_mAP_50": "mAP50"}


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a run; metrics are None where the eval set was not looked at.

    Attributes:
        epoch: 1 for the first; 0 for the pretrained weights before any training.
        loss: Mean over the epoch's steps, by part: `loss`, `loss_cls`, `loss_bbox`, `loss_obj`, ...; empty in epoch 0.
        learning_rate: Of the head, at the epoch's end.
        mAP: On the eval set, IoU 0.50:0.95.
        mAP50: On the eval set, IoU 0.50.
    """

    epoch: int
    loss: dict[str, float]
    learning_rate: float
    mAP: float | None = None  # noqa: N815  # the field's own spelling
    mAP50: float | None = None  # noqa: N815


def measured(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """The two figures of a validation, by our names."""
    return {ours: float((metrics or {}).get(theirs, 0.0)) for theirs, ours in METRICS.items()}


class WarmStartHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Loads pretrained weights when the loop starts: mmengine initialises the model, again, just before.

    Args:
        checkpoint: The weights.
        classes: Of the model; head rows go by class name.
        balanced: Whether filters are brought to one length, after the weights were measured as they are.
    """

    priority = "VERY_HIGH"

    def __init__(self, checkpoint: Checkpoint, classes: tuple[str, ...], *, balanced: bool) -> None:
        self.checkpoint = checkpoint
        self.classes = classes
        self.balanced = balanced

    def before_train(self, runner: Any) -> None:
        """Fit the checkpoint to the model and its averaged copy; a continued run has its weights already."""
        if runner.iter == 0:
            fit(self.checkpoint, bare(runner.model), self.classes)
            _average_anew(runner)

    def before_train_epoch(self, runner: Any) -> None:
        """Balance, once."""
        if runner.iter == 0 and self.balanced:
            balance(bare(runner.model))
            _average_anew(runner)


class FirstLookHook(Hook):  # type: ignore[misc]
    """Measures the pretrained weights on the eval set before any training: what is packed is never worse than they."""

    priority = "LOWEST"

    def before_train(self, runner: Any) -> None:
        """Validate; to all other hooks it is epoch 0."""
        if runner.iter == 0:
            runner.val_loop.run()


class WeightsHook(Hook):  # type: ignore[misc]
    """Keeps the weights of the last and of the best validated epoch as plain checkpoints.

    It runs before the EMA hook (priority 49) puts the unaveraged weights back, so what is kept is what was measured.
    mmengine's CheckpointHook would also save optimiser state and pickled objects that torch then refuses to load.

    Args:
        folder: Where the files go.
        meta: Plain values for both files.
        learned: The images that these weights learn from, for both files too.

    Attributes:
        best_epoch: The epoch of `best.pth`; 0 before the first validation, and for pretrained weights that no epoch
            has bettered.
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
        # the loop has already counted the epoch it validates
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
    """Brings the batch norms' running statistics of all processes to their mean when an epoch ends.

    Each process has seen its own images. From here on all hold the same model, and the same averaged one: what is
    validated by all, kept by one, and goes on in all from what one has kept. mmdet's SyncNormHook leaves the averaged
    model out, and epochs that are not validated.
    """

    def after_train_epoch(self, runner: Any) -> None:
        """Take the mean, in double precision: of equal numbers it is to be that number."""
        for model in (bare(runner.model), averaged(runner)):
            buffers = [each for each in model.buffers() if each.is_floating_point()] if model else []
            if buffers:
                whole = torch.cat([each.flatten().double() for each in buffers])
                all_reduce(whole, op="mean")
                for each, mean in zip(buffers, torch.split(whole, [each.numel() for each in buffers]), strict=True):
                    each.copy_(mean.view_as(each))


def peak_rate(runner: Any) -> float:
    """The highest rate of all groups of parameters."""
    return max(float(group["lr"]) for group in runner.optim_wrapper.optimizer.param_groups)


def averaged(runner: Any) -> Any:
    """The EMA hook's copy of the model, which counts its own steps; None where nothing is averaged."""
    return next((hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)), None)


def _average_anew(runner: Any) -> None:
    copy = averaged(runner)
    if copy is not None:
        copy.module.load_state_dict(bare(runner.model).state_dict())
