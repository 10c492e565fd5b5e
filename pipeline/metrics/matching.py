"""COCO's matches at IoU 0.5, which the counts and the confusions are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask

from pipeline.metrics.coco_matching import Bools, CocoMatches, Floats, FoundBoxes, Ints, TruthBoxes, match_boxes
from pipeline.metrics.ground_truth import GroundTruth

_IOU = 0.5


@dataclass(frozen=True)
class Matches:
    """COCO's matches at IoU 0.5, for objects of every size and at most 100 detections per image and class.

    `N` detections by descending score, and `M` objects. Crowd regions, and detections that lie in them, are left out.
    Labels are class indices, in the order of the ground truth's categories; boxes are [x, y, width, height] in pixels.
    """

    image_ids: Ints  # `(N,)`
    labels: Ints  # `(N,)`
    scores: Floats  # `(N,)`
    boxes: Floats  # `(N, 4)`
    # `(N,)` row of the matched object, -1 for a false positive. COCO matches by descending score, so the matches above
    # a score do not depend on the detections below it.
    truth: Ints
    truth_image_ids: Ints  # `(M,)`
    truth_labels: Ints  # `(M,)`
    truth_boxes: Floats  # `(M, 4)`

    def objects(self, label: int) -> int:
        """Number of objects of a class."""
        return int((self.truth_labels == label).sum())

    def hits(self, label: int) -> tuple[Floats, Bools]:
        """Scores of a class in descending order, and whether each detection is right."""
        rows = self.labels == label
        return self.scores[rows], self.truth[rows] >= 0


def match_results(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> tuple[CocoMatches, Matches]:
    """Match detections, in COCO's results format, at all IoUs and at IoU 0.5."""
    boxes, found = TruthBoxes.of(truth), FoundBoxes.of(results)
    matches = match_boxes(boxes, found)
    return matches, _matches_at_half(boxes, found, matches)


def _matches_at_half(truth: TruthBoxes, found: FoundBoxes, matches: CocoMatches) -> Matches:
    is_object = ~matches.truth_ignored[:, 0]
    row_of_object = np.append(np.cumsum(is_object) - 1, -1)  # which -1, for no match, takes
    rows = np.flatnonzero(~matches.ignored[:, 0, 0])
    rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    matched = matches.truth[rows, 0, 0]
    return Matches(
        image_ids=truth.image_ids[matches.image[rows]],
        labels=matches.label[rows],
        scores=matches.score[rows],
        boxes=found.box[matches.detection[rows]],
        truth=row_of_object[matched],
        truth_image_ids=truth.image_ids[matches.truth_image[is_object]],
        truth_labels=matches.truth_label[is_object],
        truth_boxes=truth.box[is_object],
    )


def confusion_matrix(matches: Matches, kept: Bools, classes: int) -> Ints:
    """Count which class was taken for which by the detections that the `(N,)` mask keeps.

    The diagonal holds the objects that a detection of their own class was matched with. The other detections are then
    matched with the missed objects of other classes, by descending score, each with the one it overlaps most at IoU 0.5
    or more. What is still left counts as background.

    The result is `(K + 1, K + 1)`; rows are the truth, columns the detections, the last of each is the background.
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
        overlaps = np.array(mask.iou(matches.boxes[detections], matches.truth_boxes[objects], [0] * len(objects)))
        # COCO has decided about those of the same class
        overlaps[matches.labels[detections][:, None] == matches.truth_labels[objects]] = 0.0
        for detection, row in zip(detections, overlaps, strict=True):
            best = int(row.argmax())
            if row[best] >= _IOU:
                taken_for[detection] = matches.truth_labels[objects[best]]
                missed[objects[best]] = False
                overlaps[:, best] = 0.0
    np.add.at(counts, (taken_for[wrong], matches.labels[wrong]), 1)
    np.add.at(counts, (matches.truth_labels[missed], np.full(int(missed.sum()), classes)), 1)
    return counts
