"""Training: from two data sets and perhaps pretrained weights to the folder of inference files."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.dataset_origin import DatasetOrigin
from pipeline.data.learned_images import FILE_NAME, UnknownWeights, learn_images
from pipeline.data.pretrained import COCO, WeightsOrigin, coco_weights
from pipeline.detection.checkpoints import GIVEN, coco_classes, fit, read_checkpoint, write_checkpoint
from pipeline.detection.cluster_training import run_on_machines
from pipeline.detection.devices import Machines, execution_config, run_within_memory
from pipeline.detection.epochs import RESULTS, EpochRecord, write_epochs
from pipeline.detection.families import find_family
from pipeline.detection.hyperparameters import Hyperparameters, TrainingOptions, default_hyperparameters
from pipeline.detection.session import TrainingJob, cut_sets, write_tables
from pipeline.detection.training_origins import ORIGINS_FILE, TrainingOrigins
from pipeline.errors import DataError, UsageError
from pipeline.files import sha256_of
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata

log = logging.getLogger(__name__)

PARITY_IMAGES = 8

# Measured from scratch with YOLOX-nano, see docs/finetuning.md. On photographs 640 samples (80 steps of 8) give a mAP
# of 0. On the embedded sample, which is easy, 157 images give a mAP of 0.2 after 1,570 samples (10 epochs), an mAP50 of
# 0.73 after 3,140 (20 epochs), and above 0.9 after 5,024 (32 epochs).
FEWEST_SAMPLES = 4000  # images times epochs
FEWEST_IMAGES = 100  # whatever the epochs: below the least that sufficed in the measurements


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Its folder holds `best.pth`, `last.pth`, `given.pth` where there were pretrained weights, `config.py`, `model.json`,
    `history.json`, `results.csv`, `learned_images.npz`, `origins.json`, the test image and `parity_images/`.
    """

    folder: Path
    metadata: ModelMetadata
    history: tuple[EpochRecord, ...] = ()  # empty for `epochs=0`
    best_epoch: int = 0  # of `best.pth`; 0 for untouched pretrained weights
    device: str = "cpu"  # or the GPU's name
    micro_batch: int = 0  # images that a device held at once
    warnings: tuple[str, ...] = ()  # sentences that the user must read: a training from scratch on few images

    def metrics(self) -> dict[str, Any]:
        """The metrics of the training, for the record of the run."""
        names = ("eval_mAP", "eval_mAP50", "pretrained_mAP", "gained_mAP", "ended_early")
        found = {name: self.metadata.training[name] for name in names if name in self.metadata.training}
        losses = {"last_loss": self.history[-1].loss["loss"]} if self.history else {}
        return {**found, "best_epoch": self.best_epoch, **losses, "device": self.device}


