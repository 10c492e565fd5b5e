"""Training: from two data sets and perhaps pretrained weights to the folder of inference files."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.data.learned_images import FILE_NAME, LearnedImages, UnknownWeights, learn_images
from pipeline.detection.checkpoints import Checkpoint, coco_classes, fit, read_checkpoint, write_checkpoint
from pipeline.detection.devices import execution_config, run_within_memory
from pipeline.detection.families import FAMILY
from pipeline.detection.hooks import EpochRecord
from pipeline.detection.hyperparameters import (
    Hyperparameters,
    TrainingOptions,
    default_hyperparameters,
    with_options,
)
from pipeline.detection.session import SessionResult, TrainingJob, detector_metadata
from pipeline.detection.tracking import check_mlflow
from pipeline.detection.training_progress import ProgressBar
from pipeline.detection.training_sets import check_sets, copy_images, count_images, scratch_warnings
from pipeline.errors import UsageError
from pipeline.files import sha256_of
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training.

    Attributes:
        folder: Holds `best.pth`, `last.pth`, `config.py`, `model.json`, `history.json`, `learned_images.npz`, the test
            image and `parity_images/`.
        metadata: The detector.
        history: One record per epoch; empty for `epochs=0`.
        best_epoch: The epoch of `best.pth`; 0 for untouched pretrained weights.
        known: Classes that started from the checkpoint's rows.
        fresh: Classes that started from initial values.
        device: `cpu` or the GPU's name.
        micro_batch: Images that a device held at once.
        ended_early: Why training ended before its last epoch; empty where it did not.
        warnings: Sentences that the user must read: a training from scratch on few images.
    """

    folder: Path
    metadata: ModelMetadata
    history: tuple[EpochRecord, ...]
    best_epoch: int
    known: tuple[str, ...]
    fresh: tuple[str, ...]
    device: str
    micro_batch: int = 0
    ended_early: str = ""
    warnings: tuple[str, ...] = ()

    def metrics(self) -> dict[str, Any]:
        """The metrics of the training, for the record of the run."""
        best = next((record for record in self.history if record.epoch == self.best_epoch), None)
        measured: dict[str, Any] = {"eval_mAP": best.mAP, "eval_mAP50": best.mAP50} if best else {}
        training = self.metadata.training
        gained = {name: training[name] for name in ("pretrained_mAP", "gained_mAP") if name in training}
        losses = {"last_loss": self.history[-1].loss["loss"]} if self.history else {}
        ended = {"ended_early": self.ended_early} if self.ended_early else {}
        return {**measured, **gained, "best_epoch": self.best_epoch, **losses, **ended, "device": self.device}


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
) -> TrainingResult:
    """Train a detector, and write all files that inference needs and a record of the images it learned from.

    Training runs on the GPUs where there are some, in mixed precision, and on the CPU otherwise. The classes are those
    of the train set; with `epochs=0` they are the checkpoint's, and its weights are packed as they are. Pretrained
    weights are validated before training: where no epoch is better, they are the best.

    The record contains the images of both sets, since the eval set chooses the epoch, and the images that the given
    weights learned from, where their file has such a record. It is stored in the files of the weights too.

    Args:
        options: The user's options.
        train_folder: A folder with `annotations.json` and `images/`.
        eval_folder: The same; decides which epoch is the best.
        folder: The folder for the result; must exist.
        weights: A checkpoint to start from, or None for random initial weights.
        resume: A folder that outlives the process, for this training alone: same inputs, parameters and code. Training
            writes `checkpoint.pth` there after each epoch, and continues from it; on a CPU the result has the bytes of
            an undisturbed training. It need not exist; the caller removes it.
        logs: The folder for TensorBoard's files; with it, metrics also go to MLflow where `MLFLOW_TRACKING_URI` names a
            server. None: no tracking.
        hyperparameters: Replace those of `default_hyperparameters`.

    Raises:
        UsageError: The options are impossible: an unknown variant, an image size that does not fit, `epochs=0` without
            weights, more devices than there are, or a batch that they cannot share.
        MissingError: A data set or the checkpoint is missing.
        DataError: The classes of the data sets differ, or the weights do not fit the detector.
        StepError: The loss became infinite, or a process on one of several devices failed.
    """
    FAMILY.check(options.variant, options.image_size)
    if logs:
        check_mlflow()
    classes = check_sets(train_folder, eval_folder)
    checkpoint = read_checkpoint(weights) if weights else None
    if options.epochs == 0 and checkpoint is None:
        raise UsageError(
            "epochs=0 packs pretrained weights, and there are none",
            where="epochs",
            expected="pretrained weights (a weights_url), or at least one epoch",
        )
    before = _learned_before(checkpoint, weights) if checkpoint and weights else None
    if checkpoint and options.epochs == 0:
        result = _pass_on(options, checkpoint, folder, learn_images(before=before))
    else:
        with tempfile.TemporaryDirectory() as temporary:  # after an out of memory, every training continues
            paths = {
                "train_folder": str(train_folder.resolve()),
                "eval_folder": str(eval_folder.resolve()),
                "folder": str(folder),
                "weights": str(weights or ""),
                "resume": str(resume or temporary),
                "logs": str(logs or ""),
                "learned": str(folder / FILE_NAME),
            }
            result = _train(options, hyperparameters, checkpoint, classes, paths, before)
    copy_images(eval_folder, folder)
    history = json.dumps([asdict(record) for record in result.history], indent=1)
    (folder / "history.json").write_text(history + "\n", encoding="utf-8")
    result.metadata.write(folder / METADATA_FILE)
    return result


