"""What is found in the whole image and in tiles becomes the detections of the image, each object once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import MAX_DETECTIONS, Detections
from pipeline.serving.preprocessing import Letterboxed, letterbox
from pipeline.serving.tiled_detection import detect_in_image, merge, predict_image
from pipeline.serving.tiling import Tile

SIZE = (100, 100)
METADATA = ModelMetadata("nano", SIZE, ("disc", "block"), tile=100, overlap=0.2)
WHOLE, LEFT, RIGHT = Tile(0, 0, 180, 100), Tile(0, 0, 100, 100), Tile(80, 0, 180, 100)
Row = Sequence[float]  # x1, y1, x2, y2 in pixels of the image, the score, and perhaps the class


def found(tile: Tile, *rows: Row) -> tuple[Tile, Detections]:
    """Detections in a view, given in pixels of the image."""
    values = np.array([[*row, 0][:6] for row in rows], np.float32).reshape(-1, 6)
    boxes = values[:, :4] - np.array([tile.left, tile.top] * 2, np.float32)
    order = np.argsort(-values[:, 4], kind="stable")
    size = tile.right - tile.left, tile.bottom - tile.top
    return tile, Detections(boxes[order], values[order, 4], values[order, 5].astype(np.int64), *size)


MERGED: dict[str, Any] = {
    "one object in two tiles": ([[82, 40, 98, 56, 0.7]], [[83, 40, 99, 56, 0.8]], [], [0.8]),
    "a part in one tile, the whole in the other": ([[88, 40, 100, 60, 0.9]], [[88, 40, 118, 60, 0.4]], [], [0.4]),
    "of another class": ([[88, 40, 100, 60, 0.9, 1]], [[88, 40, 118, 60, 0.4]], [], [0.9, 0.4]),
    "a part in each tile, the whole in the image": (
        [[20, 10, 100, 90, 0.9]],
        [[80, 10, 170, 90, 0.8]],
        [[20, 10, 170, 90, 0.3]],
        [0.3],
    ),
    "a part in each tile, and nothing whole": (
        [[20, 10, 100, 90, 0.9]],
        [[80, 10, 170, 90, 0.8]],
        [],
        [0.9, 0.8],
    ),
    "the end of an object that is cut in both": (
        [[70, 10, 100, 90, 0.8]],
        [[80, 10, 170, 90, 0.9]],
        [],
        [0.9],
    ),
    "a small object before a large one": ([[40, 40, 52, 52, 0.9]], [], [[10, 10, 90, 90, 0.5]], [0.9, 0.5]),
    "two near each other in one tile": ([[40, 40, 52, 52, 0.9], [44, 40, 56, 52, 0.8]], [], [], [0.9, 0.8]),
    "at the border of the image": ([[0, 0, 30, 30, 0.9]], [], [[0, 0, 60, 31, 0.8]], [0.9, 0.8]),
    "nothing": ([], [], [], []),
}


@cases("left, right, whole, scores", MERGED)
def test_what_is_kept(left: list[Row], right: list[Row], whole: list[Row], scores: list[float]) -> None:
    merged = merge([found(WHOLE, *whole), found(LEFT, *left), found(RIGHT, *right)], SIZE)
    assert merged.scores.tolist() == pytest.approx(scores)
    assert (merged.width, merged.height) == (180, 100)
    given_rows = {(*row[:4],) for row in (*left, *right, *whole)}
    assert {tuple(map(int, box)) for box in merged.boxes.tolist()} <= given_rows, "in pixels of the image"


def test_no_more_than_the_limit_and_a_cut_one_among_them() -> None:
    """Many uncertain boxes that are whole leave room for a certain one that is cut."""
    many = [[x, 10 * y, x + 5, 10 * y + 5, 0.1] for y in range(10) for x in range(70)]
    merged = merge([found(WHOLE), found(LEFT, *many), found(RIGHT, [80, 10, 110, 90, 0.9])], SIZE)
    assert len(merged.scores) == MAX_DETECTIONS
    assert merged.scores[0] == pytest.approx(0.9)


BOXES = st.tuples(st.integers(0, 179), st.integers(0, 99), st.integers(1, 100), st.integers(1, 100), st.floats(0.01, 1))


@given(st.lists(BOXES, max_size=12), st.randoms())
@settings(max_examples=60, deadline=None)
def test_one_view_alone_stays_as_it_is_and_the_order_does_not_matter(boxes: Any, random: Any) -> None:
    rows = [[x, y, min(180, x + w), min(100, y + h), score] for x, y, w, h, score in boxes]
    whole = found(WHOLE, *rows)
    alone = merge([whole], SIZE)
    assert sorted(alone.scores.tolist()) == sorted(whole[1].scores.tolist())
    twice = merge([whole, found(LEFT), found(RIGHT)], SIZE)
    random.shuffle(rows)
    for other in (twice, merge([found(WHOLE, *rows)], SIZE)):
        np.testing.assert_array_equal(other.boxes, alone.boxes)


def bright_boxes(view: Letterboxed) -> Detections:
    """A detector that finds white rectangles to the pixel, and nothing where they are smaller than in the image."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((view.pixels[0] == 255).astype(np.uint8))
    rows = stats[1 : count if view.scale_x == 1 else 1, :4].astype(np.float32)
    boxes = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:]])
    scores, labels = np.full(len(boxes), 0.5, np.float32), np.zeros(len(boxes), np.int64)
    return Detections(boxes, scores, labels, view.width, view.height)


@given(st.integers(101, 400), st.integers(40, 400), st.data())
@settings(max_examples=40, deadline=None)
def test_every_object_no_larger_than_the_overlap_is_found_once_and_exactly(
    width: int, height: int, data: st.DataObject
) -> None:
    image = np.full((height, width, 3), 60, np.uint8)
    expected = []
    for column in range(0, width - 30, 31):  # apart from each other
        side = data.draw(st.integers(3, 20))
        left, top = column + data.draw(st.integers(0, 9)), data.draw(st.integers(0, height - side))
        image[top : top + side, left : left + side] = 255
        expected.append((left, top, left + side, top + side))
    merged = detect_in_image(image, METADATA, bright_boxes)
    assert sorted(map(tuple, merged.boxes.tolist())) == sorted(expected)
    with ThreadPoolExecutor(3) as threads:
        again = detect_in_image(image, METADATA, bright_boxes, spread=threads.map)
    np.testing.assert_array_equal(again.boxes, merged.boxes)


def test_an_image_no_larger_than_a_tile_gives_what_it_gives_without_tiles(tiny: Any, picture: Any) -> None:
    image = picture(200, 120)
    (expected,) = tiny.predictor.detect([letterbox(image, tiny.metadata.image_size)])
    for tile, count in ((0, 1), (200, 1), (150, 2)):
        merged = predict_image(tiny.predictor, image, replace(tiny.metadata, tile=tile))
        if count == 1:
            np.testing.assert_array_equal(merged.boxes, expected.boxes)
            np.testing.assert_array_equal(merged.scores, expected.scores)
        else:
            assert len(merged.scores) > 1, "a box of each tile"
