"""Working points: which score threshold to use, and what is right, wrong and mixed up there (all at IoU 0.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pycocotools import mask

from pipeline.evaluation.matching import Floats, Ints, Matches

SCORE_LEVELS: Floats = np.linspace(0.0, 1.0, 101)
NO_THRESHOLD = 0.5  # where errors are counted when no threshold can be recommended
_IOU = 0.5


@dataclass(frozen=True)
class OperatingPoint:
    """One class at one score threshold; what cannot be computed is None.

    Attributes:
        threshold: Detections with at least this score count.
        precision: Share of the detections that are right.
        recall: Share of the objects that are found.
        f1: Harmonic mean of the two, 2 TP / (2 TP + FP + FN).
        true_positives: Objects found.
        false_positives: Detections without an object of their class, double detections among them.
        false_negatives: Objects missed.
    """

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    true_positives: int
    false_positives: int
    false_negatives: int


def f1_by_score(matches: Matches, classes: int) -> Floats:
    """F1 of each class at each of `SCORE_LEVELS`: `(classes, 101)`, NaN for classes without ground truth."""
    return np.stack([_f1_at_levels(matches, label) for label in range(classes)])


def _f1_at_levels(matches: Matches, label: int) -> Floats:
    objects = int((matches.truth_labels == label).sum())
    if objects == 0:
        return np.full(len(SCORE_LEVELS), np.nan)
    scores, hits = _of_class(matches, label)
    kept = len(scores) - np.searchsorted(scores[::-1], SCORE_LEVELS, side="left")
    found = np.concatenate([[0], np.cumsum(hits)])[kept]
    return 2 * found / (kept + objects)  # TP + FP is `kept`, TP + FN is `objects`


def common_threshold(f1: Floats) -> tuple[float | None, float | None]:
    """The one threshold for all classes with the highest mean F1, and that F1.

    Where many thresholds are equally good it is amid them, where new images are least likely to fall off the plateau.
    Where nothing right is found at any there is none to recommend: the threshold is None and F1 0, or None where the
    test set has no object.

    Args:
        f1: From `f1_by_score`.
    """
    present = f1[~np.isnan(f1[:, 0])]
    if not present.size:
        return None, None
    mean = present.mean(axis=0)
    if not mean.any():
        return None, 0.0
    ties = np.flatnonzero(np.isclose(mean, mean.max()))
    best = int(ties[len(ties) // 2])
    return float(SCORE_LEVELS[best]), float(mean[best])


def best_point(matches: Matches, label: int, fallback: float) -> OperatingPoint:
    """The working point of one class with the highest F1; the highest such threshold where several have it.

    Args:
        matches: Of the whole test set.
        label: Class index.
        fallback: Threshold for a class that has no best one, for want of ground truth or of a single right detection.
    """
    objects = int((matches.truth_labels == label).sum())
    scores, hits = _of_class(matches, label)
    found = np.cumsum(hits)
    f1 = 2 * found / (np.arange(1, len(scores) + 1) + objects)
    # between equal scores no threshold can cut: only the last of them is a working point
    f1[:-1][scores[:-1] == scores[1:]] = -1.0
    threshold = float(scores[np.argmax(f1)]) if found.any() else fallback
    return point_at(matches, label, threshold)


def point_at(matches: Matches, label: int, threshold: float) -> OperatingPoint:
    """The working point of one class at a threshold."""
    objects = int((matches.truth_labels == label).sum())
    scores, hits = _of_class(matches, label)
    kept = hits[scores >= threshold]
    right, wrong = int(kept.sum()), int((~kept).sum())
    return OperatingPoint(
        threshold=threshold,
        precision=right / len(kept) if len(kept) else None,
        recall=right / objects if objects else None,
        f1=2 * right / (len(kept) + objects) if objects else None,
        true_positives=right,
        false_positives=wrong,
        false_negatives=objects - right,
    )


def _of_class(matches: Matches, label: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Scores in descending order, and whether each detection is right."""
    rows = matches.labels == label
    return matches.scores[rows], matches.truth[rows] >= 0


def confusion_matrix(matches: Matches, kept: npt.NDArray[np.bool_], classes: int) -> Ints:
    """Count which class was taken for which.

    An object found by a detection of its own class is on the diagonal, as COCO matched it. Objects and detections
    left over are then matched across classes, by descending score, each detection with the object it covers best at
    IoU 0.5 or more. What still has no counterpart is missed, or found where nothing is.

    Args:
        matches: Of the whole test set.
        kept: `(N,)` mask of the detections that count.
        classes: Number of classes `K`.

    Returns:
        `(K + 1, K + 1)` counts; rows are the truth, columns the detections, the last of each is the background.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    right = kept & (matches.truth >= 0)
    np.add.at(counts, (matches.labels[right], matches.labels[right]), 1)
    missed = np.ones(len(matches.truth_labels), bool)
    missed[matches.truth[right]] = False
    wrong = np.flatnonzero(kept & ~right)
    taken_for = np.full(len(matches.labels), classes)
    for image_id in np.intersect1d(matches.image_ids[wrong], matches.truth_image_ids[missed]):
        detections = wrong[matches.image_ids[wrong] == image_id]
        objects = np.flatnonzero(missed & (matches.truth_image_ids == image_id))
        for detection, found in _match_across_classes(matches, detections, objects):
            taken_for[detection] = matches.truth_labels[found]
            missed[found] = False
    np.add.at(counts, (taken_for[wrong], matches.labels[wrong]), 1)
    np.add.at(counts, (matches.truth_labels[missed], np.full(int(missed.sum()), classes)), 1)
    return counts


def _match_across_classes(matches: Matches, detections: Ints, objects: Ints) -> list[tuple[int, int]]:
    overlaps = np.array(mask.iou(matches.boxes[detections], matches.truth_boxes[objects], [0] * len(objects)))
    pairs = []
    for detection, row in zip(detections, overlaps, strict=True):
        row[matches.labels[detection] == matches.truth_labels[objects]] = 0.0  # COCO has decided about these
        best = int(row.argmax())
        if row[best] >= _IOU:
            pairs.append((int(detection), int(objects[best])))
            overlaps[:, best] = 0.0
    return pairs
