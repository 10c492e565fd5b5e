"""What happens beside the training loop: a progress bar, a history, and the best and last weights."""

# ruff: noqa: ARG002  # mmengine calls every hook with the same arguments

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor
from tqdm import tqdm

from pipeline.detection.weights import Checkpoint, fit, write_checkpoint

METRICS = {"coco/bbox_mAP": "mAP", "coco/bbox_mAP_50": "mAP50"}


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a run; metrics are None where the eval set was not looked at.

    Attributes:
        epoch: 1 for the first.
        loss: Mean over the epoch's steps, by part: `loss`, `loss_cls`, `loss_bbox`, `loss_obj`, ...
        learning_rate: At the epoch's end.
        mAP: On the eval set, IoU 0.50:0.95.
        mAP50: On the eval set, IoU 0.50.
    """

    epoch: int
    loss: dict[str, float]
    learning_rate: float
    mAP: float | None = None  # noqa: N815  # the field's own spelling
    mAP50: float | None = None  # noqa: N815


class ProgressHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """A bar over all steps with loss, the latest mAP and the remaining time; keeps the history of epochs.

    The bar's own estimate counts evaluation in, since its clock runs on meanwhile.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self.history: list[EpochRecord] = []
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._bar: Any = None

    def before_train(self, runner: Any) -> None:
        """Open the bar, at the step that a continued run has reached."""
        # no bar: on one line of a terminal the figures are worth more
        form = "training {percentage:3.0f}%, step {n_fmt} of {total_fmt}, {elapsed}, {remaining} left{postfix}"
        # tqdm takes the speed, and so the remaining time, from the steps since `initial`
        self._bar = tqdm(total=runner.max_iters, initial=runner.iter, mininterval=0.5, bar_format=form)

    def before_train_epoch(self, runner: Any) -> None:
        """Start the epoch's means."""
        self._sums, self._steps = {}, 0

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Count a step.

        Raises:
            FloatingPointError: The loss is no longer finite, and no later step would repair it.
        """
        self._steps += 1
        if not isfinite(float((outputs or {}).get("loss", 0.0))):
            raise FloatingPointError(f"the loss became {float((outputs or {})['loss'])} in step {runner.iter + 1}")
        for name, value in (outputs or {}).items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._bar.set_postfix(self._shown(runner.epoch + 1), refresh=False)
        self._bar.update(1)

    def after_train_epoch(self, runner: Any) -> None:
        """Close the epoch's means; mmengine validates after this."""
        loss = {name: total / self._steps for name, total in self._sums.items()}
        rate = float(runner.optim_wrapper.get_lr()["lr"][0])
        self.history.append(EpochRecord(runner.epoch + 1, loss, rate))

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Put the metrics beside the epoch they belong to."""
        values = {ours: float((metrics or {}).get(theirs, 0.0)) for theirs, ours in METRICS.items()}
        last = self.history[-1]
        self.history[-1] = EpochRecord(last.epoch, last.loss, last.learning_rate, **values)
        self._bar.set_postfix(self._shown(last.epoch))

    def after_train(self, runner: Any) -> None:
        """Close the bar."""
        self._bar.close()

    def _shown(self, epoch: int) -> dict[str, str]:
        shown = {"epoch": str(epoch), "loss": f"{self._sums.get('loss', 0.0) / max(self._steps, 1):.2f}"}
        known = [record.mAP50 for record in self.history if record.mAP50 is not None]
        return shown | ({"mAP50": f"{known[-1]:.3f}"} if known else {})


class WarmStartHook(Hook):  # type: ignore[misc]
    """Loads pretrained weights when the loop starts: mmengine initialises the model, again, just before."""

    priority = "VERY_HIGH"

    def __init__(self, checkpoint: Checkpoint, classes: tuple[str, ...]) -> None:
        self.checkpoint = checkpoint
        self.classes = classes

    def before_train(self, runner: Any) -> None:
        """Fit the checkpoint to the model, head rows by class name; a continued run has its weights already."""
        if runner.iter == 0:
            fit(self.checkpoint, runner.model, self.classes)


class WeightsHook(Hook):  # type: ignore[misc]
    """Keeps the weights of the last and of the best validated epoch as plain checkpoints.

    It runs before the EMA hook (priority 49) puts the unaveraged weights back, so what is kept is what was measured.
    mmengine's CheckpointHook would also save optimiser state and pickled objects that torch then refuses to load.

    Attributes:
        best_epoch: The epoch of `best.pth`; 0 before the first validation.
        best: Its mAP.
        best_state: Its weights, on the CPU.
    """

    priority = 48

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        self.folder = folder
        self.meta = dict(meta)
        self.best_epoch = 0
        self.best = float("-inf")
        self.best_state: dict[str, Tensor] = {}

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Write `last.pth`, and `best.pth` when this epoch's mAP is the highest so far."""
        values = {ours: float((metrics or {}).get(theirs, 0.0)) for theirs, ours in METRICS.items()}
        # the loop has already counted the epoch it validates
        epoch, state = runner.epoch, runner.model.state_dict()
        self.write("last.pth", state, epoch, values)
        if values["mAP"] > self.best:
            self.best, self.best_epoch = values["mAP"], epoch
            self.best_state = {name: value.to("cpu", copy=True) for name, value in state.items()}
            self.write("best.pth", state, epoch, values)

    def write(self, name: str, state: Mapping[str, Tensor], epoch: int, metrics: Mapping[str, Any]) -> None:
        """Write one of the two files: weights with the epoch and the metrics they were measured at."""
        write_checkpoint(self.folder / name, state, {**self.meta, "epoch": epoch, **metrics})
