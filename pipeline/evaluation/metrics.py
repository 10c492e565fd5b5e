"""The figures of a detector on a test set: COCO's metrics, and counts at the best score threshold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.cocoeval import COCOeval

from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.matching import (
    SCORE_LEVELS,
    Bools,
    Floats,
    Ints,
    Matches,
    OperatingPoint,
    best_point,
    common_threshold,
    confusion_matrix,
    f1_by_score,
    matches_at_half,
    run_coco_eval,
)

_NO_THRESHOLD = 0.5  # where errors are counted if no threshold can be recommended


@dataclass(frozen=True)
class ClassMetrics:
    """One class; None stands for what is not defined without objects or detections.

    Attributes:
        name: As in the test set.
        category_id: As in the test set.
        ground_truth: Number of objects, crowd regions not counted.
        images: Number of images with such an object.
        ap: Average precision over IoU 0.50:0.95.
        ap50: Average precision at IoU 0.5.
        ar100: Average recall over IoU 0.50:0.95, at most 100 detections per image.
        best: The operating point with the highest F1 at IoU 0.5.
    """

    name: str
    category_id: int
    ground_truth: int
    images: int
    ap: float | None
    ap50: float | None
    ar100: float | None
    best: OperatingPoint


@dataclass(frozen=True)
class ImageErrors:
    """Right and wrong detections on one image, at the common threshold and IoU 0.5."""

    image_id: int
    file_name: str
    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def errors(self) -> int:
        """False positives and false negatives together."""
        return self.false_positives + self.false_negatives

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 for an image without objects and without detections."""
        total = 2 * self.true_positives + self.errors
        return 2 * self.true_positives / total if total else 1.0


@dataclass(frozen=True)
class Curves:
    """Curves at IoU 0.5; NaN for classes without objects.

    Attributes:
        recall: `(101,)` COCO's recall levels.
        precision: `(K, 101)` interpolated precision at these.
        score: `(101,)` score thresholds.
        f1: `(K, 101)` F1 at these.
    """

    recall: Floats
    precision: Floats
    score: Floats
    f1: Floats


