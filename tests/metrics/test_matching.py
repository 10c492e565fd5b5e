"""Thresholds and operating points against an exhaustive search over all thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics.detection_metrics import LEVELS, best_threshold, curves_by_score, point_at
from pipeline.metrics.matching import Matches


def one_class(scores_and_hits: list[tuple[float, bool]], missed: int = 0) -> Matches:
    """Matches of a single class: detections that are right or wrong, and objects that nothing found."""
    rows = sorted(scores_and_hits, key=lambda row: -row[0])
    hits = np.array([hit for _, hit in rows], bool)
    objects = int(hits.sum()) + missed
    truth = np.where(hits, np.cumsum(hits) - 1, -1)
    zeros = np.zeros(len(rows), np.int64)
    return Matches(
        image_ids=zeros,
        labels=zeros,
        scores=np.array([score for score, _ in rows], float),
        boxes=np.zeros((len(rows), 4)),
        truth=truth,
        truth_image_ids=np.zeros(objects, np.int64),
        truth_labels=np.zeros(objects, np.int64),
        truth_boxes=np.zeros((objects, 4)),
    )


rows = st.lists(st.tuples(st.integers(0, 20).map(lambda n: n / 20), st.booleans()), max_size=30)


@given(rows=rows, missed=st.integers(0, 5))
def test_no_threshold_is_better_than_the_best(rows: list[tuple[float, bool]], missed: int) -> None:
    matches = one_class(rows, missed)
    threshold, f1 = best_threshold(curves_by_score(matches, 1).f1)
    if any(hit for _, hit in rows):
        best = point_at(matches, 0, threshold)
        assert best.f1 == pytest.approx(f1)
        assert best.f1 == pytest.approx(max(point_at(matches, 0, score).f1 for score in matches.scores))
        assert best.f1 == pytest.approx(2 * best.precision * best.recall / (best.precision + best.recall))
    else:
        assert threshold is None


@given(rows=rows, missed=st.integers(0, 5))
def test_the_curve_is_the_points(rows: list[tuple[float, bool]], missed: int) -> None:
    matches = one_class(rows, missed)
    curve = curves_by_score(matches, 1).f1[0]
    for level in (0, 1, 33, 50, 77, 100):
        assert point_at(matches, 0, LEVELS[level]).f1 == (
            pytest.approx(curve[level]) if not np.isnan(curve[level]) else None
        )


@pytest.mark.parametrize(
    ("rows", "missed", "expected"),
    [
        pytest.param([(0.8, True)], 0, (0.4, 1.0), id="amid the plateau from 0 to 0.8"),
        pytest.param([(0.8, True), (0.3, False)], 1, (0.56, 2 / 3), id="amid the plateau from 0.31 to 0.8"),
        pytest.param([(0.8, False)], 1, (None, 0.0), id="nothing right"),
        pytest.param([], 1, (None, 0.0), id="nothing found"),
        pytest.param([(0.8, False)], 0, (None, None), id="no object"),
        pytest.param([], 0, (None, None), id="nothing at all"),
    ],
)
def test_a_threshold_is_recommended_where_something_right_is_found(rows: list, missed: int, expected: tuple) -> None:
    assert best_threshold(curves_by_score(one_class(rows, missed), 1).f1) == pytest.approx(expected)
