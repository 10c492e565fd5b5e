"""One training in this process: mmengine's runner with our hooks. Each of several devices runs the same session."""

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

# registered under the names that configs use; imported rather than named, so that a step's code digest covers them
from pipeline.detection import cached_images, learning_rates, seeded_samples  # noqa: F401
from pipeline.detection.checkpoints import read_checkpoint
from pipeline.detection.families.yolox import detector, head  # noqa: F401
from pipeline.detection.families.yolox.data_config import set_on_machine
from pipeline.detection.families.yolox.mmdet_config import Setting, training_config
from pipeline.detection.hooks import EpochRecord, FirstLookHook, SameStatisticsHook, WarmStartHook, WeightsHook
from pipeline.detection.hyperparameters import Recipe, Tuning
from pipeline.detection.resuming import EpochSeedHook, ResumeHook, arithmetic
from pipeline.detection.spec import DetectorSpec
from pipeline.detection.stopping_rules import LimitsHook
from pipeline.detection.tracking import TrackingHook, backends, close
from pipeline.detection.training_progress import ProgressHook
from pipeline.errors import PipelineError, StepError

# cuDNN's words where none of its algorithms finds the memory it needs
CUDNN_HAS_NO_MEMORY = ("unable to find a valid cuDNN algorithm", "unable to find an engine to execute")
CURVE_POINTS = 500  # of a whole training, in TensorBoard


@dataclass(frozen=True)
class Job:
    """All that a session needs, in plain values that go from process to process.

    Attributes:
        recipe: What the user asked for.
        tuning: What was chosen for the rest.
        classes: Of the data sets, and of the detector.
        train_folder: `annotations.json` and `images/`.
        eval_folder: The same.
        folder: Where `best.pth`, `last.pth` and `config.py` go.
        weights: A checkpoint to start from; empty for random weights.
        resume: Folder of the checkpoint to go on from, and to leave.
        setting: What it runs on.
        logs: Folder for TensorBoard; empty for no tracking at all.
        learned: File with the record of the images that the weights learn from, to go into theirs; empty for none.
    """

    recipe: Recipe
    tuning: Tuning
    classes: tuple[str, ...]
    train_folder: str
    eval_folder: str
    folder: str
    weights: str
    resume: str
    setting: Setting
    logs: str = ""
    learned: str = ""

    @property
    def spec(self) -> DetectorSpec:
        """The detector to be trained."""
        return DetectorSpec(self.recipe.variant, (self.recipe.image_size, self.recipe.image_size), self.classes)

    def write(self, path: Path) -> None:
        """Write it for another process to read."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Job:
        """Read what `write` wrote."""
        values = json.loads(path.read_text(encoding="utf-8"))
        values["classes"] = tuple(values["classes"])
        for name, kind in (("recipe", Recipe), ("tuning", Tuning), ("setting", Setting)):
            values[name] = kind(**values[name])
        return cls(**values)


@dataclass(frozen=True)
class Outcome:
    """What a session tells beside the files it wrote.

    Attributes:
        history: One record an epoch.
        best_epoch: The epoch of `best.pth`.
        ended_early: Why training ended before its last epoch; empty where it did not.
        memory: Bytes of GPU memory that tensors took at most; 0 on a CPU.
    """

    history: tuple[EpochRecord, ...]
    best_epoch: int
    ended_early: str
    memory: int

    def to_json(self) -> str:
        """As one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """Read `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "history": tuple(EpochRecord(**record) for record in values["history"])})


def run(job: Job, tell: Callable[[int, int, str], None]) -> Outcome:
    """Train, or go on with a training.

    Args:
        job: What to do.
        tell: Called in the main process with the step reached, all steps, and a line of figures.

    Raises:
        StepError: The loss became infinite.
        torch.OutOfMemoryError: Even so few images at once are too many.
    """
    from mmengine.runner import Runner

    config = training_config(job.recipe, job.tuning, job.spec, job.setting)
    folder = Path(job.folder)
    if rank() == 0:
        config.dump(str(folder / "config.py"))
    setting, train, test = job.setting, Path(job.train_folder), Path(job.eval_folder)
    set_on_machine(config, train, test, workers=setting.workers, devices=setting.devices, cuda=setting.cuda)
    progress, keeper, hooks = _hooks(job, tell)
    # mmengine and pycocotools print whole configs and tables; what matters is in the line and in the history
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
            remedy = "lower model_train.learning_rate"
            raise StepError(f"training diverged: {error}", where="training", remedy=remedy) from error
        except PipelineError as error:
            own = f"pipeline.errors.{type(error).__name__}: "  # torch puts a data loading process's traceback before
            if own not in str(error):
                raise
            raise type(error)(str(error).rpartition(own)[2].rstrip()) from error
        finally:
            _end_workers(runner)
            close(runner.visualizer)
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    limits = next(hook for hook in hooks if isinstance(hook, LimitsHook))
    return Outcome(tuple(progress.history), keeper.best_epoch, limits.reason, memory)


def _hooks(job: Job, tell: Callable[[int, int, str], None]) -> tuple[ProgressHook, WeightsHook, list[Any]]:
    recipe = job.recipe
    meta = {"classes": list(job.classes), "variant": recipe.variant, "seed": recipe.seed}
    progress = ProgressHook(recipe.batch_size, tell if rank() == 0 else lambda *_: None)
    learned = LearnedImages.read(Path(job.learned)) if job.learned else None
    keeper = WeightsHook(Path(job.folder), meta, learned)
    limits = LimitsHook(recipe.patience, recipe.max_minutes * 60, keeper)
    hooks: list[Any] = [EpochSeedHook(recipe.seed), progress, keeper, limits]
    hooks.append(ResumeHook(Path(job.resume), _facts(job), progress, keeper, limits))
    if job.setting.devices > 1:
        hooks.append(SameStatisticsHook())
    if job.weights:
        checkpoint = read_checkpoint(Path(job.weights), again=True)
        hooks += [WarmStartHook(checkpoint, job.classes, balanced=job.tuning.balanced), FirstLookHook()]
    if rank() == 0 and job.logs:
        hooks.append(TrackingHook(max(1, job.setting.iterations * recipe.epochs // CURVE_POINTS)))
    return progress, keeper, hooks


def _end_workers(runner: Any) -> None:
    """End the data loading processes: an error's traceback would keep them, and the images they hold, for long."""
    for loop in (runner._train_loop, runner._val_loop):
        iterator = getattr(getattr(loop, "dataloader", None), "_iterator", None)
        if iterator is not None:
            iterator._shutdown_workers()


def _facts(job: Job) -> dict[str, Any]:
    """What a checkpoint must agree in: all that decides the result, and no place."""
    # where memory ran out the same training goes on in smaller parts; the workers decide nothing
    setting = {n: v for n, v in asdict(job.setting).items() if n not in ("micro_batch", "workers")}
    limits = ("patience", "max_minutes", "workers", "micro_batch")
    recipe = {name: value for name, value in asdict(job.recipe).items() if name not in limits}
    chosen = {"classes": list(job.classes), "pretrained": bool(job.weights)}
    return {**recipe, "tuning": asdict(job.tuning), "setting": setting, **chosen, **arithmetic()}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory for tensors ran out, on a GPU or on a CPU."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED", *CUDNN_HAS_NO_MEMORY)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word.lower() in str(error).lower() for word in words)
    )


def rank() -> int:
    """Which of several processes this is; 0 outside of torchrun, whatever a cluster has put into `RANK`."""
    return int(os.environ["RANK"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0
