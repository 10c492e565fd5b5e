"""Tiles cover an image with the overlap that is asked for, and hold what is no larger than it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.serving.tiling import Tile, Tiling

CUTS: dict[str, Any] = {
    "whole images": (Tiling(0, 0.2), 5000, 5000, []),
    "as large as a tile": (Tiling(640, 0.2), 640, 640, []),
    "smaller": (Tiling(640, 0.2), 300, 200, []),
    "a pixel wider": (Tiling(640, 0.2), 641, 640, [(0, 0, 640, 640), (1, 0, 641, 640)]),
    "lower than a tile": (Tiling(100, 0.0), 200, 60, [(0, 0, 100, 60), (100, 0, 200, 60)]),
    "evenly spaced": (Tiling(100, 0.2), 60, 250, [(0, 0, 60, 100), (0, 75, 60, 175), (0, 150, 60, 250)]),
    "by rows": (
        Tiling(100, 0.5),
        150,
        150,
        [(0, 0, 100, 100), (50, 0, 150, 100), (0, 50, 100, 150), (50, 50, 150, 150)],
    ),
}


@cases("tiling, width, height, expected", CUTS)
def test_where_the_tiles_are(tiling: Tiling, width: int, height: int, expected: list[Any]) -> None:
    assert [tile.corners for tile in tiling.tiles(width, height)] == expected


WRONG: dict[str, Any] = {
    "a tile smaller than any input": (31, 0.2, "tile is 31"),
    "below 0": (-1, 0.2, "tile is -1"),
    "more than half": (640, 0.51, "overlap is 0.51"),
    "less than nothing": (0, -0.1, "overlap is -0.1"),
}


@cases("size, overlap, message", WRONG)
def test_what_is_not_possible(size: int, overlap: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tiling(size, overlap)


@st.composite
def tilings_and_images(draw: st.DrawFn) -> tuple[Tiling, int, int]:
    tiling = Tiling(draw(st.integers(32, 100)), draw(st.floats(0, 0.5)))
    return tiling, draw(st.integers(1, 600)), draw(st.integers(1, 600))


@given(tilings_and_images(), st.data())
@settings(max_examples=200, deadline=None)
def test_every_pixel_and_every_small_box_is_in_a_tile(case: tuple[Tiling, int, int], data: st.DataObject) -> None:
    tiling, width, height = case
    tiles = tiling.tiles(width, height) or (Tile(0, 0, width, height),)
    assert all(0 <= each.left < each.right <= width and 0 <= each.top < each.bottom <= height for each in tiles)
    assert all(max(each.right - each.left, each.bottom - each.top) <= max(tiling.size, 1) for each in tiles)
    sides = [data.draw(st.integers(1, max(1, min(tiling.shared, length)))) for length in (width, height)]
    left, top = (data.draw(st.integers(0, length - side)) for length, side in zip((width, height), sides, strict=True))
    box = np.array([[left, top, left + sides[0], top + sides[1]]], float)
    holding = [
        each
        for each in tiles
        if each.left <= box[0, 0] and each.top <= box[0, 1] and box[0, 2] <= each.right and box[0, 3] <= each.bottom
    ]
    if tiling.is_within_a_tile(box, width, height).all():
        assert holding
    if sides == [1, 1]:
        assert holding
