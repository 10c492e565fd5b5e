"""The form in which a model is packed: for which runtime, in which precision, and what that costs in accuracy.

ONNX Runtime in fp32 is the reference, whose parity with PyTorch is checked at the export. Every other form is measured
against it on the eval set, through the predictor that serves it. A lower precision is taken only where it is faster.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from tqdm import tqdm

from pipeline.data.coco import read_coco
from pipeline.detection.export import ExportedModel
from pipeline.detection.quantization import calibration_images, quantize
from pipeline.errors import StepError
from pipeline.metrics.average_precision import average_precision, mean
from pipeline.metrics.coco_matching import FoundBoxes, FoundInImage, TruthBoxes, match_boxes
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Predictor
from pipeline.serving.preprocessing import Letterboxed, letterbox
from pipeline.serving.runtimes import BF16, FP32, INT8, RUNTIMES, check_form, require_engine
from pipeline.serving.tiled_detection import predict_image

log = logging.getLogger(__name__)

WORTHWHILE = 0.95  # of the time of fp32; a precision that takes longer is not worth its loss
_TIMED_IMAGES, _TURNS = 8, 40


@dataclass(frozen=True)
class ModelForm:
    """What is to be packed, and how it compares with ONNX Runtime in fp32; nothing is measured where it is that."""

    model: ExportedModel
    metadata: ModelMetadata  # that names the runtime, the precision and the model's file
    # `map_fp32` and `map_packed` on the eval set, and `map_loss`; and ratios of times of an image on one thread:
    # `time_to_fp32`, of the lower precision to fp32 on the same runtime, and `time_to_onnxruntime`, of another library
    metrics: Mapping[str, float]
    notes: tuple[str, ...]  # what a user must read


@dataclass(frozen=True)
class DatasetFolders:
    """The data sets that forms are made and measured with: each `annotations.json` and `images/`."""

    train: Path  # INT8 is calibrated on its images
    evaluation: Path


def choose_form(
    model: ExportedModel,
    metadata: ModelMetadata,
    datasets: DatasetFolders,
    folder: Path,
    *,
    runtime: str = "cpu",
    precision: str = FP32,
    max_map_loss: float = 0.01,
    map_fp32: float | None = None,
) -> ModelForm:
    """Make the form that is asked for, measure it, and refuse it where it loses too much accuracy.

    Where bf16 or INT8 takes more than 95 % of the time of fp32 on the same runtime, the form is fp32, and a note says
    so. It takes one thread, for that is how a busy service runs a model.

    Args:
        model: The exported file.
        metadata: Of the model.
        datasets: Read only where the form is not ONNX Runtime in fp32.
        folder: Where another model's file may be written.
        runtime: A name in `RUNTIMES`.
        precision: One of its precisions.
        max_map_loss: How much lower than the reference's the mAP on the eval set may be.
        map_fp32: The reference's, where it has been measured.

    Raises:
        StepError: The mAP is lower by more than that, or it cannot be measured, for the eval set has no object; or this
            CPU has no bf16.
    """
    check_form(runtime, precision)
    require_engine(runtime)
    reference = replace(metadata, runtime="cpu", precision=FP32, onnx_sha256=model.sha256)
    plain = ModelForm(model, replace(reference, runtime=runtime), {}, ())
    form = plain
    if precision != FP32:
        form = _faster(plain, precision, datasets, folder)
    if RUNTIMES[runtime].engine != "onnxruntime":
        form = _compared(form, plain.model, reference, datasets)
    elif form.metadata.precision == FP32:
        return form
    truth = read_ground_truth(datasets.evaluation / "annotations.json")
    before = measure_map(Predictor(model.path, reference), reference, truth) if map_fp32 is None else map_fp32
    after = measure_map(Predictor(form.model.path, form.metadata), form.metadata, truth)
    name = f"{runtime} in {form.metadata.precision}"
    if before is None or after is None:
        raise StepError(
            f"the accuracy of {name} cannot be measured: the eval set has no object",
            where=datasets.evaluation,
            remedy="pack for the runtime cpu in fp32, or choose an eval set with objects",
        )
    if before - after > max_map_loss:
        raise StepError(
            f"{name} has mAP {after:.4f} on the eval set, ONNX Runtime in fp32 {before:.4f}: it loses "
            f"{before - after:.4f}",
            where=datasets.evaluation,
            expected=f"a loss of at most max_map_loss, {max_map_loss:g}",
            remedy="choose another precision or runtime, or allow a greater loss",
        )
    accuracy = {"map_fp32": before, "map_packed": after, "map_loss": before - after}
    # figures that depend on the machine's load would make other bytes of the same model
    told = replace(form.metadata, metrics={**form.metadata.metrics, **accuracy})
    return replace(form, metadata=told, metrics={**accuracy, **form.metrics})


def _faster(plain: ModelForm, precision: str, datasets: DatasetFolders, folder: Path) -> ModelForm:
    """The form in a lower precision, or the plain one where that is about as fast."""
    model, runtime = plain.model, plain.metadata.runtime
    if precision == INT8:
        images = datasets.train / "images"
        known = [images / image.file_name for image in read_coco(datasets.train / "annotations.json").images]
        chosen = calibration_images(known)
        model = quantize(
            model.path,
            chosen,
            plain.metadata,
            folder / "model.int8.onnx",
            quantize_outputs=RUNTIMES[runtime].engine == "onnxruntime",
        )
    metadata = replace(plain.metadata, precision=precision, onnx_sha256=model.sha256)
    lower = Predictor(model.path, metadata, threads=1)
    if precision == BF16 and lower.precision != BF16:
        raise StepError(
            "this CPU has no bf16, so its accuracy cannot be measured",
            where="precision",
            expected="a CPU with AVX512_BF16 or AMX",
            remedy="pack in fp32, or on a machine like the one that will serve the model",
        )
    ratio = time_ratio(lower, Predictor(plain.model.path, plain.metadata, threads=1), _timed(metadata, datasets))
    log.info("%s takes %.2f times as long as fp32 on %s", precision, ratio, runtime)
    if ratio <= WORTHWHILE:
        return ModelForm(model, metadata, {"time_to_fp32": ratio}, ())
    note = f"packed in fp32: {precision} took {ratio:.2f} times as long on {runtime}, measured on one thread"
    reason = {"precision_refused": f"{precision} was asked for; it was no faster than fp32 where it was packed"}
    kept = replace(plain.metadata, metrics={**plain.metadata.metrics, **reason})
    return ModelForm(plain.model, kept, {"time_to_fp32": ratio}, (note,))


def _compared(form: ModelForm, model: ExportedModel, reference: ModelMetadata, datasets: DatasetFolders) -> ModelForm:
    """The form of another library, with a note where it is slower than ONNX Runtime; it is taken all the same."""
    one = Predictor(form.model.path, form.metadata, threads=1)
    ratio = time_ratio(one, Predictor(model.path, reference, threads=1), _timed(reference, datasets))
    name = f"{form.metadata.runtime} in {form.metadata.precision}"
    note = f"{name} took {ratio:.2f} times as long as ONNX Runtime in fp32, measured on one thread"
    metrics = {**form.metrics, "time_to_onnxruntime": ratio}
    return replace(form, metrics=metrics, notes=(*form.notes, note) if ratio > 1 else form.notes)


def _timed(metadata: ModelMetadata, datasets: DatasetFolders) -> list[Letterboxed]:
    truth = read_ground_truth(datasets.evaluation / "annotations.json")
    paths = [truth.path_of(image.file_name) for image in truth.images[:_TIMED_IMAGES]]
    return [letterbox(decode(path.read_bytes()), metadata.image_size) for path in paths]


def time_ratio(one: Predictor, other: Predictor, images: list[Letterboxed], *, turns: int = _TURNS) -> float:
    """The median of the time that the one takes for an image, as a share of the other's; they run in turns."""
    ratios = []
    for turn in range(-2, turns):  # the first two warm up
        image = [images[turn % len(images)]]
        seconds = []
        for predictor in (one, other) if turn % 2 else (other, one):
            start = time.perf_counter()
            predictor.detect(image)
            seconds.append(time.perf_counter() - start)
        first, second = seconds if turn % 2 else reversed(seconds)
        if turn >= 0:
            ratios.append(first / second)
    return median(ratios)


def measure_map(predictor: Predictor, metadata: ModelMetadata, truth: GroundTruth) -> float | None:
    """The mAP of a model on an eval set with the model's classes; None where the set has no object."""
    id_of = {name: id_ for id_, name in truth.categories.items()}
    known = np.array([name in id_of for name in metadata.classes], bool)
    category_ids = np.array([id_of.get(name, 0) for name in metadata.classes], np.int64)
    images: list[FoundInImage] = []
    named = f"mAP, {metadata.runtime}, {metadata.precision}"
    for image in tqdm(truth.images, named, unit="img", ascii=True):
        pixels = decode(truth.path_of(image.file_name).read_bytes())
        found = predict_image(predictor, pixels, metadata)
        kept = known[found.labels]
        images.append((image.id, found.boxes[kept], found.scores[kept], category_ids[found.labels[kept]]))
    matches = match_boxes(TruthBoxes.of(truth), FoundBoxes.of_images(images), sizes=1)
    return mean(average_precision(matches).ap[..., 0])
