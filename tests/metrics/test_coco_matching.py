"""The matching and the precision made of it, bit for bit as pycocotools has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coco_reference import coco_eval
from detections import found, matches_of
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metrics.average_precision import average_precision, coco_figures
from pipeline.metrics.coco_matching import FoundBoxes, TruthBoxes, match_boxes, sizes_of
from pipeline.metrics.ground_truth import GroundTruth


def assert_same(truth: GroundTruth, results: list[dict[str, Any]]) -> None:
    expected = coco_eval(truth, results).eval
    ours = average_precision(matches_of(truth, results))
    of_all = average_precision(match_boxes(TruthBoxes.of(truth), FoundBoxes.of(results), sizes=1))
    assert np.array_equal(of_all.precision, ours.precision[..., :1], equal_nan=True)
    assert np.array_equal(of_all.recall, ours.recall[:, :, :1], equal_nan=True)
    assert coco_figures(of_all).items() <= coco_figures(ours).items()
    assert np.array_equal(np.nan_to_num(ours.precision, nan=-1), expected["precision"][..., -1])
    assert np.array_equal(np.nan_to_num(ours.recall, nan=-1), expected["recall"])


# of few values, so that areas lie on the limits of the sizes, and scores and overlaps are often equal
sides = st.sampled_from([8, 16, 24, 32, 64, 96, 128])
boxes = st.tuples(st.integers(0, 12).map(lambda n: 8 * n), st.integers(0, 12).map(lambda n: 8 * n), sides, sides)
extras = st.fixed_dictionaries({"iscrowd": st.sampled_from([0, 0, 0, 1])}, optional={"area": st.integers(1, 20_000)})
truths = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), boxes, extras), min_size=1, max_size=15)
scores = st.integers(0, 5).map(lambda fifths: fifths / 5)
predictions = st.lists(st.builds(found, st.integers(1, 3), st.integers(1, 2), boxes, scores), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None)
@given(truth=truths, results=predictions)
def test_every_value_is_that_of_pycocotools(coco_file: Callable, truth: list, results: list) -> None:
    results = results + [found(image, label, box, 0.5) for image, label, box, _ in truth[::2]]
    assert_same(coco_file(truth), results)


def test_every_value_on_real_annotations_is_that_of_pycocotools(real_truth: GroundTruth, jittered: Callable) -> None:
    assert_same(real_truth, jittered(real_truth, 1))


def test_a_crowded_image_is_matched_as_by_pycocotools(coco_file: Callable) -> None:
    """More objects than fit into one part of the work, and more detections than count."""
    rng = np.random.default_rng(0)
    places = rng.integers(0, 250, (700, 2)).tolist()
    truth = [(1 + number % 2, 1, [x, y, 24, 24]) for number, (x, y) in enumerate(places)]
    moved = rng.integers(-8, 9, (700, 2))
    results = [
        found(image, 1, [box[0] + x, box[1] + y, 24, 24], round(float(rng.random()), 2))
        for (image, _, box), (x, y) in zip(truth, moved, strict=True)
    ]
    assert_same(coco_file(truth), results)


def test_detections_are_in_order_of_class_and_score(real_truth: GroundTruth, jittered: Callable) -> None:
    results = jittered(real_truth, 2)
    matches = matches_of(real_truth, results)
    order = list(zip(matches.label.tolist(), (-matches.score).tolist(), strict=True))
    assert order == sorted(order)
    assert matches.score.tolist() == [results[row]["score"] for row in matches.detection.tolist()]
    assert [matches.of_class(label).stop for label in range(matches.classes)][-1] == len(results)
    hit = matches.truth[:, 0, 0] >= 0
    assert (matches.truth_label[matches.truth[hit, 0, 0]] == matches.label[hit]).all()


@pytest.mark.parametrize("area", [1, 1023, 1024, 1025, 9215, 9216, 9217, 1e6])
def test_an_area_has_the_first_size_that_counts_it(coco_file: Callable, area: float) -> None:
    truth = coco_file([(1, 1, [0, 0, 10, 10], {"area": area})])
    counted = ~matches_of(truth, []).truth_ignored[0, 1:]
    assert sizes_of(np.array([area]))[0] == 1 + int(counted.argmax())


@pytest.mark.parametrize("count", [0, 3])
def test_detections_image_by_image_are_those_of_the_records(count: int) -> None:
    """Widths are differences of doubles: rounded to single precision they would be others."""
    rng = np.random.default_rng(0)
    images = [
        (
            image,
            rng.uniform((0, 0, 1, 1), (1, 1, 2, 2), (detections, 4)).astype(np.float32),
            rng.random(detections, np.float32),
            rng.integers(1, 9, detections),
        )
        for image, detections in ((7, 4), (3, 0), (5, 2))[:count]
    ]
    records = [
        found(image, label, [x1, y1, x2 - x1, y2 - y1], score)
        for image, corners, scores, labels in images
        for (x1, y1, x2, y2), score, label in zip(corners.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]
    ours, expected = vars(FoundBoxes.of_images(images)), vars(FoundBoxes.of(records))
    for name, array in expected.items():
        assert (ours[name].dtype, ours[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(ours[name], array), name
