"""The worst misses, false alarms and hits: which they are, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import cases
from detections import found

from pipeline.evaluation.examples import (
    BEST_HITS,
    FALSE_ALARMS,
    LOW_SCORE,
    MOST_ERRORS,
    TYPICAL,
    WORST_MISSES,
    Example,
    outcomes,
    select_examples,
)
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.error_kinds import KINDS, MISSED
from pipeline.metrics.ground_truth import GroundTruth

CAT, DOG = 1, 2
BOX = [20, 20, 100, 100]


def group_of(truth: GroundTruth, results: list[dict[str, Any]], group: str, per_class: int = 9) -> list[Example]:
    """The examples of a group where detections count from score 0.5 on."""
    metrics = replace(evaluate(truth, results), errors_at=0.5)
    selection = select_examples(truth, metrics, per_class=per_class)
    return [each for each in selection.examples if each.group == group]


HITS = [found(image, CAT, BOX, 0.9) for image in (2, 3, 4)]
MISSES = {
    "nothing there": ([], MISSED, 0.0),
    "found below the threshold": ([found(1, CAT, BOX, 0.2)], LOW_SCORE, 0.2),
    "wrong class": ([found(1, DOG, BOX, 0.7)], "classification", 0.7),
    "wrong box": ([found(1, CAT, [20, 20, 100, 40], 0.6)], "localisation", 0.6),
    "the best of two errors": ([found(1, DOG, BOX, 0.7), found(1, CAT, [20, 20, 100, 40], 0.6)], "classification", 0.7),
    "found below the threshold beside a wrong class": (
        [found(1, CAT, BOX, 0.2), found(1, DOG, BOX, 0.7)], LOW_SCORE, 0.2,
    ),
}  # fmt: skip


@cases("results, kind, score", MISSES)
def test_a_miss_has_the_detection_that_almost_found_it(
    coco_file: Callable[..., GroundTruth], results: list[dict[str, Any]], kind: str, score: float
) -> None:
    truth = coco_file([(image, CAT, BOX) for image in (1, 2, 3, 4)])
    (miss,) = group_of(truth, [*HITS, *results], WORST_MISSES)
    assert (miss.image_id, miss.labels, miss.box, miss.is_object) == (1, (0,), tuple(BOX), True)
    assert (miss.kind, miss.score, miss.size, miss.found) == (kind, score, "large", (False,))


def test_misses_without_a_detection_come_first_and_of_these_the_largest(
    coco_file: Callable[..., GroundTruth],
) -> None:
    sides = {1: 10, 2: 90, 3: 40, 4: 60}
    truth = coco_file([(image, CAT, [5, 5, side, side]) for image, side in sides.items()])
    results = [found(4, CAT, [5, 5, 60, 30], 0.3), found(1, DOG, [200, 100, 50, 50], 0.9)]
    misses = group_of(truth, results, WORST_MISSES)
    assert [(each.image_id, each.size) for each in misses] == [
        (2, "medium"), (3, "medium"), (1, "small"), (4, "medium"),
    ]  # fmt: skip


FALSE = {
    "localisation": found(1, CAT, [20, 20, 100, 40], 0.8),
    "classification": found(1, DOG, BOX, 0.8),
    "duplicate": found(2, CAT, BOX, 0.8),
    "background": found(1, CAT, [200, 150, 50, 50], 0.8),
    "both": found(1, DOG, [20, 20, 100, 40], 0.8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_false_alarm_has_the_kind_of_its_error(coco_file: Callable[..., GroundTruth], kind: str) -> None:
    truth = coco_file([(image, CAT, BOX) for image in (1, 2, 3, 4)])
    (alarm,) = group_of(truth, [*HITS, FALSE[kind]], FALSE_ALARMS)
    assert (alarm.kind, alarm.score, alarm.found, alarm.is_object) == (kind, 0.8, (False,), False)
    assert alarm.labels == {"classification": (1, 0), "both": (1,)}.get(kind, (0,))  # wrong class: that of the object


def test_the_first_of_every_class_come_before_the_second_of_any(coco_file: Callable[..., GroundTruth]) -> None:
    truth = coco_file([(image, label, BOX) for image in (1, 2, 3) for label in (CAT, DOG)])
    results = [found(image, label, BOX, 0.9 - image / 100) for image in (1, 2, 3) for label in (CAT, DOG)]
    hits = group_of(truth, results, BEST_HITS, per_class=2)
    assert [(each.labels[0], each.image_id) for each in hits] == [(0, 1), (1, 1), (0, 2), (1, 2)]
    selection = select_examples(truth, evaluate(truth, results), per_class=2)
    assert selection.totals == {WORST_MISSES: 0, FALSE_ALARMS: 0, BEST_HITS: 6, MOST_ERRORS: 0, TYPICAL: 3}


def test_images_with_the_most_errors_come_first_and_the_typical_are_others(
    coco_file: Callable[..., GroundTruth],
) -> None:
    truth = coco_file([(image, CAT, BOX) for image in range(1, 13)], images=12)
    results = [found(image, CAT, BOX) for image in range(1, 10)]
    results += [found(9, DOG, [200, 150, place, 20]) for place in (20, 40, 60)]
    worst = group_of(truth, results, MOST_ERRORS)
    assert [(each.image_id, each.labels, each.box) for each in worst] == [
        (9, (0, 1), None), (10, (0,), None), (11, (0,), None), (12, (0,), None),
    ]  # fmt: skip
    typical = group_of(truth, results, TYPICAL)
    assert len(typical) == 3
    assert {each.image_id for each in typical} <= set(range(1, 9))


@pytest.mark.parametrize("seed", range(3))
def test_the_outcomes_are_those_of_the_metrics(
    coco_file: Callable[..., GroundTruth], jittered: Callable[[GroundTruth, int], list[dict[str, Any]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = [
        (int(rng.integers(1, 9)), int(rng.integers(1, 4)), [*rng.integers(0, 150, 2).tolist(), 60, 50])
        for _ in range(60)
    ]
    truth = coco_file(boxes, images=8)
    metrics = evaluate(truth, jittered(truth, seed))
    at = outcomes(truth, metrics)
    assert int(at.found.sum()) == sum(each.true_positives for each in metrics.per_image) == int(at.right.sum())
    assert int(at.false.sum()) == sum(each.false_positives for each in metrics.per_image)
    assert {kind == "" for kind in at.object_kind[~at.found].tolist()} <= {False}  # each miss has a reason
    assert set(at.object_kind[at.found].tolist()) == {""}
    missed = (at.object_kind == MISSED).sum()
    assert missed == metrics.error_kinds.counts[MISSED]
