"""The kinds of errors: a case of each by hand, and TIDE's own package at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import cases
from detections import found
from tidecv import Data
from tidecv.quantify import TIDERun

from pipeline.metrics import average_precision
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.error_kinds import KINDS, MISSED, ErrorKinds, find_error_kinds
from pipeline.metrics.ground_truth import GroundTruth

BOX, FAR = [10, 10, 40, 40], [200, 100, 40, 40]
BESIDE = [30, 10, 40, 40]  # IoU 1/3 with BOX
NAMES = {"Loc": "localisation", "Cls": "classification", "Dupe": "duplicate", "Bkg": "background", "Both": "both"}
NAMES |= {"Miss": MISSED}


def kinds_of(truth: GroundTruth, results: list[dict[str, Any]]) -> ErrorKinds:
    return find_error_kinds(evaluate(truth, results).matches, len(truth.categories))


@cases(
    "truth, results, counts, costs",
    {
        "nothing wrong": ([(1, 1, BOX)], [found(1, 1, BOX, 0.9)], {}, {}),
        "a box that is off": ([(1, 1, BOX)], [found(1, 1, BESIDE, 0.9)], {"localisation": 1}, {"localisation": 1.0}),
        "a wrong class": ([(1, 1, BOX)], [found(1, 2, BOX, 0.9)], {"classification": 1}, {"classification": 1.0}),
        "both": (
            [(1, 1, BOX), (2, 1, BOX)],
            [found(1, 2, BESIDE, 0.9), found(2, 1, BOX, 0.8)],
            {"both": 1, MISSED: 1},
            {MISSED: 1 - 51 / 101},
        ),
        "a second detection of an object": (
            [(1, 1, BOX), (2, 1, BOX)],
            [found(1, 1, BOX, 0.9), found(1, 1, [12, 10, 40, 40], 0.8), found(2, 1, BOX, 0.7)],
            {"duplicate": 1},
            {"duplicate": 1 - (51 + 50 * 2 / 3) / 101},
        ),
        "nothing there": (
            [(1, 1, BOX)],
            [found(1, 1, FAR, 0.9), found(1, 1, BOX, 0.8)],
            {"background": 1},
            {"background": 0.5},
        ),
        "nothing there, in an image without objects": (
            [(1, 1, BOX)],
            [found(2, 1, FAR, 0.2)],
            {"background": 1, MISSED: 1},
            {},
        ),
        "a missed object": (
            [(1, 1, BOX), (1, 1, FAR)],
            [found(1, 1, BOX, 0.9)],
            {MISSED: 1},
            {MISSED: 50 / 101},
        ),
        "of two boxes that are off, the more certain is corrected": (
            [(1, 1, BOX)],
            [found(1, 1, BESIDE, 0.9), found(1, 1, [10, 30, 40, 40], 0.8)],
            {"localisation": 2},
            {"localisation": 1.0},
        ),
        "in a crowd region": (
            [(1, 1, BOX), (1, 1, FAR, {"iscrowd": 1})],
            [found(1, 1, FAR, 0.9)],
            {MISSED: 1},
            {},
        ),
        "no object": ([], [found(1, 1, BOX, 0.9)], {"background": 1}, dict.fromkeys((*KINDS, MISSED))),
    },
)
def test_by_hand(coco_file: Callable, truth: list, results: list, counts: dict, costs: dict) -> None:
    kinds = kinds_of(coco_file(truth), results)
    assert {name: count for name, count in kinds.counts.items() if count} == counts
    assert {name: cost for name, cost in kinds.costs.items() if cost != 0} == pytest.approx(costs)
    assert kinds.missed.sum() == counts.get(MISSED, 0)


def test_each_error_has_its_kind(real_truth: GroundTruth, jittered: Callable) -> None:
    metrics = evaluate(real_truth, jittered(real_truth, 0))
    kinds = find_error_kinds(metrics.matches, len(metrics.classes))
    assert ((kinds.kind < 0) == (metrics.matches.truth >= 0)).all()
    assert [int((kinds.kind == number).sum()) for number in range(5)] == [kinds.counts[name] for name in KINDS]
    found_objects = metrics.matches.truth[metrics.matches.truth >= 0]
    assert not kinds.missed[found_objects].any()


@pytest.mark.parametrize("seed", range(5))
def test_counts_and_costs_are_those_of_tide(
    coco_file: Callable, jittered: Callable, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    truth = coco_file(
        [
            (
                image,
                int(rng.integers(1, 4)),
                [float(value) for value in (*rng.uniform(0, 200, 2), *rng.uniform(20, 90, 2))],
            )
            for image in range(1, 31)
            for _ in range(int(rng.integers(0, 9)))
        ],
        images=30,
    )
    results = [{**each, "score": float(rng.random())} for each in jittered(truth, seed) + jittered(truth, seed + 100)]
    annotated, detected = Data("truth"), Data("results")
    for id_, name in truth.categories.items():
        annotated.add_class(id_, name)
        detected.add_class(id_, name)
    for image in truth.images:
        annotated.add_image(image.id, image.file_name)
    for each in truth.annotations:
        annotated.add_ground_truth(each.image_id, each.category_id, list(each.bbox))
    for each in results:
        detected.add_detection(each["image_id"], each["category_id"], each["score"], each["bbox"])
    run = TIDERun(annotated, detected, 0.5, 0.1, "bbox", 100)
    # TIDE's recalls are n / 100, COCO's n times 0.01: a recall of 57 / 100 is below the second
    monkeypatch.setattr(average_precision, "RECALLS", np.arange(101) / 100)
    kinds = kinds_of(truth, results)
    assert kinds.counts == {NAMES[kind.short_name]: count for kind, count in run.count_errors().items()}
    costs = {NAMES[kind.short_name]: gain / 100 for kind, gain in run.fix_main_errors().items()}
    assert kinds.costs == pytest.approx(costs, abs=1e-12)
    assert sum(cost > 0.001 for cost in costs.values()) >= 4
