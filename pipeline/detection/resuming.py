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
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast, is_main_process
from mmengine.hooks import Hook

from pipeline.detection.epochs import EpochRecord
from pipeline.detection.hooks import ProgressHook, StoppingHook, WeightsHook, averaged, bare
from pipeline.errors import DataError
from pipeline.files import atomic_path

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pth"


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
    The folder, which need not exist, is for this training alone: same data, options, weights and code. The facts are
    plain values of the machine and the options; a checkpoint with other values is ignored.
    """

    priority = "HIGHEST"

    def __init__(
        self, folder: Path, facts: dict[str, Any], progress: ProgressHook, weights: WeightsHook, stopping: StoppingHook
    ) -> None:
        self.path, self.facts = folder / CHECKPOINT, facts
        self.progress, self.weights, self.stopping = progress, weights, stopping
        self._kept = 0  # epochs in the file

    def before_train(self, runner: Any) -> None:
        """Restore a checkpoint of this training; without one, leave the runner as it is."""
        if is_main_process():
            for draft in self.path.parent.glob(f".{self.path.name}.*.tmp"):  # of processes killed while they wrote
                draft.unlink(missing_ok=True)
        saved = None
        try:
            if received := received_file(self.path):
                saved = read_stream(BytesIO(received), self.path)
            elif self.path.exists():
                saved = read_state(self.path)
            other = [name for name, value in self.facts.items() if saved and saved["facts"].get(name) != value]
            if saved and other:
                raise DataError(f"it is of a training with another {', '.join(other)}")
        except (DataError, KeyError, TypeError, AttributeError) as error:
            reason = error.problem if isinstance(error, DataError) else "it has other content"
            log.warning("%s is ignored, and training starts at its first epoch: %s", self.path, reason)
            saved = None
        # processes that start at different epochs would wait for each other for ever
        all_can = torch.tensor(float(saved is not None))
        all_reduce(all_can, op="min")
        if saved is not None and all_can:
            self._restore(saved, runner)
            log.info("continuing after epoch %d of %d", runner.epoch, runner.max_epochs)

    def before_train_epoch(self, runner: Any) -> None:
        """Keep the epoch before: mmengine has no hook between a validation and the next epoch."""
        self.after_train(runner)

    def after_train(self, runner: Any) -> None:
        """Keep the last epoch, with the state that the next one depends on, and the results so far."""
        if runner.epoch == self._kept or not is_main_process():
            return
        state = {
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
        try:
            write_state(self.path, state)
            self._kept = runner.epoch
        except (OSError, RuntimeError) as error:  # training goes on, though it cannot be resumed
            log.warning("epoch %d could not be kept in %s: %s", runner.epoch, self.path, error)

    def _restore(self, saved: dict[str, Any], runner: Any) -> None:
        bare(runner.model).load_state_dict(saved["model"])
        if average := averaged(runner):
            average.load_state_dict(saved["averaged"])
        runner.optim_wrapper.load_state_dict(saved["optimizer"])
        for scheduler, state in zip(runner.param_schedulers, saved["schedulers"], strict=True):
            scheduler.load_state_dict(state)
        # as mmengine's own resume does; its hooks tell the message hub
        runner.train_loop._epoch = self._kept = epoch = saved["epoch"]
        runner.train_loop._iter = saved["iteration"]
        self.stopping.spent = saved["seconds"]
        self.progress.history = [EpochRecord(**record) for record in saved["history"]]
        metrics = {record.epoch: {"mAP": record.mAP, "mAP50": record.mAP50} for record in self.progress.history}
        keeper = self.weights
        keeper.best, keeper.best_epoch, keeper.best_state = saved["best_value"], saved["best_epoch"], saved["best"]
        # their files were in the folder of the killed attempt; the averaged model was validated
        if keeper.best_state:
            keeper.write("best.pth", keeper.best_state, keeper.best_epoch, metrics[keeper.best_epoch])
        if metrics[epoch]["mAP"] is not None:
            keeper.last_epoch = epoch
            validated = average.module if average else bare(runner.model)
            keeper.write("last.pth", validated.state_dict(), epoch, metrics[epoch])


def arithmetic() -> dict[str, Any]:
    """The parts of the environment that the last bits of a result depend on; on a GPU no two runs agree in these."""
    cuda = torch.cuda.is_available()
    exact = {} if cuda else {"threads": torch.get_num_threads()}
    return {"device": "cuda" if cuda else "cpu", "torch": str(torch.__version__), **exact}


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values atomically, or raise OSError or torch's RuntimeError and leave the file alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as draft, draft.open("xb") as file:
        torch.save(dict(state), file)


def received_file(path: Path) -> bytes:
    """The first process's file, in a process that has none, on another machine; otherwise empty.

    All processes call it together. The bytes go through gloo, for which the memory of a GPU is not needed.
    """
    size = torch.tensor(path.stat().st_size if path.exists() else 0)
    broadcast(size)
    lacks = torch.tensor(float(not path.exists()))
    all_reduce(lacks, op="max")
    if not size or not lacks:
        return b""
    content = torch.empty(int(size), dtype=torch.uint8)
    if is_main_process():
        content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    group = torch.distributed.new_group(backend="gloo")
    torch.distributed.broadcast(content, 0, group=group)
    torch.distributed.destroy_process_group(group)
    return b"" if path.exists() else content.numpy().tobytes()


def read_state(path: Path) -> dict[str, Any]:
    """Read a file of `write_state` to the CPU, without running code from it.

    Raises:
        DataError: The file is damaged or has other content.
    """
    try:
        with path.open("rb") as file:  # opened once: another process may replace it meanwhile
            return read_stream(file, path)
    except OSError as error:
        raise DataError(f"it cannot be read: {error}", where=path) from error


def read_stream(file: BinaryIO, path: Path) -> dict[str, Any]:
    """Read the content of a file of `write_state`, as `read_state` does."""
    try:
        # torch writes check sums and does not verify them: a flipped bit would become a weight
        if damaged := zipfile.ZipFile(file).testzip():
            raise DataError(f"it is damaged: the check sum of {damaged} is wrong", where=path)
        file.seek(0)
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state
    except DataError:
        raise
    except Exception as error:  # zipfile, its decoders and torch raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"it cannot be read: {reason}", where=path) from error
