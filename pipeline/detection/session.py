"""A training in this process: mmengine's runner with our hooks. Each of several devices runs the same session."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.data.learned_images import LearnedImages
from pipeline.detection.checkpoints import read_checkpoint
from pipeline.detection.families import FAMILY
from pipeline.detection.hooks import (
    EpochRecord,
    InitialValidationHook,
    SameStatisticsHook,
    WarmStartHook,
    WeightsHook,
)
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.resuming import EpochSeedHook, ResumeHook, arithmetic
from pipeline.detection.stopping_rules import StoppingHook
from pipeline.detection.tracking import TrackingHook, backends, close
from pipeline.detection.training_progress import ProgressHook
from pipeline.errors import PipelineError, StepError
from pipeline.serving.model_metadata import ModelMetadata

# cuDNN's messages where none of its algorithms finds enough memory
CUDNN_HAS_NO_MEMORY = ("unable to find a valid cuDNN algorithm", "unable to find an engine to execute")
CURVE_POINTS = 500  # per training, in TensorBoard


@dataclass(frozen=True)
class TrainingJob:
    """All that a session needs, in plain values that can be sent to another process.

    Attributes:
        options: The user's options.
        hyperparameters: All that the user did not choose.
        classes: Class names of the data sets and the detector.
        train_folder: A folder with `annotations.json` and `images/`.
        eval_folder: The same.
        folder: The folder for `best.pth`, `last.pth` and `config.py`.
        weights: A checkpoint to start from; empty for random weights.
        resume: The folder of the checkpoint to continue from, and to write.
        execution: How the training is divided.
        logs: The folder for TensorBoard; empty for no tracking.
        learned: The record of the images that the weights learn from, to store in the weights; empty for none.
    """

    options: TrainingOptions
    hyperparameters: Hyperparameters
    classes: tuple[str, ...]
    train_folder: str
    eval_folder: str
    folder: str
    weights: str
    resume: str
    execution: ExecutionConfig
    logs: str = ""
    learned: str = ""

    @property
    def metadata(self) -> ModelMetadata:
        """The detector to train."""
        return detector_metadata(self.options, self.classes)

    def write(self, path: Path) -> None:
        """Write it for another process to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> TrainingJob:
        """Read what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["classes"] = tuple(values["classes"])
        for name, kind in (
            ("options", TrainingOptions),
            ("hyperparameters", Hyperparameters),
            ("execution", ExecutionConfig),
        ):
            values[name] = kind(**values[name])
        return cls(**values)


def detector_metadata(options: TrainingOptions, classes: tuple[str, ...]) -> ModelMetadata:
    """The metadata of the detector that a training with these options gives."""
    return ModelMetadata(options.variant, (options.image_size, options.image_size), classes)


@dataclass(frozen=True)
class SessionResult:
    """The result of a session, beside the files that it wrote.

    Attributes:
        history: One record per epoch.
        best_epoch: The epoch of `best.pth`.
        ended_early: Why training ended before its last epoch; empty where it did not.
        memory: Peak bytes of GPU memory of tensors; 0 on a CPU.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    ended_early: str
    memory: int

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> SessionResult:
        """Read `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "history": tuple(EpochRecord(**record) for record in values["history"])})


def run(job: TrainingJob, report: Callable[[int, int, str], None]) -> SessionResult:
    """Train, or continue a training.

    Args:
        job: What to do.
        report: Called in the main process with the step reached, the number of steps, and a line of figures.

    Raises:
        StepError: The loss became infinite.
        torch.OutOfMemoryError: The images of `execution.micro_batch` do not fit into memory.
    """
    from mmengine.runner import Runner

    config = FAMILY.training_config(job.options, job.hyperparameters, job.metadata, job.execution)
    folder = Path(job.folder)
    if rank() == 0:
        config.dump(str(folder / "config.py"))
    execution, train, test = job.execution, Path(job.train_folder), Path(job.eval_folder)
    FAMILY.set_machine(config, train, test, workers=execution.workers, devices=execution.devices, cuda=execution.cuda)
    progress, keeper, hooks = _hooks(job, report)
    # mmengine and pycocotools print whole configs and tables; the progress line and the history have the results
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.work_dir = work
        if rank() == 0:
            config.visualizer = {"type": "Visualizer", "vis_backends": backends(job.logs)}
        runner = Runner.from_cfg(config)
        if torch.cuda.is_available():  # not before: the runner chooses the process's device
            torch.cuda.reset_peak_memory_stats()
        for hook in hooks:
            runner.register_hook(hook)
        try:
            runner.train()
        except FloatingPointError as error:
            remedy = "lower learning_rate"
            raise StepError(f"training diverged: {error}", where="training", remedy=remedy) from error
        except PipelineError as error:
            own = f"pipeline.errors.{type(error).__name__}: "  # after the traceback of a data loading process
            if own not in str(error):
                raise
            raise type(error)(str(error).rpartition(own)[2].rstrip()) from error
        finally:
            _end_workers(runner)
            close(runner.visualizer)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    stopping = next(hook for hook in hooks if isinstance(hook, StoppingHook))
    return SessionResult(tuple(progress.history), keeper.best_epoch, stopping.reason, memory)


def _hooks(job: TrainingJob, report: Callable[[int, int, str], None]) -> tuple[ProgressHook, WeightsHook, list[Any]]:
    options = job.options
    meta = {"classes": list(job.classes), "variant": options.variant, "seed": options.seed}
    progress = ProgressHook(options.batch_size, report if rank() == 0 else lambda *_: None)
    learned = LearnedImages.read(Path(job.learned)) if job.learned else None
    keeper = WeightsHook(Path(job.folder), meta, learned)
    stopping = StoppingHook(options.patience, options.max_minutes * 60, keeper)
    hooks: list[Any] = [EpochSeedHook(options.seed), progress, keeper, stopping]
    hooks.append(ResumeHook(Path(job.resume), _facts(job), progress, keeper, stopping))
    if job.execution.devices > 1:
        hooks.append(SameStatisticsHook())
    if job.weights:
        checkpoint = read_checkpoint(Path(job.weights), quiet=True)
        hooks += [
            WarmStartHook(checkpoint, job.classes, balanced=job.hyperparameters.balanced),
            InitialValidationHook(),
        ]
    if rank() == 0 and job.logs:
        hooks.append(TrackingHook(max(1, job.execution.iterations * options.epochs // CURVE_POINTS)))
    return progress, keeper, hooks


def _end_workers(runner: Any) -> None:
    """End the data loading processes, which the traceback of an error would keep alive."""
    for loop in (runner._train_loop, runner._val_loop):
        iterator = getattr(getattr(loop, "dataloader", None), "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


def _facts(job: TrainingJob) -> dict[str, Any]:
    """Everything that the result depends on, without paths: a checkpoint with other facts is not continued."""
    # after an out of memory the same training continues in smaller parts; workers do not change the result
    execution = {n: v for n, v in asdict(job.execution).items() if n not in ("micro_batch", "workers")}
    irrelevant = ("patience", "max_minutes", "workers", "micro_batch")
    options = {name: value for name, value in asdict(job.options).items() if name not in irrelevant}
    chosen = {"classes": list(job.classes), "pretrained": bool(job.weights)}
    return {**options, "hyperparameters": asdict(job.hyperparameters), "execution": execution, **chosen, **arithmetic()}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory for tensors ran out, on a GPU or a CPU."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED", *CUDNN_HAS_NO_MEMORY)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word.lower() in str(error).lower() for word in words)
    )


def rank() -> int:
    """The number of this process under torchrun; 0 elsewhere, even where a cluster sets `RANK`."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0
