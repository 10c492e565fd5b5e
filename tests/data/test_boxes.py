from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.boxes import ellipse_hull, hull, polygon_area, rotated_box
from pipeline.data.parsed import ParsedBox

TRIANGLE = [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0)]
sides = st.floats(0.1, 100)


def test_hull_and_area() -> None:
    assert hull(TRIANGLE) == (0, 0, 10, 10)
    assert polygon_area(TRIANGLE) == polygon_area(TRIANGLE[::-1]) == 50
    assert ParsedBox.around("", TRIANGLE).segmentation == [[0, 0, 10, 0, 0, 10]]


@pytest.mark.parametrize("points", [[], [(0.0, math.nan), (1.0, 1.0)], [(1.0, 1.0), (math.inf, 1.0)]])
def test_what_is_not_finite_is_nowhere(points: list[Any]) -> None:
    assert all(map(math.isnan, hull(points)))


@settings(deadline=None)
@given(width=sides, height=sides, degrees=st.floats(-720, 720))
def test_a_turned_box_keeps_its_centre_and_area(width: Any, height: Any, degrees: Any) -> None:
    corners = rotated_box((5.0, 7.0, width, height), degrees)
    assert np.mean(corners, axis=0) == pytest.approx((5 + width / 2, 7 + height / 2))
    assert polygon_area(corners) == pytest.approx(width * height)


def test_a_box_turns_clockwise_as_seen() -> None:
    assert rotated_box((0.0, 0.0, 20.0, 10.0), 90)[0] == pytest.approx((15, -5)), "the top left becomes the top right"


@settings(deadline=None)
@given(across=sides, down=sides, degrees=st.floats(-720, 720))
def test_an_ellipses_hull_touches_it(across: Any, down: Any, degrees: Any) -> None:
    turn = math.radians(degrees)
    at = np.linspace(0, 2 * math.pi, 20_001)
    x = across * np.cos(at) * math.cos(turn) - down * np.sin(at) * math.sin(turn)
    y = across * np.cos(at) * math.sin(turn) + down * np.sin(at) * math.cos(turn)
    box = ellipse_hull((0.0, 0.0), (across, down), degrees)
    assert box == pytest.approx((x.min(), y.min(), np.ptp(x), np.ptp(y)), rel=1e-4, abs=1e-4)
