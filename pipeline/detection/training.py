"""Training: from two data sets and perhaps pretrained weights to the folder of inference files."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.data.learned_images import FILE_NAME, LearnedImages, UnknownWeights, learn_images
from pipeline.detection.checkpoints import Checkpoint, coco_classes, fit, read_checkpoint, write_checkpoint
from pipeline.detection.devices import run_within_memory, setting_for
from pipeline.detection.families.yolox.mmdet_config import build_model, model_config
from pipeline.detection.hooks import EpochRecord
from pipeline.detection.hyperparameters import Recipe, Tuning, settled, tuning_for
from pipeline.detection.scratch import scratch_warnings
from pipeline.detection.session import Job, Outcome
from pipeline.detection.spec import DetectorSpec
from pipeline.detection.tracking import check_mlflow
from pipeline.detection.training_folders import check_sets, copy_images, count_images
from pipeline.detection.training_progress import Bar
from pipeline.errors import UsageError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What a run made.

    Attributes:
        folder: Holds `best.pth`, `last.pth`, `config.py`, `model.json`, `history.json`, `learned_images.npz`, the test
            image and `parity_images/`.
        spec: The detector.
        history: One record an epoch; empty for `epochs=0`.
        best_epoch: The epoch of `best.pth`; 0 for untouched pretrained weights.
        known: Classes that started from the checkpoint's rows.
        fresh: Classes that started from nothing.
        device: `cpu` or the GPU's name.
        micro_batch: Images that a device held at once.
        ended_early: Why training ended before its last epoch; empty where it did not.
        warnings: What the user must know, a sentence each: a training from scratch on few images.
    """

    folder: Path
    spec: DetectorSpec
    history: tuple[EpochRecord, ...]
    best_epoch: int
    known: tuple[str, ...]
    fresh: tuple[str, ...]
    device: str
    micro_batch: int = 0
    ended_early: str = ""
    warnings: tuple[str, ...] = ()

    def metrics(self) -> dict[str, Any]:
        """The figures worth recording beside the artifact."""
        best = next((record for record in self.history if record.epoch == self.best_epoch), None)
        measured: dict[str, Any] = {"eval_mAP": best.mAP, "eval_mAP50": best.mAP50} if best else {}
        gained: dict[str, Any] = {
            name: self.spec.training[name] for name in ("pretrained_mAP", "gained_mAP") if name in self.spec.training
        }
        losses = {"last_loss": self.history[-1].loss["loss"]} if self.history else {}
        ended = {"ended_early": self.ended_early} if self.ended_early else {}
        return {**measured, **gained, "best_epoch": self.best_epoch, **losses, **ended, "device": self.device}


def train(
    recipe: Recipe,
    train_folder: Path,
    eval_folder: Path,
    folder: Path,
    *,
    weights: Path | None = None,
    resume: Path | None = None,
    logs: Path | None = None,
    tuning: Tuning | None = None,
) -> TrainingResult:
    """Train YOLOX and write everything that inference needs, and a record of the images that were learned from.

    Runs on the GPUs where there are some, with mixed precision, and on the CPU otherwise. The classes are the train
    set's; with `epochs=0` they are the checkpoint's, and its weights are packed as they are. Pretrained weights are
    measured on the eval set before any training: where no epoch betters them, they are the best.

    The record has the images of both sets, for the eval set chooses the epoch; and those that the given weights learned
    from, where their file has such a record. It is in the files of the weights too, and so goes where these go.

    Args:
        recipe: How to train.
        train_folder: `annotations.json` and `images/`.
        eval_folder: The same; decides which epoch is the best.
        folder: Where the result goes; must exist.
        weights: A checkpoint to start from, or None for random initial weights.
        resume: A folder that outlives the process, of this very work: same inputs, parameters and code. Training keeps
            `checkpoint.pth` there after each epoch, and goes on from the one it finds, on a CPU with the bytes that an
            undisturbed run would have given. It need not exist; removing it once the result is safe is the caller's.
        logs: Where TensorBoard's files go; with it, MLflow is told too where `MLFLOW_TRACKING_URI` names a server.
            None: neither.
        tuning: In place of what `tuning_for` would choose.

    Raises:
        UsageError: `epochs=0` without weights, more devices than there are, or a batch they cannot share.
        MissingError: A data set or the checkpoint is not there.
        DataError: The data sets' classes differ, or the weights fit no such model.
        StepError: The loss became infinite, or a process on one of several devices failed.
    """
    if logs:
        check_mlflow()
    classes = check_sets(train_folder, eval_folder)
    checkpoint = read_checkpoint(weights) if weights else None
    if recipe.epochs == 0 and checkpoint is None:
        raise UsageError(
            "epochs=0 packs pretrained weights, and there are none",
            where="epochs",
            expected="a weights_url in data_load, or at least one epoch",
        )
    before = _learned_before(checkpoint, weights) if checkpoint and weights else None
    if checkpoint and recipe.epochs == 0:
        result = _untouched(recipe, checkpoint, folder, learn_images(before=before))
    else:
        with tempfile.TemporaryDirectory() as place:  # where memory runs out, even a run that need not outlive goes on
            places = {
                "train_folder": str(train_folder.resolve()),
                "eval_folder": str(eval_folder.resolve()),
                "folder": str(folder),
                "weights": str(weights or ""),
                "resume": str(resume or place),
                "logs": str(logs or ""),
                "learned": str(folder / FILE_NAME),
            }
            result = _trained(recipe, tuning, checkpoint, classes, places, before)
    copy_images(eval_folder, folder)
    history = json.dumps([asdict(record) for record in result.history], indent=1)
    (folder / "history.json").write_text(history + "\n", encoding="utf-8")
    result.spec.write(folder)
    return result


