"""A training in this process: mmengine's runner with our hooks. Each of several devices runs the same session."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.learned_images import LearnedImages
from pipeline.data.tile_cutting import CutDataset, cut_tiles
from pipeline.detection.checkpoints import read_checkpoint
from pipeline.detection.coco_metric import TRUTH_FILE
from pipeline.detection.epochs import EpochRecord
from pipeline.detection.families import family_of
from pipeline.detection.hooks import (
    GivenWeightsHook,
    ProgressHook,
    SameStatisticsHook,
    StoppingHook,
    TrackingHook,
    WarmStartHook,
    WeightsHook,
)
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mapped_annotations import write_table
from pipeline.detection.resuming import EpochSeedHook, ResumeHook, arithmetic
from pipeline.errors import PipelineError, StepError
from pipeline.metrics.coco_matching import TruthBoxes
from pipeline.metrics.ground_truth import ground_truth_of
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.tiling import Tiling

CURVE_POINTS = 500  # per training, in TensorBoard


@dataclass(frozen=True)
class TrainingJob:
    """All that a session needs; it can be sent to another process."""

    options: TrainingOptions
    hyperparameters: Hyperparameters
    metadata: ModelMetadata
    execution: ExecutionConfig
    train_folder: Path
    eval_folder: Path
    folder: Path  # for `best.pth`, `last.pth`, `given.pth` and `config.py`
    weights: Path | None  # None for random weights
    resume: Path  # has the checkpoint to continue from, and gets new ones
    logs: Path | None = None  # for TensorBoard
    learned: LearnedImages | None = None  # the images that the weights learn from, to store in the weights
    # `write_tables`' folder, which the processes of a machine share; None: each process writes one for itself
    tables: Path | None = None
    # the train and eval sets that the two folders were cut from, where they are tiles of larger images
    uncut: tuple[Path, Path] | None = None

    def recipe(self) -> dict[str, str | int | float]:
        """How the model is trained, without what depends on the machine alone."""
        options, chosen = self.options, self.hyperparameters
        return {
            "batch_size": options.batch_size,
            "optimizer": chosen.optimizer,
            "learning_rate": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
            "freeze": chosen.freeze,
            "augmentation": "mosaic" if self.execution.mosaic else "flip",
            "precision": "mixed" if self.execution.mixed else "full",
            "seed": options.seed,
            "patience": options.patience,
            "max_minutes": options.max_minutes,
        }


@dataclass(frozen=True)
class SessionResult:
    """The result of a session, beside the files that it wrote."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    ended_early: str  # why training ended before its last epoch; empty where it did not
    memory: int  # peak bytes of tensors on a GPU
    device: str  # the GPU's name, or `cpu`


def run(job: TrainingJob, report: Callable[[int, int, str], None]) -> SessionResult:
    """Train, or continue a training, and report the step reached, the number of steps, and a line of figures.

    Raises:
        StepError: The loss became infinite.
        torch.OutOfMemoryError: The images of `execution.micro_batch` do not fit into memory.
    """
    from mmengine.runner import Runner

    options, execution, classes = job.options, job.execution, job.metadata.classes
    family = family_of(job.metadata)
    config = family.training_config(options, job.hyperparameters, job.metadata, execution)
    if is_main_process():
        config.dump(str(job.folder / "config.py"))
    progress = ProgressHook(options.batch_size, report if is_main_process() else lambda *_: None)
    meta = {"classes": list(classes), "variant": options.variant, "family": family.name, "seed": options.seed}
    keeper = WeightsHook(job.folder, meta, job.learned)
    stopping = StoppingHook(options.patience, options.max_minutes * 60, keeper)
    # a checkpoint with other facts is not continued; after an out of memory the parts of a step may be smaller
    same = replace(options, workers=0)  # they change nothing but the speed
    facts = {**asdict(same), "devices": execution.devices, "mixed": execution.mixed, **arithmetic()}
    hooks: list[Any] = [EpochSeedHook(options.seed), progress, keeper, stopping]
    if job.weights:  # of hooks of one priority, the first goes first
        hooks.append(GivenWeightsHook(read_checkpoint(job.weights, family), job.folder, meta))
        hooks.append(WarmStartHook(balanced=job.hyperparameters.balanced))
    hooks.append(ResumeHook(job.resume, facts, progress, keeper, stopping))
    if execution.devices > 1:
        hooks.append(SameStatisticsHook())
    tracking = None
    if job.logs and is_main_process():
        tracking = TrackingHook(job.logs, max(1, execution.iterations * options.epochs // CURVE_POINTS))
        hooks.append(tracking)
    # mmengine prints whole configs and tables; the progress line and the history have the results
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tables = job.tables or write_own_tables(job, Path(work) / "annotations")
        family.set_machine(config, job.train_folder, job.eval_folder, execution, tables)
        config.work_dir = work
        config.visualizer = {"type": "Visualizer", "vis_backends": []}
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
            _end_log(runner)
            if tracking:
                tracking.close()
    cuda = execution.cuda
    memory, device = (torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()) if cuda else (0, "cpu")
    return SessionResult(tuple(progress.history), keeper.best_epoch, stopping.reason, memory, device)


def write_tables(train_set: CocoDataset, eval_set: CocoDataset, eval_folder: Path, folder: Path) -> Path:
    """Write the annotations of a job's two sets for its processes on this machine, and return the folder.

    Raises:
        DataError: The records of the eval set do not fit together.
    """
    write_table(train_set, folder / "train")
    write_table(eval_set, folder / "eval")
    truth = ground_truth_of(eval_set, eval_folder / "annotations.json")
    TruthBoxes.of(truth).save(folder / "eval" / TRUTH_FILE)
    return folder


def with_own_files(job: TrainingJob, folder: Path) -> TrainingJob:
    """The job on a machine that may lack what the first one made of the data sets; that is made here, too."""
    if job.uncut and not job.train_folder.is_dir():
        train, evaluation = cut_sets(job.uncut, job.options.tiling, folder)
        job = replace(job, train_folder=train.folder, eval_folder=evaluation.folder)
    if job.tables and not job.tables.is_dir():
        job = replace(job, tables=write_own_tables(job, folder / "annotations"))
    return job


def write_own_tables(job: TrainingJob, folder: Path) -> Path:
    """The same where the sets have not been read."""
    sets = [read_coco(each / "annotations.json") for each in (job.train_folder, job.eval_folder)]
    return write_tables(sets[0], sets[1], job.eval_folder, folder)


def cut_sets(sets: tuple[Path, Path], tiling: Tiling, folder: Path) -> tuple[CutDataset, CutDataset]:
    """Cut the train and the eval set into tiles, in new folders within one."""
    return cut_tiles(sets[0], folder / "train", tiling), cut_tiles(sets[1], folder / "eval", tiling)


def _end_workers(runner: Any) -> None:
    """End the data loading processes, which the traceback of an error would keep alive."""
    for loop in (runner._train_loop, runner._val_loop):
        iterator = getattr(getattr(loop, "dataloader", None), "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


def _end_log(runner: Any) -> None:
    """Close the log file, whose folder goes. mmengine would write to it again when it initialises another model."""
    for handler in [each for each in runner.logger.handlers if isinstance(each, logging.FileHandler)]:
        runner.logger.removeHandler(handler)
        handler.close()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory for tensors ran out, on a GPU or a CPU."""
    words = ["out of memory", "not enough memory", "can't allocate memory", "alloc_failed"]
    # cuDNN's messages where none of its algorithms finds enough memory
    words += ["unable to find a valid cudnn algorithm", "unable to find an engine to execute"]
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
