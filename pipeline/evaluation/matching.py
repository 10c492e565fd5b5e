"""Detections matched with objects by COCO's evaluation, and what follows at IoU 0.5: F1, thresholds, confusions."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.errors import DataError
from pipeline.evaluation.ground_truth import GroundTruth

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SCORE_LEVELS: Floats = np.linspace(0.0, 1.0, 101)
_IOU = 0.5


@dataclass(frozen=True)
class Matches:
    """COCO's matches at IoU 0.5, for objects of every size and at most 100 detections per image and class.

    `N` detections by descending score, and `M` objects. Crowd regions, and detections that lie in them, are left out.

    Attributes:
        image_ids: `(N,)` COCO image ids.
        labels: `(N,)` class indices, in the order of the ground truth's categories.
        scores: `(N,)`.
        boxes: `(N, 4)` [x, y, width, height] in pixels.
        truth: `(N,)` row of the matched object, -1 for a false positive. COCO matches by descending score, so the
            matches above a score do not depend on the detections below it.
        truth_image_ids: `(M,)` COCO image ids.
        truth_labels: `(M,)` class indices.
        truth_boxes: `(M, 4)` [x, y, width, height] in pixels.
    """

    image_ids: Ints
    labels: Ints
    scores: Floats
    boxes: Floats
    truth: Ints
    truth_image_ids: Ints
    truth_labels: Ints
    truth_boxes: Floats

    def objects(self, label: int) -> int:
        """Number of objects of a class."""
        return int((self.truth_labels == label).sum())

    def hits(self, label: int) -> tuple[Floats, Bools]:
        """Scores of a class in descending order, and whether each detection is right."""
        rows = self.labels == label
        return self.scores[rows], self.truth[rows] >= 0


@dataclass(frozen=True)
class OperatingPoint:
    """One class at one score threshold; None stands for what is not defined.

    Attributes:
        threshold: Detections with at least this score count.
        precision: Share of the detections that are right.
        recall: Share of the objects that are found.
        f1: Harmonic mean of the two, 2 TP / (2 TP + FP + FN).
        true_positives: Objects found.
        false_positives: Detections without an object of their class, second detections of an object among them.
        false_negatives: Objects missed.
    """

    threshold: float
    precision: float | None
    recall: float | None
    f1: float | None
    true_positives: int
    false_positives: int
    false_negatives: int


def run_coco_eval(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> COCOeval:
    """Evaluate boxes with pycocotools, at most 1, 10 and 100 detections per image and class.

    Unlike `COCO.loadRes` this takes an empty list. Annotations are renumbered from 1, because pycocotools reads a match
    with an annotation of id 0 as no match.

    Raises:
        DataError: A result is of an image or category that the ground truth does not have.
    """
    images = {image.id for image in truth.images}
    for each in results:
        if each["image_id"] not in images or each["category_id"] not in truth.categories:
            raise DataError(
                f"a prediction is of image {each['image_id']}, category {each['category_id']}",
                where=truth.folder,
                expected="images and categories of the test set",
                remedy="evaluate predictions with the annotations they were made for",
            )
    objects = [
        {"id": number, "image_id": each.image_id, "category_id": each.category_id, "bbox": list(each.bbox)}
        | {"area": each.area, "iscrowd": each.iscrowd}
        for number, each in enumerate(truth.annotations, start=1)
    ]
    detections = [
        {**each, "id": number, "iscrowd": 0, "area": each["bbox"][2] * each["bbox"][3]}
        for number, each in enumerate(results, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        evaluation = COCOeval(_index(truth, objects), _index(truth, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    log.debug("pycocotools: %s", printed.getvalue())
    return evaluation


def _index(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id, "width": image.width, "height": image.height} for image in truth.images],
        "categories": [{"id": id_, "name": name} for id_, name in truth.categories.items()],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def matches_at_half(evaluation: COCOeval, truth: GroundTruth) -> Matches:
    """Read the matches at IoU 0.5 from a finished evaluation of `truth`."""
    labels = {category_id: label for label, category_id in enumerate(truth.categories)}
    objects = [each for each in evaluation.cocoGt.dataset["annotations"] if not each["iscrowd"]]
    rows = {each["id"]: row for row, each in enumerate(objects)}
    found: list[tuple[int, int, float, list[float], int]] = []
    for each in evaluation.evalImgs:
        if each is None or each["aRng"] != evaluation.params.areaRng[0]:
            continue
        matched = zip(each["dtIds"], each["dtMatches"][0], each["dtIgnore"][0], strict=True)
        for detection_id, object_id, ignored in matched:
            if not ignored:
                detection = evaluation.cocoDt.anns[detection_id]
                label, row = labels[each["category_id"]], rows[int(object_id)] if object_id else -1
                found.append((each["image_id"], label, detection["score"], detection["bbox"], row))
    found.sort(key=lambda detection: -detection[2])
    return Matches(
        image_ids=np.array([each[0] for each in found], np.int64),
        labels=np.array([each[1] for each in found], np.int64),
        scores=np.array([each[2] for each in found], np.float64),
        boxes=np.array([each[3] for each in found], np.float64).reshape(-1, 4),
        truth=np.array([each[4] for each in found], np.int64),
        truth_image_ids=np.array([each["image_id"] for each in objects], np.int64),
        truth_labels=np.array([labels[each["category_id"]] for each in objects], np.int64),
        truth_boxes=np.array([each["bbox"] for each in objects], np.float64).reshape(-1, 4),
    )


def f1_by_score(matches: Matches, classes: int) -> Floats:
    """F1 of each class at each of `SCORE_LEVELS`: `(classes, 101)`, NaN for classes without objects."""
    curves = np.full((classes, len(SCORE_LEVELS)), np.nan)
    for label in range(classes):
        objects = matches.objects(label)
        if objects:
            scores, hits = matches.hits(label)
            kept = len(scores) - np.searchsorted(scores[::-1], SCORE_LEVELS, side="left")
            right = np.concatenate([[0], np.cumsum(hits)])[kept]
            curves[label] = 2 * right / (kept + objects)  # TP + FP is `kept`, TP + FN is `objects`
    return curves


def common_threshold(f1: Floats) -> tuple[float | None, float | None]:
    """The one threshold for all classes with the highest mean F1, and that F1.

    Of several best thresholds it is the middle one, which new images are least likely to make worse. Where nothing
    right is found at any, the threshold is None and F1 is 0; without an object in the test set both are None.

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
    """The operating point of one class with the highest F1; of several such thresholds the highest.

    Args:
        matches: Of the whole test set.
        label: Class index.
        fallback: Threshold for a class of which no detection is right.
    """
    scores, hits = matches.hits(label)
    right = np.cumsum(hits)
    f1 = 2 * right / (np.arange(1, len(scores) + 1) + matches.objects(label))
    f1[:-1][scores[:-1] == scores[1:]] = -1.0  # no threshold separates equal scores
    return point_at(matches, label, float(scores[np.argmax(f1)]) if right.any() else fallback)


def point_at(matches: Matches, label: int, threshold: float) -> OperatingPoint:
    """The operating point of one class at a threshold."""
    objects = matches.objects(label)
    scores, hits = matches.hits(label)
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


def confusion_matrix(matches: Matches, kept: Bools, classes: int) -> Ints:
    """Count which class was taken for which.

    The diagonal holds the objects that a detection of their own class was matched with. The other detections are then
    matched with the missed objects of other classes, by descending score, each with the one it overlaps most at IoU 0.5
    or more. What is still left counts as background.

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
        for detection, row in _match_across_classes(matches, detections, objects):
            taken_for[detection] = matches.truth_labels[row]
            missed[row] = False
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