def _learned_before(checkpoint: Checkpoint, weights: Path) -> LearnedImages:
    """The images that the given weights learned from, by their own record, or as unknown."""
    if checkpoint.learned is not None:
        return checkpoint.learned
    unknown = UnknownWeights(sha256_of(weights), coco=set(coco_classes()) <= set(checkpoint.classes))
    return replace(learn_images(), unknown_weights=(unknown,))


def _pass_on(options: TrainingOptions, checkpoint: Checkpoint, folder: Path, learned: LearnedImages) -> TrainingResult:
    """Write the checkpoint itself as both best and last."""
    facts = {"learned_images": learned.summary()}
    metadata = replace(detector_metadata(options, checkpoint.classes), training=facts)
    transferred = fit(checkpoint, FAMILY.build_model(metadata), metadata.classes)
    for name in ("best.pth", "last.pth"):
        write_checkpoint(folder / name, checkpoint.state, {"classes": list(metadata.classes), "epoch": 0}, learned)
    FAMILY.model_config(metadata).dump(str(folder / "config.py"))
    learned.write(folder / FILE_NAME)
    log.info("epochs=0: the pretrained weights are passed on as they are, %d classes", len(metadata.classes))
    return TrainingResult(folder, metadata, (), 0, transferred.known, transferred.fresh, "cpu")


def _train(
    options: TrainingOptions,
    hyperparameters: Hyperparameters | None,
    checkpoint: Checkpoint | None,
    classes: tuple[str, ...],
    paths: dict[str, str],
    before: LearnedImages | None,
) -> TrainingResult:
    rows = set(checkpoint.classes) if checkpoint else set()
    known, fresh = tuple(c for c in classes if c in rows), tuple(c for c in classes if c not in rows)
    if checkpoint is None and options.freeze in ("stem", "backbone"):
        raise UsageError(
            f"freeze is {options.freeze}, and there are no pretrained weights to keep",
            where="freeze",
            expected='"auto" or "nothing", or pretrained weights (a weights_url)',
        )
    chosen = hyperparameters or default_hyperparameters(pretrained=checkpoint is not None, new_classes=len(fresh))
    chosen = with_options(chosen, options)
    images = count_images(Path(paths["train_folder"]))
    job = TrainingJob(options, chosen, classes, execution=execution_config(options, chosen, images), **paths)
    _log_start(job, known, fresh)
    warnings = () if checkpoint else scratch_warnings(options, images)
    for warning in warnings:
        log.warning("%s", warning)
    learned = learn_images(Path(job.train_folder), Path(job.eval_folder), before=before)
    learned.write(Path(job.learned))
    bar = ProgressBar()
    try:
        session, job = run_within_memory(job, bar.show)
    finally:
        bar.close()
    facts = {**_facts(options, session), "learned_images": learned.summary()}
    device = torch.cuda.get_device_name() if job.execution.cuda else "cpu"
    return TrainingResult(
        Path(job.folder), replace(job.metadata, training=facts), session.history, session.best_epoch, known, fresh,
        device, job.execution.micro_batch, session.ended_early, warnings,
    )  # fmt: skip


def _facts(options: TrainingOptions, session: SessionResult) -> dict[str, Any]:
    """The facts of the training in `model.json`; with pretrained weights also the gain over these."""
    records = {record.epoch: record for record in session.history}
    best, first = records[session.best_epoch], records.get(0)
    facts = {"epochs": options.epochs, "best_epoch": best.epoch, "eval_mAP": best.mAP, "eval_mAP50": best.mAP50}
    if first is not None and first.mAP is not None and best.mAP is not None:
        facts |= {"pretrained_mAP": first.mAP, "gained_mAP": best.mAP - first.mAP}
    return facts | ({"ended_early": session.ended_early} if session.ended_early else {})


def _log_start(job: TrainingJob, known: tuple[str, ...], fresh: tuple[str, ...]) -> None:
    start = f"pretrained weights that know {len(known)} of the classes, {len(fresh)} are new"
    log.info(
        "training from %s: %d epochs of %d steps of %d images%s, %s at %.0e",
        start if job.weights else "random weights",
        job.options.epochs,
        job.execution.iterations,
        job.options.batch_size,
        f" on {job.execution.devices} devices" if job.execution.devices > 1 else "",
        job.hyperparameters.optimizer,
        job.hyperparameters.learning_rate,
    )
