"""Training: from two data sets and perhaps pretrained weights to the folder of inference files."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import shutil
import tempfile
import warnings
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch

from pipeline.detection.config import Recipe, build_model, model_config, set_data_roots, training_config
from pipeline.detection.hooks import EpochRecord, ProgressHook, WarmStartHook, WeightsHook
from pipeline.detection.resuming import EpochSeedHook, ResumeHook, arithmetic
from pipeline.detection.spec import DetectorSpec
from pipeline.detection.weights import Checkpoint, fit, read_checkpoint, write_checkpoint
from pipeline.errors import DataError, MissingError, StepError, UsageError

log = logging.getLogger(__name__)

PARITY_IMAGES = 8
LEARNING_RATES = {"scratch": 1e-2, "new classes": 1e-4, "known classes": 1e-5}
MOSAIC_EPOCHS = 50  # a shorter run from scratch has not the steps to learn from mosaics


@dataclass(frozen=True)
class TrainingResult:
    """What a run made.

    Attributes:
        folder: Holds `best.pth`, `last.pth`, `config.py`, `model.json`, `history.json`, the test image and
            `parity_images/`.
        spec: The detector.
        history: One record an epoch; empty for `epochs=0`.
        best_epoch: The epoch of `best.pth`; 0 for untouched pretrained weights.
        known: Classes that started from the checkpoint's rows.
        fresh: Classes that started from nothing.
        device: `cpu` or the GPU's name.
    """

    folder: Path
    spec: DetectorSpec
    history: tuple[EpochRecord, ...]
    best_epoch: int
    known: tuple[str, ...]
    fresh: tuple[str, ...]
    device: str

    def metrics(self) -> dict[str, Any]:
        """The figures worth recording beside the artifact."""
        best = next((record for record in self.history if record.epoch == self.best_epoch), None)
        measured = {"eval_mAP": best.mAP, "eval_mAP50": best.mAP50} if best else {}
        losses = {"last_loss": self.history[-1].loss["loss"]} if self.history else {}
        return {**measured, "best_epoch": self.best_epoch, **losses, "device": self.device}


def train(
    recipe: Recipe,
    train_folder: Path,
    eval_folder: Path,
    folder: Path,
    *,
    weights: Path | None = None,
    resume: Path | None = None,
) -> TrainingResult:
    """Train YOLOX and write everything that inference needs.

    Runs on the first GPU where there is one, with mixed precision, and on the CPU otherwise. The classes are the train
    set's; with `epochs=0` they are the checkpoint's, and its weights are packed as they are.

    Args:
        recipe: How to train.
        train_folder: `annotations.json` and `images/`.
        eval_folder: The same; decides which epoch is the best.
        folder: Where the result goes; must exist.
        weights: A checkpoint to start from, or None for random initial weights.
        resume: A folder that outlives the process, of this very work: same inputs, parameters and code. Training keeps
            `checkpoint.pth` there after each epoch, and goes on from the one it finds, on a CPU with the bytes that an
            undisturbed run would have given. It need not exist; removing it once the result is safe is the caller's.

    Raises:
        UsageError: `epochs=0` without weights.
        MissingError: A data set or the checkpoint is not there.
        DataError: The data sets' classes differ, or the weights fit no such model.
        StepError: The loss became infinite.
    """
    classes = _classes(train_folder)
    if _classes(eval_folder) != classes:
        raise DataError(
            "the train and eval sets have different classes", where=eval_folder, expected=", ".join(classes)
        )
    for name, part in (("train", train_folder), ("eval", eval_folder)):
        if not _count_images(part):
            raise DataError(
                f"the {name} set has no images",
                where=part,
                expected="images to train on, and images to choose the best epoch by",
                remedy=f"give data_prep.{name}_share a value above 0",
            )
    checkpoint = read_checkpoint(weights) if weights else None
    if recipe.epochs == 0:
        if checkpoint is None:
            raise UsageError(
                "epochs=0 packs pretrained weights, and there are none",
                where="epochs",
                expected="a weights_url in data_load, or at least one epoch",
            )
        result = _untouched(recipe, checkpoint, folder)
    else:
        result = _trained(recipe, checkpoint, classes, train_folder, eval_folder, folder, resume)
    _copy_images(eval_folder, folder)
    history = json.dumps([asdict(record) for record in result.history], indent=1)
    (folder / "history.json").write_text(history + "\n", encoding="utf-8")
    result.spec.write(folder)
    return result


def _untouched(recipe: Recipe, checkpoint: Checkpoint, folder: Path) -> TrainingResult:
    """The checkpoint itself as both best and last."""
    spec = _spec(recipe, checkpoint.classes)
    carried = fit(checkpoint, build_model(spec), spec.classes)
    for name in ("best.pth", "last.pth"):
        write_checkpoint(folder / name, checkpoint.state, {"classes": list(spec.classes), "epoch": 0})
    model_config(spec).dump(str(folder / "config.py"))
    log.info("epochs=0: the pretrained weights are passed on as they are, %d classes", len(spec.classes))
    return TrainingResult(folder, spec, (), 0, carried.known, carried.fresh, "cpu")


def _trained(
    recipe: Recipe,
    checkpoint: Checkpoint | None,
    classes: tuple[str, ...],
    train_folder: Path,
    eval_folder: Path,
    folder: Path,
    resume: Path | None,
) -> TrainingResult:
    spec = _spec(recipe, classes)
    known, fresh = _known(checkpoint, classes)
    start = "scratch" if checkpoint is None else "new classes" if fresh else "known classes"
    rate = recipe.learning_rate or LEARNING_RATES[start]
    mosaic = recipe.augmentation == "mosaic" or (
        recipe.augmentation == "auto" and checkpoint is None and recipe.epochs >= MOSAIC_EPOCHS
    )
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else "cpu"
    iterations, workers = ceil(_count_images(train_folder) / recipe.batch_size), _workers(recipe.workers)
    config = training_config(
        recipe, spec, iterations=iterations, learning_rate=rate, mosaic=mosaic, cuda=cuda, workers=workers
    )
    config.dump(str(folder / "config.py"))
    set_data_roots(config, train_folder.resolve(), eval_folder.resolve())
    progress = ProgressHook()
    keeper = WeightsHook(folder, {"classes": list(classes), "variant": spec.variant, "seed": recipe.seed})
    hooks = [EpochSeedHook(recipe.seed), progress, keeper]
    if resume:
        facts = {**asdict(recipe), "classes": list(classes), "iterations": iterations, "learning_rate": rate}
        hooks.append(ResumeHook(resume, facts | arithmetic(workers), progress, keeper))
    log.info(
        "YOLOX-%s on %s, %d classes, %s: learning rate %g, augmentation %s",
        spec.variant,
        device,
        len(classes),
        start,
        rate,
        "mosaic" if mosaic else "flip",
    )
    _run(config, checkpoint, classes, hooks)
    history = tuple(progress.history)
    best = next(record for record in history if record.epoch == keeper.best_epoch)
    facts = {"epochs": recipe.epochs, "best_epoch": best.epoch, "eval_mAP": best.mAP, "eval_mAP50": best.mAP50}
    return TrainingResult(folder, replace(spec, training=facts), history, best.epoch, known, fresh, device)


def _run(config: Any, checkpoint: Checkpoint | None, classes: tuple[str, ...], hooks: list[Any]) -> None:
    """One mmengine run in a folder of its own that is gone afterwards."""
    from mmengine.runner import Runner

    # mmengine and pycocotools print whole configs and tables; what matters is on the bar and in the history
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.work_dir = work
        runner = Runner.from_cfg(config)
        for hook in [*([WarmStartHook(checkpoint, classes)] if checkpoint else []), *hooks]:
            runner.register_hook(hook)
        try:
            runner.train()
        except (FloatingPointError, RuntimeError) as error:
            # torch's own words where a loss is given NaN instead of a probability
            if not isinstance(error, FloatingPointError) and "between 0 and 1" not in str(error):
                raise
            raise StepError(
                f"training diverged: {error}", where="training", remedy="lower model_train.learning_rate"
            ) from error


def _known(checkpoint: Checkpoint | None, classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = set(checkpoint.classes) if checkpoint else set()
    return tuple(c for c in classes if c in rows), tuple(c for c in classes if c not in rows)


def _spec(recipe: Recipe, classes: tuple[str, ...]) -> DetectorSpec:
    return DetectorSpec(recipe.variant, (recipe.image_size, recipe.image_size), classes)


def _workers(asked: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked if asked >= 0 else 0 if cores <= 2 else min(4, cores - 1)


def _annotations(folder: Path) -> dict[str, Any]:
    path = folder / "annotations.json"
    if not path.is_file():
        raise MissingError("the data set has no annotations.json", where=path, expected="the output of data_prep")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _classes(folder: Path) -> tuple[str, ...]:
    """Names by ascending category id, the order pycocotools gives mmdet's labels."""
    categories = sorted(_annotations(folder)["categories"], key=lambda category: int(category["id"]))
    return tuple(str(category["name"]) for category in categories)


def _count_images(folder: Path) -> int:
    return len(_annotations(folder)["images"])


def _copy_images(eval_folder: Path, folder: Path) -> None:
    """Copy the fullest eval images: all for the parity check of the export, the first as the test image."""
    content = _annotations(eval_folder)
    boxes: dict[int, list[int]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        boxes[annotation["image_id"]].append(annotation["category_id"])
    order = sorted(content["images"], key=lambda i: (-len(set(boxes[i["id"]])), -len(boxes[i["id"]]), i["file_name"]))
    (folder / "parity_images").mkdir()
    for number, image in enumerate(order[:PARITY_IMAGES]):
        source = eval_folder / "images" / image["file_name"]
        if number == 0:
            shutil.copyfile(source, folder / f"test_image{source.suffix.lower()}")
        shutil.copyfile(source, folder / "parity_images" / f"{number}{source.suffix.lower()}")
