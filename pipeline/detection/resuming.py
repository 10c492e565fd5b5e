"""Training that outlives its process: after each epoch, all that the next one needs is kept in one file.

A continued run ends in the very bytes of an undisturbed one, since an epoch's randomness depends on nothing but the
seed and the number of the epoch. mmengine's own `resume` is not used: its checkpoints pickle objects, so that reading
one runs code, and know neither the history nor the best weights.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook

from pipeline.detection.families.yolox.detector import bare
from pipeline.detection.hooks import EpochRecord, WeightsHook, averaged
from pipeline.detection.saved_state import layout, read_state, remove_partial, write_state
from pipeline.detection.stopping_rules import LimitsHook
from pipeline.detection.training_progress import ProgressHook
from pipeline.errors import DataError

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"
FORMAT = 2  # of its content


class EpochSeedHook(Hook):  # type: ignore[misc]  # mmengine is untyped
    """Makes an epoch's randomness depend on the seed and the epoch alone, and not on the epochs before it."""

    priority = "HIGHEST"

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def before_train_epoch(self, runner: Any) -> None:
        """Seed Python, numpy and torch."""
        from mmengine.runner import set_random_seed  # imported here: slow, and not needed to declare a training

        # hashed: by sums, seed 0 would have in its second epoch what seed 1 has in its first
        [seed] = np.random.SeedSequence([self.seed, runner.epoch]).generate_state(1)
        set_random_seed(int(seed))


class ResumeHook(Hook):  # type: ignore[misc]
    """Keeps `checkpoint.pth` in a folder that outlives the process, and goes on from the one it finds there.

    It runs before all other hooks: when an epoch begins, the one before is complete with its validation, the EMA hook
    has put the unaveraged weights back, and nothing of the new epoch has happened.

    Args:
        folder: Of this training alone; need not exist.
        facts: Plain values; a checkpoint with others is of another training.
        progress: Holds the history.
        weights: Holds the best weights.
        limits: Holds the time spent.
    """

    priority = "HIGHEST"

    def __init__(
        self, folder: Path, facts: Mapping[str, Any], progress: ProgressHook, weights: WeightsHook, limits: LimitsHook
    ) -> None:
        self.path = folder / CHECKPOINT
        self.facts = dict(facts)
        self.progress = progress
        self.weights = weights
        self.limits = limits
        self._kept = 0  # epochs in the file

    def before_train(self, runner: Any) -> None:
        """Restore all of a checkpoint of this training where there is one; otherwise leave the run as it is."""
        saved = self._usable(runner)
        # processes that began at different epochs would wait for each other for ever
        all_can = torch.tensor(float(saved is not None))
        all_reduce(all_can, op="min")
        if saved is not None and all_can:
            self._restore(saved, runner)
            log.info("continuing after epoch %d of %d", runner.epoch, runner.max_epochs)

    def _usable(self, runner: Any) -> dict[str, Any] | None:
        try:
            if is_main_process():
                remove_partial(self.path)
            if not self.path.exists():
                return None
            saved = read_state(self.path)
            self._check(saved, runner)
        except Exception as error:  # noqa: BLE001, whatever is wrong with the file, training can start anew
            reason = error.problem if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
            log.warning("%s is ignored, and training starts at its first epoch: %s", self.path, reason)
            return None
        return saved

    def before_train_epoch(self, runner: Any) -> None:
        """Keep the epoch before; mmengine has no hook of its own between validation and the next epoch."""
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
        except (OSError, RuntimeError) as error:  # a training that cannot be continued is better than none
            log.warning("epoch %d could not be kept in %s: %s", runner.epoch, self.path, error)

    def _state(self, runner: Any) -> dict[str, Any]:
        """All that the next epoch depends on, and what the epochs so far have brought."""
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
            "seconds": self.limits.elapsed,
        }

    def _check(self, saved: dict[str, Any], runner: Any) -> None:
        """Refuse what could not be restored whole, before anything of it is."""
        own = self._state(runner)
        if saved.get("format") != FORMAT:
            raise DataError(f"it is of format {saved.get('format')}, not {FORMAT}")
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
        # where mmengine's own resume puts them; its hooks tell the message hub
        runner.train_loop._epoch = self._kept = saved["epoch"]
        runner.train_loop._iter = saved["iteration"]
        self.progress.history = [EpochRecord(**record) for record in saved["history"]]
        metrics = {record.epoch: {"mAP": record.mAP, "mAP50": record.mAP50} for record in self.progress.history}
        keeper, epoch = self.weights, runner.epoch
        keeper.best, keeper.best_epoch, keeper.best_state = saved["best_value"], saved["best_epoch"], saved["best"]
        # their files were in the killed attempt's folder; what was validated is the averaged model
        if keeper.best_state:
            keeper.write("best.pth", keeper.best_state, keeper.best_epoch, metrics[keeper.best_epoch])
        if metrics[epoch]["mAP"] is not None:
            keeper.last_epoch = epoch
            keeper.write(
                "last.pth", (average.module if average else bare(runner.model)).state_dict(), epoch, metrics[epoch]
            )
        self.limits.spent = saved["seconds"]


def arithmetic() -> dict[str, Any]:
    """What decides the last bits of a result beside its inputs; on a GPU no two runs agree in these anyway."""
    exact = {} if torch.cuda.is_available() else {"threads": torch.get_num_threads()}
    return {"device": "cpu" if exact else "cuda", "torch": str(torch.__version__), **exact}


def _settings(optimizer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in optimizer.items() if name != "state"}