def _learned_before(checkpoint: Checkpoint, weights: Path) -> LearnedImages:
    """What given weights learned from: by their own record, or unknown."""
    if checkpoint.learned is not None:
        return checkpoint.learned
    with weights.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    unknown = UnknownWeights(sha256, coco=set(coco_classes()) <= set(checkpoint.classes))
    return replace(learn_images(), unknown_weights=(unknown,))


def _untouched(recipe: Recipe, checkpoint: Checkpoint, folder: Path, learned: LearnedImages) -> TrainingResult:
    """The checkpoint itself as both best and last."""
    spec = replace(_spec(recipe, checkpoint.classes), training={"learned_images": learned.summary()})
    carried = fit(checkpoint, build_model(spec), spec.classes)
    for name in ("best.pth", "last.pth"):
        write_checkpoint(folder / name, checkpoint.state, {"classes": list(spec.classes), "epoch": 0}, learned)
    model_config(spec).dump(str(folder / "config.py"))
    learned.write(folder / FILE_NAME)
    log.info("epochs=0: the pretrained weights are passed on as they are, %d classes", len(spec.classes))
    return TrainingResult(folder, spec, (), 0, carried.known, carried.fresh, "cpu")


def _trained(
    recipe: Recipe,
    tuning: Tuning | None,
    checkpoint: Checkpoint | None,
    classes: tuple[str, ...],
    places: dict[str, str],
    before: LearnedImages | None,
) -> TrainingResult:
    known, fresh = _known(checkpoint, classes)
    if checkpoint is None and recipe.freeze in ("stem", "backbone"):
        raise UsageError(
            f"freeze is {recipe.freeze}, and there are no pretrained weights to keep",
            where="freeze",
            expected='"auto" or "nothing", or a weights_url in data_load',
        )
    tuning = settled(recipe, tuning or tuning_for(pretrained=checkpoint is not None, fresh_classes=len(fresh)))
    images = count_images(Path(places["train_folder"]))
    job = Job(
        recipe=recipe,
        tuning=tuning,
        classes=classes,
        setting=setting_for(recipe, tuning, images),
        **places,
    )
    _say_start(job, known, fresh)
    warnings = () if checkpoint else scratch_warnings(recipe, images)
    for warning in warnings:
        log.warning("%s", warning)
    learned = learn_images(Path(job.train_folder), Path(job.eval_folder), before=before)
    learned.write(Path(job.learned))
    bar = Bar()
    try:
        outcome, job = run_within_memory(job, bar.tell)
    finally:
        bar.close()
    facts = {**_facts(recipe, outcome), "learned_images": learned.summary()}
    device = torch.cuda.get_device_name() if job.setting.cuda else "cpu"
    return TrainingResult(
        Path(job.folder), replace(job.spec, training=facts), outcome.history, outcome.best_epoch, known, fresh,
        device, job.setting.micro_batch, outcome.ended_early, warnings,
    )  # fmt: skip


def _facts(recipe: Recipe, outcome: Outcome) -> dict[str, Any]:
    """What the packed model says of its training; with pretrained weights also what it gained."""
    records = {record.epoch: record for record in outcome.history}
    best, first = records[outcome.best_epoch], records.get(0)
    facts = {"epochs": recipe.epochs, "best_epoch": best.epoch, "eval_mAP": best.mAP, "eval_mAP50": best.mAP50}
    if first is not None and first.mAP is not None and best.mAP is not None:
        facts |= {"pretrained_mAP": first.mAP, "gained_mAP": best.mAP - first.mAP}
    return facts | ({"ended_early": outcome.ended_early} if outcome.ended_early else {})


def _say_start(job: Job, known: tuple[str, ...], fresh: tuple[str, ...]) -> None:
    start = f"pretrained weights, {len(known)} classes known to them and {len(fresh)} new" if job.weights else "nothing"
    size = job.recipe.batch_size
    log.info(
        "training from %s: %d epochs of %d steps of %d images%s, %s at %.0e",
        start,
        job.recipe.epochs,
        job.setting.iterations,
        size,
        f" on {job.setting.devices} devices" if job.setting.devices > 1 else "",
        job.tuning.optimizer,
        job.tuning.learning_rate,
    )


def _known(checkpoint: Checkpoint | None, classes: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = set(checkpoint.classes) if checkpoint else set()
    return tuple(c for c in classes if c in rows), tuple(c for c in classes if c not in rows)


def _spec(recipe: Recipe, classes: tuple[str, ...]) -> DetectorSpec:
    return DetectorSpec(recipe.variant, (recipe.image_size, recipe.image_size), classes)