def train(
    options: TrainingOptions,
    train_folder: Path,
    eval_folder: Path,
    folder: Path,
    *,
    weights: Path | None = None,
    resume: Path | None = None,
    logs: Path | None = None,
    hyperparameters: Hyperparameters | None = None,
    origin: Mapping[str, Any] | None = None,
    weights_origin: WeightsOrigin | None = None,
    machines: Machines | None = None,
    work: Path | None = None,
) -> TrainingResult:
    """Train a detector, and write all files that inference needs and a record of the images it learned from.

    Training runs on the GPUs where there are some, in mixed precision, and on the CPU otherwise. The classes are those
    of the train set; with `epochs=0` they are the checkpoint's, and its weights are packed as they are. Pretrained
    weights are validated before training: where no epoch is better, they are the best.

    With a `tile`, images larger than that are cut into tiles for training and validation. Figures of the eval set are
    then those on its tiles; what the whole images give is known when the service is evaluated.

    The record contains the images of both sets, since the eval set chooses the epoch, and the images that the given
    weights learned from, where their file has such a record. It is stored in the files of the weights too.

    Args:
        options: The user's options.
        train_folder: A folder with `annotations.json` and `images/`.
        eval_folder: The same.
        folder: An existing folder for the result.
        weights: A checkpoint to start from, or None for random initial weights.
        resume: A folder that outlives the process, for this training alone: same inputs, parameters and code. Training
            writes `checkpoint.pth` there after each epoch, and continues from it; on a CPU the result has the bytes of
            an undisturbed training. It need not exist; the caller removes it.
        logs: The folder for TensorBoard's files. None: no tracking.
        hyperparameters: Replace those of `default_hyperparameters`.
        origin: What the model's metadata says of the origin of the data and of the weights.
        weights_origin: Where the checkpoint comes from, to be kept beside the weights.
        machines: Those of a Ray cluster that the training is divided among; this one is the first. None: this machine.
        work: An existing folder for tiles while training runs. None: the system's folder for temporary files.

    Raises:
        UsageError: The options are impossible, alone or on this machine.
        MissingError: A data set or the checkpoint is missing.
        DataError: The data sets do not go together, or the weights do not fit the detector.
        StepError: The loss became infinite, or a process on one of several devices failed.
    """
    family = find_family(options.detector)
    family.check(options.image_size)
    train_set, eval_set = (read_coco(each / "annotations.json") for each in (train_folder, eval_folder))
    _check_sets(train_set, eval_set, train_folder, eval_folder)
    classes, checkpoint, before = _classes(train_set), None, None
    if weights:
        checkpoint = read_checkpoint(weights, family)
        log.info("%s: %s", weights.name, checkpoint.summary)
        if (before := checkpoint.learned) is None:
            unknown = UnknownWeights(sha256_of(weights), coco=set(coco_classes()) <= set(checkpoint.classes))
            before = replace(learn_images(), unknown_weights=(unknown,))
    elif options.epochs == 0 or options.freeze in ("stem", "backbone"):
        name, value = ("freeze", options.freeze) if options.epochs else ("epochs", 0)
        raise UsageError(
            f"{name}={value} needs pretrained weights, and there are none",
            where=name,
            expected="pretrained weights (a weights_url), or another value",
        )
    metadata = ModelMetadata(
        options.variant,
        (options.image_size, options.image_size),
        classes,
        origin=origin or {},
        family=family.name,
        tile=options.tile,
        overlap=options.overlap,
    )
    sets = {"train": DatasetOrigin.of(train_set), "eval": DatasetOrigin.of(eval_set)} if options.epochs else {}
    TrainingOrigins(weights_origin, sets).write(folder / ORIGINS_FILE)
    _copy_test_image(eval_folder, eval_set, folder)
    if checkpoint and options.epochs == 0:
        _copy_parity_images(eval_folder, eval_set, folder)
        learned = learn_images(before=before)
        metadata = replace(metadata, classes=checkpoint.classes)
        fit(checkpoint, family.build_model(metadata), metadata.classes)  # refuses weights of another size
        for name in ("best.pth", "last.pth", GIVEN):
            write_checkpoint(folder / name, checkpoint.state, {"classes": list(metadata.classes), "epoch": 0}, learned)
        family.model_config(metadata).dump(str(folder / "config.py"))
        log.info("epochs=0: the pretrained weights are passed on as they are, %d classes", len(metadata.classes))
        result = TrainingResult(folder, metadata)
    else:
        fresh = sum(name not in checkpoint.classes for name in classes) if checkpoint else 0
        chosen = hyperparameters or default_hyperparameters(pretrained=checkpoint is not None, new_classes=fresh)
        chosen = replace(
            chosen,
            learning_rate=options.learning_rate or chosen.learning_rate,
            freeze=chosen.freeze if options.freeze == "auto" else options.freeze,
        )
        names = [[image.file_name for image in each.images] for each in (train_set, eval_set)]
        execution = execution_config(options, chosen, len(train_set.images), machines)  # refuses what is not possible
        with tempfile.TemporaryDirectory(dir=work) as temporary:  # after an out of memory, every training continues
            seen, uncut = (train_folder, eval_folder), None
            if options.tile:
                uncut = seen
                parts = cut_sets(uncut, options.tiling, Path(temporary))
                seen = parts[0].folder, parts[1].folder
                train_set, eval_set = parts[0].dataset, parts[1].dataset
                execution = execution_config(options, chosen, len(train_set.images), machines)
                counts = *map(len, names), *(len(each.dataset.images) for each in parts)
                log.info("%d train and %d eval images in tiles: %d and %d", *counts)
            _copy_parity_images(seen[1], eval_set, folder)
            start = (
                f"weights that know {len(classes) - fresh} of the classes, {fresh} are new" if checkpoint else "scratch"
            )
            log.info(
                "training from %s: %d epochs of %d steps of %d images on %d device(s), %s at %.0e", start,
                options.epochs, execution.iterations, options.batch_size, execution.devices, chosen.optimizer,
                chosen.learning_rate,
            )  # fmt: skip
            warnings = () if checkpoint else scratch_warnings(options, len(train_set.images))
            for warning in warnings:
                log.warning("%s", warning)
            tables = write_tables(train_set, eval_set, seen[1], Path(temporary) / "annotations")
            del train_set, eval_set  # of a million images they take gigabytes
            learned = learn_images(train_folder, eval_folder, before=before, names=names)
            kept = resume or Path(temporary) / "resume"
            job = TrainingJob(
                options, chosen, metadata, execution, *seen, folder, weights, kept, logs, learned, tables, uncut
            )
            result = replace(_run(job, machines), warnings=warnings)
    learned.write(folder / FILE_NAME)
    facts = {**result.metadata.training, "learned_images": learned.summary()}
    result = replace(result, metadata=replace(result.metadata, training=facts))
    history = json.dumps([asdict(record) for record in result.history], indent=1)
    (folder / "history.json").write_text(history + "\n", encoding="utf-8")
    write_epochs(folder / RESULTS, result.history)
    result.metadata.write(folder / METADATA_FILE)
    return result


