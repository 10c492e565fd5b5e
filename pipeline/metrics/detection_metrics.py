"""The figures of a detector on a test set: COCO's metrics, and counts at the best score threshold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.metrics.average_precision import RECALLS, average_precision, coco_figures, mean
from pipeline.metrics.calibration import Calibration, calibration
from pipeline.metrics.coco_matching import Bools, CocoMatches, Floats, Ints
from pipeline.metrics.error_kinds import ErrorKinds, find_error_kinds
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.matching import Matches, confusion_matrix, match_results

LEVELS: Floats = RECALLS
"""Score thresholds of the curves by score, and COCO's recalls of the precision curves."""

_NO_THRESHOLD = 0.5  # where errors are counted if no threshold can be recommended


@dataclass(frozen=True)
class OperatingPoint:
    """One class where detections with at least a score count; None stands for what is not defined.

    Second detections of an object are false positives. F1 is 2 TP / (2 TP + FP + FN).
    """

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    true_positives: int
    false_positives: int
    false_negatives: int


class ScoreCurves(NamedTuple):
    """`(K, 101)` each, at IoU 0.5, where detections count from each of `LEVELS` on; NaN for classes without objects."""

    precision: Floats  # NaN also where there is no such detection
    recall: Floats
    f1: Floats


@dataclass(frozen=True)
class ClassMetrics:
    """One class, named as in the test set; None stands for what is not defined without objects or detections."""

    id: int  # of its category
    name: str
    ground_truth: int  # objects, crowd regions not counted
    images: int  # with such an object
    ap: float | None  # over IoU 0.50:0.95, as `ar100`, with at most 100 detections per image
    ap50: float | None
    ar100: float | None
    best: OperatingPoint  # with the highest F1 at IoU 0.5; at `errors_at` where nothing is right


@dataclass(frozen=True)
class ImageErrors:
    """Right and wrong detections on one image, at `errors_at` and IoU 0.5."""

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
class DetectionMetrics:
    """The result of `evaluate`, named as in COCO's detection challenge, for `K` classes in the order of their ids."""

    map: float | None  # over IoU 0.50:0.95 and the classes that have objects; None without any
    map50: float | None
    map75: float | None
    map_small: float | None  # objects below 32^2 pixels, up to 96^2, and above
    map_medium: float | None
    map_large: float | None
    ar1: float | None  # with 1, 10 and 100 detections per image and class
    ar10: float | None
    ar100: float | None
    # Of all score thresholds in steps of 0.01, the one with the highest mean F1: the service takes one for all classes.
    # None where no detection is right, or the test set has no object.
    threshold: float | None
    f1: float | None  # mean of the classes at that threshold
    errors_at: float  # the score threshold at which errors are counted: `threshold`, or 0.5 without one
    images: int
    objects: int  # crowd regions not counted
    detections: int
    # an image with crowd regions alone is neither, because most detections on it are neither right nor wrong
    images_with_objects: int
    images_without_objects: int
    # Mean number of false positives at `errors_at`. None without such images, and where no detection has that score in
    # a test set with objects: a model that finds nothing makes no false positives either.
    fp_per_image_with_objects: float | None
    fp_per_image_without_objects: float | None
    classes: tuple[ClassMetrics, ...]
    per_image: tuple[ImageErrors, ...]  # in the test set's order
    confusion: Ints  # `(K + 1, K + 1)` counts: rows are the truth, columns the detections, the last is the background
    precision: Floats  # `(K, 101)` interpolated, at IoU 0.5 and the recalls `LEVELS`; NaN for classes without objects
    precision_by_score: Floats  # `(K, 101)` at IoU 0.5 and the thresholds `LEVELS`, as `ScoreCurves`
    recall_by_score: Floats
    f1_by_score: Floats
    ap_by_iou: Floats  # `(10,)` mean AP of the classes at each of `IOUS`; NaN without objects
    error_kinds: ErrorKinds  # of all detections, whatever their score
    calibration: Calibration
    matches: Matches  # that all counts are made of
    coco_matches: CocoMatches  # at all IoUs and sizes, to draw them again

    def summary(self) -> dict[str, float | int | None]:
        """The figures that are single numbers."""
        return {name: value for name, value in vars(self).items() if value is None or isinstance(value, int | float)}

    def to_json(self) -> dict[str, Any]:
        """All figures, without the matches; NaN becomes null. `metrics.schema.json` describes them."""
        kinds = self.error_kinds
        return {
            **self.summary(),
            "classes": [asdict(each) for each in self.classes],
            "per_image": [asdict(each) for each in self.per_image],
            "confusion": self.confusion.tolist(),
            "precision": _plain(self.precision),
            "precision_by_score": _plain(self.precision_by_score),
            "recall_by_score": _plain(self.recall_by_score),
            "f1_by_score": _plain(self.f1_by_score),
            "ap_by_iou": _plain(self.ap_by_iou),
            "error_kinds": {
                name: {"count": count, "ap50_cost": kinds.costs[name]} for name, count in kinds.counts.items()
            },
            "calibration": asdict(self.calibration),
        }


def _plain(array: Floats) -> list[Any]:
    return np.where(np.isnan(array), None, np.round(array, 6)).tolist()  # type: ignore[no-any-return, call-overload]


