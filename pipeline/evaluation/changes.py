"""What changed from one model to another on the same test images: images, objects and false alarms, one by one.

Each model counts at its own `errors_at`, and IoU 0.5. A false alarm is new if the model before had none of this class
that overlaps it by IoU 0.5. An image is right where all objects are found, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.examples import (
    Example,
    Outcomes,
    Selection,
    classes_in,
    detection_example,
    in_turn,
    object_example,
    outcomes,
)
from pipeline.metrics.coco_matching import Bools, Ints, box_iou
from pipeline.metrics.detection_metrics import DetectionMetrics
from pipeline.metrics.ground_truth import GroundTruth

IMAGES_LOST, IMAGES_GAINED = "Images right before, wrong now", "Images wrong before, right now"
OBJECTS_LOST, OBJECTS_GAINED = "Objects found before, missed now", "Objects missed before, found now"
ALARMS_NEW, ALARMS_GONE = "New false alarms", "False alarms gone"

_IOU = 0.5


@dataclass(frozen=True)
class Changes:
    """All changes, by their kind; of each kind the most striking first."""

    thresholds: tuple[float, float]  # score from which each model's detections count
    groups: Mapping[str, tuple[Example, ...]]  # what became worse, then what became better

    def select(self, per_class: int) -> Selection:
        """At most so many of each kind and class."""
        totals = {group: len(examples) for group, examples in self.groups.items()}
        return Selection(tuple(in_turn(self.groups.values(), per_class)), totals)

    def files(self, group: str, truth: GroundTruth) -> list[str]:
        """The images of a kind of change, each once."""
        names = {image.id: image.file_name for image in truth.images}
        return list(dict.fromkeys(names[each.image_id] for each in self.groups[group]))

    def to_json(self, truth: GroundTruth) -> dict[str, Any]:
        """All of it."""
        names, classes = {image.id: image.file_name for image in truth.images}, list(truth.categories.values())

        def plain(examples: Iterable[Example]) -> list[dict[str, Any]]:
            return [
                {"file_name": names[each.image_id], "class": classes[each.labels[0]], "bbox": each.box}
                | {"score": each.score, "kind": each.kind or None, "size": each.size}
                for each in examples
            ]

        return {
            "score_thresholds": self.thresholds,
            "images_right_to_wrong": self.files(IMAGES_LOST, truth),
            "images_wrong_to_right": self.files(IMAGES_GAINED, truth),
            "objects_lost": plain(self.groups[OBJECTS_LOST]),
            "objects_gained": plain(self.groups[OBJECTS_GAINED]),
            "false_alarms_new": plain(self.groups[ALARMS_NEW]),
            "false_alarms_gone": plain(self.groups[ALARMS_GONE]),
        }


def find_changes(truth: GroundTruth, before: DetectionMetrics, after: DetectionMetrics) -> Changes:
    """Find what changed between two evaluations of the same test set."""
    was, now = outcomes(truth, before), outcomes(truth, after)
    return Changes(
        (before.errors_at, after.errors_at),
        {
            IMAGES_LOST: _images(IMAGES_LOST, before, after),
            OBJECTS_LOST: _objects(OBJECTS_LOST, (after, now), was, (True, False)),
            ALARMS_NEW: _alarms(ALARMS_NEW, (after, now), (before, was), (None, False)),
            IMAGES_GAINED: _images(IMAGES_GAINED, after, before),
            OBJECTS_GAINED: _objects(OBJECTS_GAINED, (before, was), now, (False, True)),
            ALARMS_GONE: _alarms(ALARMS_GONE, (before, was), (after, now), (False, None)),
        },
    )


def _images(group: str, right: DetectionMetrics, wrong: DetectionMetrics) -> tuple[Example, ...]:
    """The images that one has right and the other wrong, those with most errors first."""
    pairs = [pair for pair in zip(right.per_image, wrong.per_image, strict=True) if not pair[0].errors]
    errors = sorted((-each.errors, each.image_id) for _, each in pairs if each.errors)
    return tuple(Example(group, image_id, classes_in(wrong, image_id)) for _, image_id in errors)


def _objects(
    group: str, missing: tuple[DetectionMetrics, Outcomes], finding: Outcomes, found: tuple[bool, bool]
) -> tuple[Example, ...]:
    """The objects that one misses and the other finds, by the score of the detection that finds them."""
    metrics, at = missing
    rows = np.flatnonzero(~at.found & finding.found)
    rows = rows[np.argsort(-finding.object_score[rows], kind="stable")]
    return tuple(
        object_example(metrics, at, group, row, found, float(finding.object_score[row])) for row in rows.tolist()
    )


def _alarms(
    group: str,
    having: tuple[DetectionMetrics, Outcomes],
    other: tuple[DetectionMetrics, Outcomes],
    found: tuple[bool | None, bool | None],
) -> tuple[Example, ...]:
    """The false alarms that one has and the other has not, the most confident first."""
    metrics, at = having
    rows = np.flatnonzero(at.false)
    rows = rows[~_has_partner(metrics, rows, other[0], np.flatnonzero(other[1].false))]
    return tuple(detection_example(metrics, at, group, row, found) for row in rows.tolist())


def _has_partner(metrics: DetectionMetrics, rows: Ints, other: DetectionMetrics, other_rows: Ints) -> Bools:
    """Whether a detection of the same class among the other ones overlaps each detection."""
    ours, theirs, classes = metrics.matches, other.matches, len(metrics.classes)
    key = ours.image_ids[rows] * classes + ours.labels[rows]
    other_key = theirs.image_ids[other_rows] * classes + theirs.labels[other_rows]
    order = np.argsort(other_key, kind="stable")
    start: Ints = np.asarray(np.searchsorted(other_key[order], key))
    count = np.searchsorted(other_key[order], key, "right") - start
    pair = np.repeat(np.arange(len(rows)), count)
    within = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count, count)
    partner = other_rows[order][np.repeat(start, count) + within]
    overlap = box_iou(ours.boxes[rows[pair]], theirs.boxes[partner]) >= _IOU
    has = np.zeros(len(rows), bool)
    has[pair[overlap]] = True
    return has
