"""Scores against precision, worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from detections import found

from pipeline.metrics.detection_metrics import evaluate

BOX, FAR = [10, 10, 40, 40], [200, 100, 40, 40]


def test_the_error_is_the_distance_of_score_and_precision(coco_file: Callable) -> None:
    truth = coco_file([(1, 1, BOX), (2, 1, BOX), (3, 1, BOX)])
    results = [found(1, 1, BOX, 0.95), found(2, 1, BOX, 0.91), found(3, 1, BOX, 0.3), found(4, 1, FAR, 0.32)]
    calibrated = evaluate(truth, results).calibration
    bins = [each for each in calibrated.bins if each.detections]
    filled = {each.low: (each.detections, each.score, each.precision) for each in bins}
    assert filled == {0.9: (2, pytest.approx(0.93), 1.0), 0.3: (2, pytest.approx(0.31), 0.5)}
    assert calibrated.error == pytest.approx((2 * 0.07 + 2 * 0.19) / 4)


def test_a_score_of_one_is_in_the_last_bin(coco_file: Callable) -> None:
    bins = evaluate(coco_file([(1, 1, BOX)]), [found(1, 1, BOX, 1.0), found(2, 1, BOX, 0.0)]).calibration.bins
    assert [each.detections for each in bins] == [1, *[0] * 8, 1]
    assert bins[9].precision == 1.0