def _run(job: TrainingJob, machines: Machines | None) -> TrainingResult:
    """Run a session under a line with the percentage done, its figures, and the remaining time with validation."""
    bar: Any = None
    # where the log goes, and not whatever stdout is while a session runs: so the log's lines stay apart from the bar
    stream = sys.stdout

    def show(step: int, steps: int, line: str) -> None:
        nonlocal bar
        if bar is None:
            text = "{percentage:3.0f}% {desc}"
            bar = tqdm(desc=line, total=steps, initial=step, mininterval=0, bar_format=text, file=stream)
        done, elapsed = step - bar.initial, bar.format_dict["elapsed"]
        remaining = f", {tqdm.format_interval(elapsed / done * (steps - step))} left" if done else ""
        bar.set_description_str(line + remaining, refresh=False)
        bar.update(step - bar.n)
        bar.refresh()

    try:
        with logging_redirect_tqdm():
            start = partial(run_on_machines, machines=machines) if machines else None
            session, job = run_within_memory(job, show, start)
    finally:
        if bar is not None:
            bar.close()
    first, [best] = session.history[0], [each for each in session.history if each.epoch == session.best_epoch]
    facts: dict[str, Any] = {"epochs": job.options.epochs, "best_epoch": best.epoch}
    facts |= {"eval_mAP": best.mAP, "eval_mAP50": best.mAP50}
    if first.epoch == 0 and first.mAP is not None and best.mAP is not None:
        facts |= {"pretrained_mAP": first.mAP, "gained_mAP": best.mAP - first.mAP}
    facts |= {"ended_early": session.ended_early} if session.ended_early else {}
    facts["recipe"] = job.recipe()
    metadata = replace(job.metadata, training=facts)
    return TrainingResult(job.folder, metadata, session.history, best.epoch, session.device, job.execution.micro_batch)


def scratch_warnings(options: TrainingOptions, images: int) -> tuple[str, ...]:
    """Name a training from random weights that is too short to find anything, and published weights to start from."""
    if images >= FEWEST_IMAGES and images * options.epochs >= FEWEST_SAMPLES:
        return ()
    weights = coco_weights(options.detector)
    return (
        f"training from scratch on {images} images for {options.epochs} epochs will find little: "
        "use pretrained weights",
        f"weights_url: {COCO} takes {weights.detector} by {weights.source} "
        f"(mAP {weights.mAP:.3f} on COCO, {weights.licence}): {weights.url}",
    )


def _classes(dataset: CocoDataset) -> tuple[str, ...]:
    """Names by ascending category id: the order that pycocotools gives mmdet's labels."""
    return tuple(each.name for each in sorted(dataset.categories, key=lambda category: category.id))


def _check_sets(train_set: CocoDataset, eval_set: CocoDataset, train_folder: Path, eval_folder: Path) -> None:
    """Refuse two sets that cannot be used together."""
    if (classes := _classes(train_set)) != _classes(eval_set):
        problem = "the train and eval sets have different classes"
        raise DataError(problem, where=eval_folder, expected=", ".join(classes))
    for name, dataset, folder in (("train", train_set, train_folder), ("eval", eval_set, eval_folder)):
        if not dataset.images:
            raise DataError(
                f"the {name} set has no images",
                where=folder,
                expected="at least one image: training learns from the train set, the eval set decides the best epoch",
                remedy=f"split the data with a {name}_share above 0",
            )
    if all(each.iscrowd for each in eval_set.annotations):
        raise DataError(
            "the eval set has no objects",
            where=eval_folder,
            expected="objects, which decide the best epoch",
            remedy="split the data with a larger eval_share, or with another seed",
        )


def _richest_images(dataset: CocoDataset) -> list[str]:
    """The names of the images with the most classes and objects."""
    labels: dict[int, list[int]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        if not annotation.iscrowd:
            labels[annotation.image_id].append(annotation.category_id)
    order = sorted(dataset.images, key=lambda i: (-len(set(labels[i.id])), -len(labels[i.id]), i.file_name))
    return [image.file_name for image in order[:PARITY_IMAGES]]


def _copy_test_image(source: Path, dataset: CocoDataset, folder: Path) -> None:
    """Copy the richest image of the eval set; the service's own detections in it are recorded at packing."""
    image = source / "images" / _richest_images(dataset)[0]
    shutil.copyfile(image, folder / f"test_image{image.suffix.lower()}")


def _copy_parity_images(source: Path, dataset: CocoDataset, folder: Path) -> None:
    """Copy the richest images of what the network saw of the eval set, tiles among them, for the parity check."""
    (folder / "parity_images").mkdir()
    for number, name in enumerate(_richest_images(dataset)):
        image = source / "images" / name
        shutil.copyfile(image, folder / "parity_images" / f"{number}{image.suffix.lower()}")
