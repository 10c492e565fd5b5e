"""Does the ONNX file do what the PyTorch model does? Measured on images, refused beyond a tolerance.

Two comparisons cover the whole graph. The best boxes and every score before suppression are compared with PyTorch's;
then the file's own detections are compared with an exact greedy suppression of its own candidates. So a difference in
the last bit of two near-equal scores, which may reorder a suppression, is not taken for an error, and nothing else is
let through. A detector that finds next to nothing gives its suppression nothing to do: the same graph is then run with
a lower score threshold, that of its best candidates.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.detection.export import FLOOR, INPUT, MAX_PER_CLASS, OUTPUTS, RAW_OUTPUTS, load_detector
from pipeline.detection.mmcv_ops import nms
from pipeline.detection.spec import DetectorSpec
from pipeline.errors import DataError, StepError
from pipeline.serving.predictor import onnxruntime

Floats = NDArray[np.float32]

BOX_TOLERANCE = 0.01  # pixels
LEAST_COMPARED = 100  # best boxes an image that are compared even where none reaches the score threshold
SCORE_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Parity:
    """The measured agreement of PyTorch and ONNX Runtime.

    Attributes:
        images: Number of images compared, each alone and all as one batch.
        compared: Boxes compared before suppression, over all images: those above the score threshold, and the best
            100 of each image in any case.
        candidates: Boxes that the suppression was compared on: those above the score threshold or, where these are
            fewer than 100, the best 100 an image; 0 where no score is above 0.
        detections: Boxes above the score threshold that are left after it.
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
        """Whether all of the graph was compared, its suppression too."""
        return self.candidates > 0

    def metrics(self) -> dict[str, float | None]:
        """The figures with a prefix, as metrics of a step; no difference is given where parity is not shown."""
        figures: dict[str, float | None] = {f"parity_{name}": value for name, value in asdict(self).items()}
        if not self.is_shown:
            figures |= {"parity_max_box_difference": None, "parity_max_score_difference": None}
        return figures

    def notes(self) -> list[str]:
        """What a user must know of the comparison; nothing where the detector found something."""
        if not self.is_shown:
            return [f"parity is not shown: no box of {self.images} images has a score above 0"]
        if not self.detections:
            compared = f"parity was measured on its {self.candidates} best boxes"
            return [f"the model finds nothing in {self.images} images; {compared}"]
        return []


def check_parity(spec: DetectorSpec, weights: Path, model: Path, images: list[Path]) -> Parity:
    """Compare an exported file with its checkpoint on real images.

    Args:
        spec: The detector.
        weights: The checkpoint the file was exported from.
        model: The ONNX file.
        images: Files that OpenCV reads; each is letterboxed as mmdet does it.

    Raises:
        DataError: No images, or one that cannot be read.
        StepError: A box differs by more than 0.01 px, a score by more than 1e-4, or the file suppresses other boxes
            than an exact greedy suppression.
    """
    if not images:
        raise DataError("there is no image to compare PyTorch and ONNX on", where=model, expected="at least one image")
    pixels = _letterboxed(spec, images)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # mmdet's backbone names torch.cuda.amp
        boxes, scores = (value.numpy() for value in load_detector(spec, weights)(torch.from_numpy(pixels)))
    session = _session_with_candidates(model)
    whole = session.run(None, {INPUT: pixels})
    single = [session.run(None, {INPUT: pixels[i : i + 1]}) for i in range(len(pixels))]
    alone = [np.concatenate([run[len(OUTPUTS) + k] for run in single]) for k in range(2)]
    best = scores.max(1)  # (B, N)
    least = np.sort(best, 1)[:, -min(LEAST_COMPARED, best.shape[1]), None]
    compared = best >= np.minimum(least, spec.score_threshold)
    runs = (whole[len(OUTPUTS) :], alone)
    box_difference = max(_largest(np.abs(run[0] - boxes)[compared]) for run in runs)
    score_difference = max(_largest(np.abs(run[1] - scores)) for run in runs)
    _refuse_beyond(box_difference, BOX_TOLERANCE, "a box", "px", model)
    _refuse_beyond(score_difference, SCORE_TOLERANCE, "a score", "", model)
    candidates = _check_suppression(whole, spec.score_threshold, spec.nms_iou_threshold, model)
    if candidates < LEAST_COMPARED:
        floor = _floor_of_best(whole[-1])
        lowered = _session_with_candidates(model, floor).run(None, {INPUT: pixels})
        candidates = _check_suppression(lowered, floor, spec.nms_iou_threshold, model)
    return Parity(len(images), int(compared.sum()), candidates, len(whole[2]), box_difference, score_difference)


def _refuse_beyond(difference: float, tolerance: float, what: str, unit: str, model: Path) -> None:
    if not difference <= tolerance:  # also refuses NaN
        raise StepError(
            f"the exported model differs from PyTorch: {what} by {difference:.3g} {unit}".rstrip(),
            where=model,
            expected=f"at most {tolerance:g} {unit}".rstrip(),
            remedy="report it with the versions of torch, onnx and onnxruntime; do not serve this file",
        )


def _floor_of_best(scores: Floats) -> float:
    """Just below the best scores of `(B, C, N)`, `LEAST_COMPARED` an image; never below 0, which is no score."""
    best = np.sort(scores.max(1).ravel())[-LEAST_COMPARED * len(scores) :]
    return max(0.0, float(np.nextafter(best[0], np.float32(-1))))


def _check_suppression(outputs: list[Any], floor: float, iou_threshold: float, model: Path) -> int:
    """Compare the file's detections with a greedy suppression of its own candidates, class by class; count these."""
    batch_index, boxes, scores, labels, all_boxes, all_scores = outputs
    found = {
        (int(i), int(c), *np.round(box, 3).tolist(), round(float(s), 6))
        for i, c, box, s in zip(batch_index, labels, boxes, scores, strict=True)
    }
    expected, candidates_in_all = set(), 0
    for image, class_scores in enumerate(all_scores):
        for label, row in enumerate(class_scores):
            chosen = np.flatnonzero(row > np.float32(floor))
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


def _session_with_candidates(path: Path, floor: float | None = None) -> Any:
    """The file's graph with its candidates as further outputs, the very same nodes and weights.

    Args:
        path: The file.
        floor: In place of the score threshold in it.
    """
    model = onnx.load(str(path))
    if floor is not None:
        [threshold] = [tensor for tensor in model.graph.initializer if tensor.name == FLOOR]
        threshold.CopyFrom(helper.make_tensor(FLOOR, TensorProto.FLOAT, [1], [floor]))
    for name in RAW_OUTPUTS:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _letterboxed(spec: DetectorSpec, images: list[Path]) -> Floats:
    """`(B, 3, S, S)` through mmdet's own validation transforms."""
    from mmdet.datasets.transforms import Pad, Resize

    size = spec.image_size[::-1]
    steps = [Resize(scale=size, keep_ratio=True), Pad(size=size, pad_val={"img": (114.0,) * 3})]
    batch = []
    for path in images:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError("the image cannot be read", where=path, expected="an image that OpenCV decodes")
        results: dict[str, Any] = {"img": image, "img_shape": image.shape[:2]}
        for step in steps:
            results = step(results)
        batch.append(results["img"].transpose(2, 0, 1).astype(np.float32))
    return np.stack(batch)


def _largest(values: NDArray[Any]) -> float:
    return float(values.max()) if values.size else 0.0