@dataclass(frozen=True)
class DetectionMetrics:
    """The result of `evaluate`; names as in COCO's detection challenge.

    Attributes:
        map: Mean average precision over IoU 0.50:0.95 and the classes that have objects; None without any.
        map50, map75: The same at IoU 0.5 and at 0.75.
        map_small, map_medium, map_large: For objects below 32^2 pixels, up to 96^2, and above.
        ar1, ar10, ar100: Average recall with 1, 10 and 100 detections per image and class.
        threshold: The one score threshold for all classes with the highest mean F1, in steps of 0.01, because the
            service takes one threshold for all classes. None where no detection is right, or the test set has no
            object.
        f1: Mean F1 of the classes at that threshold.
        errors_at: The score threshold at which errors are counted: `threshold`, or 0.5 without one.
        images, detections: Number of them.
        objects: Number of objects, crowd regions not counted.
        images_with_objects, images_without_objects: Number of them. An image with crowd regions alone is neither,
            because most detections on it are neither right nor wrong.
        fp_per_image_with_objects, fp_per_image_without_objects: Mean number of false positives at `errors_at` on
            these images. None where there are none, and where no detection has that score in a test set with objects:
            a model that finds nothing makes no false positives either.
        classes: In the order of the category ids.
        per_image: In the test set's order, at `errors_at`.
        confusion: `(K + 1, K + 1)` counts at `errors_at`; rows are the truth, columns the detections, the last of each
            is the background.
        curves: For drawing.
    """

    map: float | None
    map50: float | None
    map75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    threshold: float | None
    f1: float | None
    errors_at: float
    images: int
    objects: int
    detections: int
    images_with_objects: int
    images_without_objects: int
    fp_per_image_with_objects: float | None
    fp_per_image_without_objects: float | None
    classes: tuple[ClassMetrics, ...]
    per_image: tuple[ImageErrors, ...]
    confusion: Ints
    curves: Curves

    def summary(self) -> dict[str, float | int | None]:
        """The figures that are single numbers."""
        return {name: value for name, value in vars(self).items() if value is None or isinstance(value, int | float)}

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values; NaN is null."""
        return {
            **self.summary(),
            "classes": [asdict(each) for each in self.classes],
            "confusion": self.confusion.tolist(),
            "curves": {name: _plain(values) for name, values in vars(self.curves).items()},
            "per_image": [asdict(each) for each in self.per_image],
        }

    def write_json(self, path: Path) -> Path:
        """Write `to_json` to a file."""
        path.write_text(json.dumps(self.to_json(), indent=1, allow_nan=False), "utf-8")
        return path


def evaluate(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> DetectionMetrics:
    """Evaluate boxes as COCO does: pycocotools, at most 1, 10 and 100 detections per image and class.

    Args:
        truth: The test set.
        results: Detections in COCO's results format; may be empty.

    Raises:
        DataError: A result is of an image or category that the test set does not have.
    """
    evaluation = run_coco_eval(truth, results)
    matches = matches_at_half(evaluation, truth)
    f1 = f1_by_score(matches, len(truth.categories))
    threshold, best_f1 = common_threshold(f1)
    errors_at = _NO_THRESHOLD if threshold is None else threshold
    kept = matches.scores >= errors_at
    per_image = _count_errors(truth, matches, kept)
    annotated = {each.image_id for each in truth.annotations}
    has_object = {each.image_id for each in truth.annotations if not each.iscrowd}
    with_objects = [each.false_positives for each in per_image if each.image_id in has_object]
    without_objects = [each.false_positives for each in per_image if each.image_id not in annotated]
    finds_nothing = bool(with_objects) and all(each["score"] < errors_at for each in results)
    precision: Floats = evaluation.eval["precision"]
    return DetectionMetrics(
        **_coco_summary(evaluation),
        threshold=threshold,
        f1=best_f1,
        errors_at=errors_at,
        images=len(truth.images),
        objects=len(matches.truth_labels),
        detections=len(results),
        images_with_objects=len(with_objects),
        images_without_objects=len(without_objects),
        fp_per_image_with_objects=None if finds_nothing else _mean_count(with_objects),
        fp_per_image_without_objects=None if finds_nothing else _mean_count(without_objects),
        classes=_class_metrics(truth, evaluation, matches, errors_at),
        per_image=per_image,
        confusion=confusion_matrix(matches, kept, len(truth.categories)),
        curves=Curves(
            recall=np.asarray(evaluation.params.recThrs, np.float64),
            precision=np.where(precision < 0, np.nan, precision)[0, :, :, 0, -1].T,
            score=SCORE_LEVELS,
            f1=f1,
        ),
    )


def _coco_summary(evaluation: COCOeval) -> dict[str, float | None]:
    """The figures of `COCOeval.summarize`, with None where that has -1."""
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return {
        "map": _mean(precision[:, :, :, 0, -1]),
        "map50": _mean(precision[0, :, :, 0, -1]),
        "map75": _mean(precision[5, :, :, 0, -1]),
        "map_small": _mean(precision[:, :, :, 1, -1]),
        "map_medium": _mean(precision[:, :, :, 2, -1]),
        "map_large": _mean(precision[:, :, :, 3, -1]),
        "ar1": _mean(recall[:, :, 0, 0]),
        "ar10": _mean(recall[:, :, 0, 1]),
        "ar100": _mean(recall[:, :, 0, 2]),
    }


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """The mean without the classes that have no objects, which pycocotools marks with -1."""
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None


def _mean_count(counts: Sequence[int]) -> float | None:
    return sum(counts) / len(counts) if counts else None


def _class_metrics(
    truth: GroundTruth, evaluation: COCOeval, matches: Matches, errors_at: float
) -> tuple[ClassMetrics, ...]:
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    return tuple(
        ClassMetrics(
            name=name,
            category_id=category_id,
            ground_truth=matches.objects(label),
            images=len(np.unique(matches.truth_image_ids[matches.truth_labels == label])),
            ap=_mean(precision[:, :, label, 0, -1]),
            ap50=_mean(precision[0, :, label, 0, -1]),
            ar100=_mean(recall[:, label, 0, -1]),
            best=best_point(matches, label, errors_at),
        )
        for label, (category_id, name) in enumerate(truth.categories.items())
    )


def _count_errors(truth: GroundTruth, matches: Matches, kept: Bools) -> tuple[ImageErrors, ...]:
    rows = {image.id: row for row, image in enumerate(truth.images)}

    def count(image_ids: Ints) -> Ints:
        return np.bincount(np.array([rows[id_] for id_ in image_ids.tolist()], np.int64), minlength=len(rows))

    right = count(matches.image_ids[kept & (matches.truth >= 0)])
    wrong = count(matches.image_ids[kept & (matches.truth < 0)])
    missed = count(matches.truth_image_ids) - right
    return tuple(
        ImageErrors(image.id, image.file_name, int(right[row]), int(wrong[row]), int(missed[row]))
        for row, image in enumerate(truth.images)
    )


def _plain(values: Floats) -> list[Any]:
    return np.where(np.isnan(values), None, np.round(values, 6)).tolist()  # type: ignore[no-any-return, call-overload]
