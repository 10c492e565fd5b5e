"""Resume of a killed training: after each epoch, one file keeps the whole state that the next epoch needs.

A continued training ends with the same bytes as an undisturbed one, since the randomness of an epoch depends only on
the seed and the epoch. mmengine's own `resume` is not used: its checkpoints pickle objects, so that reading them runs
code, and they contain neither the history nor the best weights.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from pipeline.detection.hooks import EpochRecord, WeightsHook, averaged, bare
from pipeline.detection.stopping_rules import StoppingHook
from pipeline.detection.training_progress import ProgressHook
from pipeline.errors import DataError
from pipeline.files import atomic_path

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"
FORMAT = 2  # of its content


class EpochSeedHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Seeds each epoch by the seed and the epoch alone, so that its randomness is independent of earlier epochs."""

    priority = "HIGHEST"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seed Python, numpy and torch."""
        from mmengine.runner import set_random_seed  # imported here: slow, and not needed to declare a training

        # hashed: with sums, the second epoch of seed 0 would equal the first epoch of seed 1
        [seed] = np.random.SeedSequence([self.seed, runner.epoch]).generate_state(1)
        set_random_seed(int(seed))


class ResumeHook(Hook):  # type: ignore[misc]
    """Writes `checkpoint.pth` after each epoch, and continues from the one it finds.

    It runs before all other hooks. At the start of an epoch, the epoch before is complete with its validation, the EMA
    hook has put the unaveraged weights back, and the new epoch has changed nothing yet.

    Args:
        folder: A folder for this training alone; need not exist.
        facts: Plain values that identify the training; a checkpoint with other values is ignored.
        progress: The hook that keeps the history.
        weights: The hook that keeps the best weights.
        stopping: The hook that counts the time.
    """

    priority = "HIGHEST"

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        progress: ProgressHook,
        weights: WeightsHook,
        stopping: StoppingHook,
    ) -> None:
        self.path = folder / CHECKPOINT
        self.facts = dict(facts)
        self.progress = progress
        self.weights = weights
        self.stopping = stopping
        self._kept = 0  # epochs in the file

    def before_train(self, runner: Any) -> None:
        """Restore a checkpoint of this training; without one, leave the runner as it is."""
        saved = self._usable(runner)
        # processes that start at different epochs would wait for each other for ever
        all_can = torch.tensor(float(saved is not None))
        all_reduce(all_can, op="min")
        if saved is not None and all_can:
            self._restore(saved, runner)
            log.info("continuing after epoch %d of %d", runner.epoch, runner.max_epochs)

    def _usable(self, runner: Any) -> dict[str, Any] | None:
        try:
            if is_main_process():
                _remove_drafts(self.path)
            if not self.path.exists():
                return None
            saved = read_state(self.path)
            self._check(saved, runner)
        except Exception as error:  # noqa: BLE001, whatever is wrong with the file, training can start from the beginning
            reason = error.problem if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            log.warning("%s is ignored, and training starts at its first epoch: %s", self.path, reason)
            return None
        return saved

    def before_train_epoch(self, runner: Any) -> None:
        """Keep the epoch before: mmengine has no hook between a validation and the next epoch."""
        self._keep(runner)

    def after_train(self, runner: Any) -> None:
        """Keep the last epoch."""
        self._keep(runner)

    def _keep(self, runner: Any) -> None:
        if runner.epoch == self._kept or not is_main_process():
            return
        try:
            write_state(self.path, self._state(runner))
            self._kept = runner.epoch
        except (OSError, RuntimeError) as error:  # training goes on, though it cannot be resumed
            log.warning("epoch %d could not be kept in %s: %s", runner.epoch, self.path, error)

    def _state(self, runner: Any) -> dict[str, Any]:
        """The state that the next epoch depends on, and the results so far."""
        return {
            "format": FORMAT,
            "facts": self.facts,
            "epoch": runner.epoch,
            "iteration": runner.iter,
            "model": bare(runner.model).state_dict(),
            "averaged": average.state_dict() if (average := averaged(runner)) else {},
            "optimizer": runner.optim_wrapper.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "history": [asdict(record) for record in self.progress.history],
            "best_epoch": self.weights.best_epoch,
            "best_value": self.weights.best,
            "best": self.weights.best_state,
            "seconds": self.stopping.elapsed,
        }

    def _check(self, saved: dict[str, Any], runner: Any) -> None:
        """Refuse a checkpoint that cannot be restored completely, before any of it is restored."""
        own = self._state(runner)
        if saved.get("format") != FORMAT:
            raise DataError(f"its format is {saved.get('format')}; this version reads {FORMAT}")
        for name, value in self.facts.items():
            if saved["facts"].get(name) != value:
                raise DataError(f"it is of another training: {name} is {saved['facts'].get(name)}, not {value}")
        epoch, records = saved["epoch"], [EpochRecord(**record) for record in saved["history"]]
        trained = [record.epoch for record in records if record.epoch]
        whole = trained == list(range(1, epoch + 1)) and 0 < epoch <= runner.max_epochs
        if not whole or saved["iteration"] != epoch * len(runner.train_dataloader):
            raise DataError(f"its history does not lead to epoch {epoch} and step {saved['iteration']}")
        validated = [record.epoch for record in records if record.mAP is not None]
        if validated and saved["best_epoch"] not in validated:
            raise DataError(f"its best epoch, {saved['best_epoch']}, was not validated")
        expected = {**own, "best": own["model"] if validated else {}, "optimizer": _settings(own["optimizer"])}
        given = {**saved, "optimizer": _settings(saved["optimizer"])}
        for name in ("model", "averaged", "optimizer", "schedulers", "best_value", "best", "seconds"):
            if layout(given[name]) != layout(expected[name]):
                raise DataError(f"it is of another training: its part '{name}' has another shape")
        parameters = [p for group in runner.optim_wrapper.optimizer.param_groups for p in group["params"]]
        for index, moments in saved["optimizer"]["state"].items():  # the optimizer itself has none yet
            if any(value.shape not in ((), parameters[index].shape) for value in moments.values()):
                raise DataError("it is of another training: its optimizer's moments have another shape")

    def _restore(self, saved: dict[str, Any], runner: Any) -> None:
        bare(runner.model).load_state_dict(saved["model"])
        average = averaged(runner)
        if average:
            average.load_state_dict(saved["averaged"])
        runner.optim_wrapper.load_state_dict(saved["optimizer"])
        for scheduler, state in zip(runner.param_schedulers, saved["schedulers"], strict=True):
            scheduler.load_state_dict(state)
        # as mmengine's own resume does; its hooks tell the message hub
        runner.train_loop._epoch = self._kept = saved["epoch"]
        runner.train_loop._iter = saved["iteration"]
        self.progress.history = [EpochRecord(**record) for record in saved["history"]]
        metrics = {record.epoch: {"mAP": record.mAP, "mAP50": record.mAP50} for record in self.progress.history}
        keeper, epoch = self.weights, runner.epoch
        keeper.best, keeper.best_epoch, keeper.best_state = saved["best_value"], saved["best_epoch"], saved["best"]
        # their files were in the folder of the killed attempt; the averaged model was validated
        if keeper.best_state:
            keeper.write("best.pth", keeper.best_state, keeper.best_epoch, metrics[keeper.best_epoch])
        if metrics[epoch]["mAP"] is not None:
            keeper.last_epoch = epoch
            keeper.write(
                "last.pth", (average.module if average else bare(runner.model)).state_dict(), epoch, metrics[epoch]
            )
        self.stopping.spent = saved["seconds"]


def arithmetic() -> dict[str, Any]:
    """The parts of the environment that the last bits of a result depend on; on a GPU no two runs agree in these."""
    exact = {} if torch.cuda.is_available() else {"threads": torch.get_num_threads()}
    return {"device": "cpu" if exact else "cuda", "torch": str(torch.__version__), **exact}


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically. Of processes that write the same file, the last one wins.

    Raises:
        OSError: The file cannot be written; its old content is unchanged.
        RuntimeError: The same, raised by torch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft, draft.open("xb") as file:
        torch.save(dict(state), file)


def read_state(path: Path) -> dict[str, Any]:
    """Read a file of `write_state` to the CPU, without running code from it.

    Raises:
        DataError: The file is damaged or has other content.
    """
    try:
        with path.open("rb") as file:  # opened once: another process may replace it meanwhile
            # torch writes check sums and does not verify them: a flipped bit would become a weight
            damaged = zipfile.ZipFile(file).testzip()
            file.seek(0)
            state = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, its decoders and torch raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"it cannot be read: {reason}", where=path) from error
    if damaged:
        raise DataError(f"it is damaged: the check sum of {damaged} is wrong", where=path)
    if not isinstance(state, dict):
        raise DataError(f"it holds {type(state).__name__} instead of dict", where=path)
    return state


def layout(value: Any) -> Any:
    """Names, types and shapes without the values; equal for two states if one can replace the other."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    if isinstance(value, Mapping):
        return {name: layout(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [layout(item) for item in value]
    return type(value)


def _remove_drafts(path: Path) -> None:
    """Remove the drafts of processes that were killed while they wrote the file.

    A process that still writes one gets an OSError, and writes its next epoch.
    """
    for draft in path.parent.glob(f".{path.name}.*.tmp"):
        draft.unlink(missing_ok=True)


def _settings(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in optimizer.items() if name != "state"}