def evaluate(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> DetectionMetrics:
    """Evaluate detections, in COCO's results format, as COCO does: at most 1, 10 and 100 per image and class."""
    coco_matches, matches = match_results(truth, results)
    curves = average_precision(coco_matches)
    by_score = curves_by_score(matches, len(truth.categories))
    threshold, best_f1 = best_threshold(by_score.f1)
    errors_at = _NO_THRESHOLD if threshold is None else threshold
    class_thresholds = [best_threshold(by_score.f1[[label]])[0] for label in range(len(truth.categories))]
    kept = matches.scores >= errors_at
    per_image = _count_errors(truth, matches, kept)
    annotated = {each.image_id for each in truth.annotations}
    has_object = {each.image_id for each in truth.annotations if not each.iscrowd}
    with_objects = [each.false_positives for each in per_image if each.image_id in has_object]
    without_objects = [each.false_positives for each in per_image if each.image_id not in annotated]
    finds_nothing = bool(with_objects) and bool((coco_matches.score < errors_at).all())
    return DetectionMetrics(
        **coco_figures(curves),
        threshold=threshold,
        f1=best_f1,
        errors_at=errors_at,
        images=len(truth.images),
        objects=len(matches.truth_labels),
        detections=len(results),
        images_with_objects=len(with_objects),
        images_without_objects=len(without_objects),
        fp_per_image_with_objects=None if finds_nothing else mean(with_objects),
        fp_per_image_without_objects=None if finds_nothing else mean(without_objects),
        classes=tuple(
            ClassMetrics(
                id=id_,
                name=name,
                ground_truth=matches.objects(label),
                images=len(np.unique(matches.truth_image_ids[matches.truth_labels == label])),
                ap=mean(curves.precision[:, :, label, 0]),
                ap50=mean(curves.precision[0, :, label, 0]),
                ar100=mean(curves.recall[:, label, 0, -1]),
                best=point_at(matches, label, errors_at if own is None else own),
            )
            for label, ((id_, name), own) in enumerate(zip(truth.categories.items(), class_thresholds, strict=True))
        ),
        per_image=per_image,
        confusion=confusion_matrix(matches, kept, len(truth.categories)),
        precision=curves.precision[0, :, :, 0].T,
        precision_by_score=by_score.precision,
        recall_by_score=by_score.recall,
        f1_by_score=by_score.f1,
        ap_by_iou=np.array([mean(level) for level in curves.ap[:, :, 0]], np.float64),
        error_kinds=find_error_kinds(matches, len(truth.categories)),
        calibration=calibration(matches),
        matches=matches,
        coco_matches=coco_matches,
    )


def _count_errors(truth: GroundTruth, matches: Matches, kept: Bools) -> tuple[ImageErrors, ...]:
    right = Counter(matches.image_ids[kept & (matches.truth >= 0)].tolist())
    wrong = Counter(matches.image_ids[kept & (matches.truth < 0)].tolist())
    missed = Counter(matches.truth_image_ids.tolist())
    missed.subtract(right)
    return tuple(
        ImageErrors(each.id, each.file_name, right[each.id], wrong[each.id], missed[each.id]) for each in truth.images
    )


def curves_by_score(matches: Matches, classes: int) -> ScoreCurves:
    """Precision, recall and F1 of each class at each score threshold."""
    precision, recall, f1 = np.full((3, classes, len(LEVELS)), np.nan)
    for label in range(classes):
        objects = matches.objects(label)
        if objects:
            scores, hits = matches.hits(label)
            kept = len(scores) - np.searchsorted(scores[::-1], LEVELS, side="left")
            right = np.concatenate([[0], np.cumsum(hits)])[kept]
            np.divide(right, kept, out=precision[label], where=kept > 0)
            recall[label] = right / objects
            f1[label] = 2 * right / (kept + objects)  # TP + FP is `kept`, TP + FN is `objects`
    return ScoreCurves(precision, recall, f1)


def best_threshold(f1: Floats) -> tuple[float | None, float | None]:
    """The one threshold for classes, rows of `ScoreCurves.f1`, with the highest mean F1, and that F1.

    Of several best thresholds it is the middle one, which new images are least likely to make worse. Where nothing
    right is found at any, the threshold is None and F1 is 0; without an object of the classes both are None.
    """
    present = f1[~np.isnan(f1[:, 0])]
    if not present.size:
        return None, None
    mean = present.mean(axis=0)
    if not mean.any():
        return None, 0.0
    ties = np.flatnonzero(np.isclose(mean, mean.max()))
    best = int(ties[len(ties) // 2])
    return float(LEVELS[best]), float(mean[best])


def point_at(matches: Matches, label: int, threshold: float) -> OperatingPoint:
    """The operating point of one class at a threshold."""
    objects, (scores, hits) = matches.objects(label), matches.hits(label)
    kept = hits[scores >= threshold]
    right = int(kept.sum())
    return OperatingPoint(
        threshold=threshold,
        precision=right / len(kept) if len(kept) else None,
        recall=right / objects if objects else None,
        f1=2 * right / (len(kept) + objects) if objects else None,
        true_positives=right,
        false_positives=len(kept) - right,
        false_negatives=objects - right,
    )
