"""Flat graph outputs to per-image detections in original pixels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.serving.postprocessing import MAX_DETECTIONS, split_detections
from pipeline.serving.preprocessing import letterbox


def image(height: Any = 120, width: Any = 200, size: Any = (96, 96)) -> Any:
    return letterbox(np.zeros((height, width, 3), np.uint8), size)


def split(rows: Any, images: Any, score_threshold: Any = 0.0, **options: Any) -> Any:
    """Rows of (batch index, x1, y1, x2, y2, score, label)."""
    rows = np.array(rows, np.float64).reshape(-1, 7)
    return split_detections(
        rows[:, 0].astype(np.int64),
        rows[:, 1:5].astype(np.float32),
        rows[:, 5].astype(np.float32),
        rows[:, 6].astype(np.int64),
        images,
        score_threshold=score_threshold,
        **options,
    )


def test_boxes_are_scaled_back_per_axis() -> None:
    boxed = image(height=101, width=157)  # 96 x int(61.76 + 0.5) = 96 x 62
    (found,) = split([[0, 48, 31, 96, 62, 0.5, 1]], [boxed])
    np.testing.assert_allclose(found.boxes, [[157 / 2, 101 / 2, 157, 101]], rtol=1e-6)
    assert (found.width, found.height) == (157, 101)


def test_boxes_are_clipped_and_those_in_the_padding_dropped() -> None:
    rows = [
        [0, -10, -10, 50, 30, 0.9, 0],
        [0, 40, 40, 120, 90, 0.8, 0],
        [0, 10, 70, 20, 90, 0.7, 0],  # the image ends at row 58
        [0, 30, 30, 30, 40, 0.6, 0],  # no width
    ]
    (found,) = split(rows, [image()])
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.boxes.min() == 0
    assert found.boxes[1, 2:].tolist() == [200, 120]


def test_each_image_gets_its_own_in_order_of_score() -> None:
    rows = [[1, 0, 0, 9, 9, 0.2, 0], [0, 0, 0, 9, 9, 0.3, 1], [1, 0, 0, 8, 8, 0.7, 1], [1, 0, 0, 7, 7, 0.5, 0]]
    first, second, third = split(rows, [image(), image(), image()])
    assert first.labels.tolist() == [1]
    assert second.scores.tolist() == pytest.approx([0.7, 0.5, 0.2])
    assert second.labels.tolist() == [1, 0, 0]
    assert len(third) == 0
    assert third.boxes.shape == (0, 4)


@given(st.permutations(range(6)))
@settings(max_examples=40, deadline=None)
def test_the_graphs_order_does_not_matter(order: Any) -> None:
    rows = [[0, 1 + i // 2, 0, 9 + i % 2, 9, 0.5, i % 3] for i in range(6)]
    (expected,) = split(rows, [image()])
    (found,) = split([rows[i] for i in order], [image()])
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_threshold_and_limit_keep_the_best() -> None:
    rows = [[0, 0, 0, 9, 9, i / 1000, 0] for i in range(1000)]
    (found,) = split(rows, [image()], score_threshold=0.5)
    assert len(found) == MAX_DETECTIONS
    assert found.scores[0] == pytest.approx(0.999)
    (found,) = split(rows, [image()], score_threshold=0.99)
    assert len(found) == 10
    assert len(found.above(0.995)) == 5
    (found,) = split(rows, [image()], max_detections=3)
    assert len(found) == 3


def test_numbers_that_are_none_are_left_out() -> None:
    rows = [[0, np.nan, 0, 9, 9, 0.9, 0], [0, 0, 0, 9, 9, np.nan, 0], [0, 0, 0, np.inf, 9, 0.8, 0]]
    (found,) = split(rows, [image()])
    assert found.boxes[:, 2].tolist() == [200]


def test_no_detection_at_all() -> None:
    (found,) = split([], [image()])
    assert found.to_json(["a"]) == {"width": 200, "height": 120, "detections": []}


def test_json_form() -> None:
    (found,) = split([[0, 12, 12, 48, 24, 0.123456789, 1]], [image()])
    assert json.loads(json.dumps(found.to_json(["a", "b"]))) == {
        "width": 200,
        "height": 120,
        "detections": [{"box": [25.0, 24.828, 100.0, 49.655], "score": 0.123457, "label": "b", "class_id": 1}],
    }
