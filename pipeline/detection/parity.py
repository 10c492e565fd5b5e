"""Parity of the ONNX file and the PyTorch model, measured on images and refused beyond a tolerance.

Two comparisons cover the whole graph. First the best boxes and every score before suppression are compared with
PyTorch's; then the file's detections are compared with an exact greedy suppression of its own candidates. So a
difference in the last bit of two near-equal scores, which may reorder a suppression, is no error, and every other
difference is. Where a detector finds next to nothing, the same graph runs again with the score threshold of its best
candidates, so that its suppression has work to do.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.detection.export import INPUT, MAX_PER_CLASS, OUTPUTS, RAW_OUTPUTS, THRESHOLD, load_detector
from pipeline.detection.families import FAMILY
from pipeline.detection.mmcv_ops import nms
from pipeline.errors import DataError, StepError
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import onnxruntime

Floats = NDArray[np.float32]

BOX_TOLERANCE = 0.01  # pixels
LEAST_COMPARED = 100  # best boxes per image that are compared even where none reaches the score threshold
SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """The measured agreement of PyTorch and ONNX Runtime.

    Attributes:
        images: Number of images compared, each alone and all as one batch.
        compared: Boxes compared before suppression, over all images: those above the score threshold, and the best
            100 of each image in any case.
        candidates: Boxes that the suppression was compared on: those above the score threshold or, where these are
            fewer than 100, the best 100 per image; 0 where no score is above 0.
        detections: Boxes above the score threshold after suppression.
        max_box_difference: Largest difference of a compared corner, in letterboxed pixels.
        max_score_difference: Largest difference of a score, over every anchor and class.
    """

    images: int
    compared: int
    candidates: int
    detections: int
    max_box_difference: float
    max_score_difference: float

    @property
    def is_shown(self) -> bool:
        """Whether the whole graph was compared, with its suppression."""
        return self.candidates > 0

    def metrics(self) -> dict[str, float | None]:
        """The figures as metrics with a prefix; the differences are None where parity is not shown."""
        figures: dict[str, float | None] = {f"parity_{name}": value for name, value in asdict(self).items()}
        if not self.is_shown:
            figures |= {"parity_max_box_difference": None, "parity_max_score_difference": None}
        return figures

    def notes(self) -> list[str]:
        """Sentences that a user must read; none where the detector found something."""
        if not self.is_shown:
            return [f"parity is not shown: no box of {self.images} images has a score above 0"]
        if not self.detections:
            compared = f"parity was measured on its {self.candidates} best boxes"
            return [f"the model finds nothing in {self.images} images; {compared}"]
        return []


def check_parity(metadata: ModelMetadata, weights: Path, model: Path, images: list[Path]) -> Parity:
    """Compare an exported file with its checkpoint on real images.

    Args:
        metadata: The detector.
        weights: The checkpoint the file was exported from.
        model: The ONNX file.
        images: Files that OpenCV reads, letterboxed as mmdet does it.

    Raises:
        DataError: No images, or one that cannot be read.
        StepError: A box differs by more than 0.01 px, a score by more than 1e-4, or the file suppresses other boxes
            than an exact greedy suppression.
    """
    if not images:
        raise DataError("there is no image to compare PyTorch and ONNX on", where=model, expected="at least one image")
    pixels = FAMILY.letterbox(images, metadata.image_size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # mmdet's backbone names torch.cuda.amp
        boxes, scores = (value.numpy() for value in load_detector(metadata, weights)(torch.from_numpy(pixels)))
    session = _session_with_candidates(model)
    whole = session.run(None, {INPUT: pixels})
    single = [session.run(None, {INPUT: pixels[i : i + 1]}) for i in range(len(pixels))]
    alone = [np.concatenate([run[len(OUTPUTS) + k] for run in single]) for k in range(2)]
    best = scores.max(1)  # (B, N)
    least = np.sort(best, 1)[:, -min(LEAST_COMPARED, best.shape[1]), None]
    compared = best >= np.minimum(least, metadata.score_threshold)
    runs = (whole[len(OUTPUTS) :], alone)
    box_difference = max(_largest(np.abs(run[0] - boxes)[compared]) for run in runs)
    score_difference = max(_largest(np.abs(run[1] - scores)) for run in runs)
    _refuse_beyond(box_difference, BOX_TOLERANCE, "a box", "px", model)
    _refuse_beyond(score_difference, SCORE_TOLERANCE, "a score", "", model)
    candidates = _check_suppression(whole, metadata.score_threshold, metadata.nms_iou_threshold, model)
    if candidates < LEAST_COMPARED:
        threshold = _threshold_of_best(whole[-1])
        lowered = _session_with_candidates(model, threshold).run(None, {INPUT: pixels})
        candidates = _check_suppression(lowered, threshold, metadata.nms_iou_threshold, model)
    return Parity(len(images), int(compared.sum()), candidates, len(whole[2]), box_difference, score_difference)


def _refuse_beyond(difference: float, tolerance: float, what: str, unit: str, model: Path) -> None:
    if not difference <= tolerance:  # also refuses NaN
        raise StepError(
            f"the exported model differs from PyTorch: {what} by {difference:.3g} {unit}".rstrip(),
            where=model,
            expected=f"at most {tolerance:g} {unit}".rstrip(),
            remedy="report it with the versions of torch, onnx and onnxruntime; do not serve this file",
        )


def _threshold_of_best(scores: Floats) -> float:
    """Just below the best scores of `(B, C, N)`, `LEAST_COMPARED` an image; never below 0, which is no score."""
    best = np.sort(scores.max(1).ravel())[-LEAST_COMPARED * len(scores) :]
    return max(0.0, float(np.nextafter(best[0], np.float32(-1))))


def _check_suppression(outputs: list[Any], threshold: float, iou_threshold: float, model: Path) -> int:
    """Compare the file's detections with a greedy suppression of its own candidates, class by class; count these."""
    batch_index, boxes, scores, labels, all_boxes, all_scores = outputs
    found = {
        (int(i), int(c), *np.round(box, 3).tolist(), round(float(s), 6))
        for i, c, box, s in zip(batch_index, labels, boxes, scores, strict=True)
    }
    expected, candidates_in_all = set(), 0
    for image, class_scores in enumerate(all_scores):
        for label, row in enumerate(class_scores):
            chosen = np.flatnonzero(row > np.float32(threshold))
            candidates_in_all += len(chosen)
            candidates = torch.from_numpy(all_boxes[image][chosen])
            kept = nms(candidates, torch.from_numpy(row[chosen]), iou_threshold)[:MAX_PER_CLASS]
            expected |= {
                (image, label, *np.round(all_boxes[image][k], 3).tolist(), round(float(row[k]), 6))
                for k in chosen[kept.numpy()]
            }
    if found != expected:
        raise StepError(
            f"the exported model suppresses other boxes: {len(found - expected)} too many, "
            f"{len(expected - found)} missing",
            where=model,
            expected="the result of an exact greedy suppression",
            remedy="report it with the versions of onnx and onnxruntime; do not serve this file",
        )
    return candidates_in_all


def _session_with_candidates(path: Path, threshold: float | None = None) -> Any:
    """A session of the file's graph, with the same nodes and weights, and its candidates as further outputs.

    Args:
        path: The file.
        threshold: Replaces its score threshold.
    """
    model = onnx.load(str(path))
    if threshold is not None:
        [stored] = [tensor for tensor in model.graph.initializer if tensor.name == THRESHOLD]
        stored.CopyFrom(helper.make_tensor(THRESHOLD, TensorProto.FLOAT, [1], [threshold]))
    for name in RAW_OUTPUTS:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _largest(values: NDArray[Any]) -> float:
    return float(values.max()) if values.size else 0.0
