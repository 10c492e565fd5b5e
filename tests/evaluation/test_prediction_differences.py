"""Two sets of predictions for one test set, and how far they are apart."""

from __future__ import annotations

import random
from typing import Any

import pytest
from cases import cases
from detections import found
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.prediction_differences import PredictionDifferences, compare_predictions

BOX = [10, 10, 20, 20]
ONE = found(1, 1, BOX, 0.9)


@cases(
    "before, after, images, unmatched, pixels, score",
    {
        "nothing": ([], [], 0, 0, 0.0, 0.0),
        "the same": ([ONE], [ONE], 0, 0, 0.0, 0.0),
        "moved": ([ONE], [found(1, 1, [10.5, 10, 20, 20], 0.9)], 1, 0, 0.5, 0.0),
        "wider": ([ONE], [found(1, 1, [10, 10, 22, 20], 0.9)], 1, 0, 2.0, 0.0),
        "another score": ([ONE], [found(1, 1, BOX, 0.7)], 1, 0, 0.0, 0.2),
        "another class": ([ONE], [found(1, 2, BOX, 0.9)], 1, 2, 0.0, 0.0),
        "another image": ([ONE], [found(2, 1, BOX, 0.9)], 2, 2, 0.0, 0.0),
        "far away": ([ONE], [found(1, 1, [21, 10, 20, 20], 0.9)], 1, 2, 0.0, 0.0),
        "one more": ([ONE], [ONE, found(1, 1, [60, 60, 9, 9], 0.2)], 1, 1, 0.0, 0.0),
        # the better pair of each would leave 0.6 of overlap unused, or pair both with the same box
        "two that overlap": (
            [found(1, 1, [0, 0, 10, 10], 0.9), found(1, 1, [2, 0, 10, 10], 0.8)],
            [found(1, 1, [1, 0, 10, 10], 0.9), found(1, 1, [3, 0, 10, 10], 0.8)],
            1,
            0,
            1.0,
            0.0,
        ),
    },
)
def test_differences_are_told(
    before: list[Any], after: list[Any], images: int, unmatched: int, pixels: float, score: float
) -> None:
    expected = PredictionDifferences(
        len(before), len(after), images, unmatched, pytest.approx(pixels), pytest.approx(score)
    )
    assert compare_predictions(before, after) == expected


detections = st.lists(
    st.builds(
        found,
        st.integers(1, 3),
        st.integers(1, 2),
        st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2).map(list),
        st.integers(1, 9).map(lambda tenths: tenths / 10),
    ),
    max_size=12,
)


@given(detections, detections, st.randoms())
def test_neither_the_order_nor_the_side_matters(before: list[Any], after: list[Any], chance: random.Random) -> None:
    told = compare_predictions(before, after)
    other = compare_predictions(chance.sample(after, len(after)), chance.sample(before, len(before)))
    assert (told.images, told.before, told.after) == (other.images, other.after, other.before)
    assert told.unmatched >= abs(len(before) - len(after))
    assert compare_predictions(before, chance.sample(before, len(before))).images == 0
