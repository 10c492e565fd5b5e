"""The recommended threshold: what it is worth, and the range that holds the best one for all images of a kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from detections import found

from pipeline.metrics.detection_metrics import LEVELS, evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.resampling import draw_weights
from pipeline.metrics.thresholds import advise_threshold, f1_of_draws

BOX, FAR = [10, 10, 40, 40], [60, 0, 20, 20]


def test_f1_of_a_draw_is_that_of_its_images_repeated(real_truth: GroundTruth, jittered: Callable) -> None:
    metrics = evaluate(real_truth, jittered(real_truth, 7))
    weights = draw_weights(metrics.images, 3)
    f1 = f1_of_draws(metrics, weights)
    assert f1[0] == pytest.approx(np.nanmean(metrics.f1_by_score, axis=0), abs=1e-12)
    times = dict(zip(sorted(each.id for each in real_truth.images), weights[:, 1].tolist(), strict=True))
    matches, level = metrics.matches, LEVELS[40]
    by_class = []
    for label in range(len(metrics.classes)):
        objects = sum(times[image] for image in matches.truth_image_ids[matches.truth_labels == label].tolist())
        rows = np.flatnonzero((matches.labels == label) & (matches.scores >= level))
        kept = sum(times[matches.image_ids[row]] for row in rows)
        right = sum(times[matches.image_ids[row]] for row in rows if matches.truth[row] >= 0)
        by_class += [2 * right / (kept + objects)] if objects else []
    assert f1[1, 40] == pytest.approx(np.mean(by_class), abs=1e-12)


def test_what_each_threshold_is_worth(coco_file: Callable) -> None:
    """Right from 0.6 on for the first class and from 0.3 on for the second; what is wrong has 0.5 and 0.2."""
    truth = coco_file([(number, label, BOX) for number in range(1, 9) for label in (1, 2)], images=8)
    results = [found(number, label, BOX, {1: 0.62, 2: 0.32}[label]) for number in range(1, 9) for label in (1, 2)]
    results += [found(number, label, FAR, {1: 0.52, 2: 0.22}[label]) for number in range(1, 9) for label in (1, 2)]
    advice = advise_threshold(evaluate(truth, results), 0.1, draws=50)
    assert advice is not None
    assert 0.22 < advice.threshold <= 0.32
    assert advice.f1 == pytest.approx((2 / 3 + 1) / 2)
    assert advice.low == advice.high == advice.threshold  # all images are the same
    assert (advice.current, advice.current_f1) == (0.1, pytest.approx(2 / 3))
    assert advice.own_f1 == pytest.approx(1.0)


def test_few_images_have_no_range_and_nothing_right_no_advice(coco_file: Callable) -> None:
    truth = coco_file([(number, 1, BOX) for number in range(1, 5)])
    advice = advise_threshold(evaluate(truth, [found(1, 1, BOX)]), 0.3)
    assert advice is not None
    assert (advice.low, advice.high) == (None, None)
    assert advise_threshold(evaluate(truth, [found(1, 1, FAR)]), 0.3) is None
    assert advise_threshold(evaluate(coco_file([]), []), 0.3) is None


def draw_images(rng: np.random.Generator, images: int) -> tuple[list, list]:
    """Images that differ in how hard they are: right detections have higher scores than wrong ones, more or less."""
    truth, results = [], []
    for image in range(1, images + 1):
        for number in range(rng.poisson(3)):
            box = [10 + 60 * number, 10, 50, 50]
            truth.append((image, 1, box))
            results.append(found(image, 1, box, float(rng.beta(5, 3))))
            if rng.random() < 0.7:
                results.append(found(image, 1, [box[0], 100, 50, 50], float(rng.beta(3, 5))))
    return truth, results


def test_the_range_holds_the_best_threshold_in_95_of_100_cases(coco_file: Callable) -> None:
    truth, results = draw_images(np.random.default_rng(10**6), 5000)
    best = evaluate(coco_file(truth, images=5000), results).threshold
    held = []
    for seed in range(100):
        truth, results = draw_images(np.random.default_rng(seed), 40)
        advice = advise_threshold(evaluate(coco_file(truth, images=40), results), 0.3, draws=100)
        held.append(advice.low - 0.005 <= best <= advice.high + 0.005)
    assert 88 <= sum(held) <= 100
