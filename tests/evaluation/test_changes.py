"""What changed between two models, on hand-made cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cases import cases
from detections import found

from pipeline.evaluation.changes import (
    ALARMS_GONE,
    ALARMS_NEW,
    IMAGES_GAINED,
    IMAGES_LOST,
    OBJECTS_GAINED,
    OBJECTS_LOST,
    Changes,
    find_changes,
)
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth

CAT, DOG = 1, 2
BOX, ASIDE = [20, 20, 100, 100], [200, 100, 50, 50]
BACK = {
    IMAGES_LOST: IMAGES_GAINED,
    OBJECTS_LOST: OBJECTS_GAINED,
    ALARMS_NEW: ALARMS_GONE,
}


def changes(truth: GroundTruth, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Changes:
    return find_changes(truth, evaluate(truth, before), evaluate(truth, after))


RIGHT = [found(1, CAT, BOX, 0.9), found(2, CAT, BOX, 0.8)]
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, list[int]]]] = {
    "nothing": (RIGHT, {}),
    "other scores": ([found(1, CAT, BOX, 0.7), found(2, CAT, BOX, 0.99)], {}),
    "an object lost": (RIGHT[:1], {IMAGES_LOST: [2], OBJECTS_LOST: [2]}),
    "a new false alarm": ([*RIGHT, found(2, CAT, ASIDE, 0.85)], {IMAGES_LOST: [2], ALARMS_NEW: [2]}),
    "another class": ([RIGHT[0], found(2, DOG, BOX)], {IMAGES_LOST: [2], OBJECTS_LOST: [2], ALARMS_NEW: [2]}),
    "on an image without objects": ([*RIGHT, found(3, DOG, ASIDE, 0.9)], {IMAGES_LOST: [3], ALARMS_NEW: [3]}),
    "all lost": ([], {IMAGES_LOST: [1, 2], OBJECTS_LOST: [1, 2]}),
}


@cases("after, expected", CASES)
@pytest.mark.parametrize("is_back", [False, True])
def test_what_is_lost_one_way_is_gained_the_other(
    coco_file: Callable[..., GroundTruth], after: list[dict[str, Any]], expected: dict[str, list[int]], is_back: bool
) -> None:
    truth = coco_file([(1, CAT, BOX), (2, CAT, BOX)], images=3)
    told = changes(truth, after, RIGHT) if is_back else changes(truth, RIGHT, after)
    wanted = {BACK[group]: ids for group, ids in expected.items()} if is_back else expected
    assert {group: [each.image_id for each in each_of] for group, each_of in told.groups.items() if each_of} == wanted


def test_a_false_alarm_is_new_only_where_none_of_its_class_was(coco_file: Callable[..., GroundTruth]) -> None:
    truth = coco_file([(1, CAT, BOX), (2, CAT, BOX)])
    before = [*RIGHT, found(1, DOG, ASIDE, 0.95), found(3, DOG, ASIDE, 0.95)]
    near, far = [205, 100, 50, 50], [235, 100, 50, 50]
    for box, label, is_new in ((near, DOG, False), (far, DOG, True), (near, CAT, True)):
        told = changes(truth, before, [*RIGHT, found(1, label, box, 0.95), found(3, DOG, ASIDE, 0.95)])
        assert (len(told.groups[ALARMS_NEW]), len(told.groups[ALARMS_GONE])) == (is_new, is_new)


def test_a_lost_object_has_the_score_it_had_and_the_reason_of_now(coco_file: Callable[..., GroundTruth]) -> None:
    truth = coco_file([(1, CAT, BOX), (2, CAT, BOX)])
    after = replace(evaluate(truth, [RIGHT[0], found(2, DOG, BOX, 0.7)]), errors_at=0.5)
    told = find_changes(truth, evaluate(truth, RIGHT), after)
    (lost,) = told.groups[OBJECTS_LOST]
    assert (lost.score, lost.kind, lost.found, lost.box) == (0.8, "classification", (True, False), tuple(BOX))
    (new,) = told.groups[ALARMS_NEW]
    assert (new.score, new.kind, new.found) == (0.7, "classification", (None, False))


def test_all_of_it_is_told_as_json(coco_file: Callable[..., GroundTruth]) -> None:
    truth = coco_file([(1, CAT, BOX), (2, CAT, BOX)])
    told = changes(truth, RIGHT, RIGHT[:1]).to_json(truth)
    assert told["images_right_to_wrong"] == ["2.png"]
    assert told["objects_lost"] == [
        {"file_name": "2.png", "class": "cat", "bbox": tuple(map(float, BOX)), "score": 0.8, "kind": "missed"}
        | {"size": "large"}
    ]
    assert told["objects_gained"] == told["false_alarms_new"] == told["images_wrong_to_right"] == []
