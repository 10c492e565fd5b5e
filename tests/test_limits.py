"""One comparison of a figure with its limits."""

from __future__ import annotations

import pytest

from pipeline.limits import is_within, verdicts

CASES: dict[str, tuple[float | None, float | None, float | None, bool]] = {
    "no limit": (0.5, None, None, True),
    "at the minimum": (0.5, 0.5, None, True),
    "below the minimum by rounding": (0.49999999999999994, 0.5, None, True),
    "below the minimum": (0.4999, 0.5, None, False),
    "above the maximum by rounding": (0.1 + 0.2, None, 0.3, True),
    "above the maximum": (0.3001, None, 0.3, False),
    "between both": (0.5, 0.4, 0.6, True),
    "not defined, with a minimum": (None, 0.0, None, False),
    "not defined, with a maximum": (None, None, 0.0, True),
    "not a number": (float("nan"), 0.0, None, False),
}


@pytest.mark.parametrize(("value", "minimum", "maximum", "expected"), CASES.values(), ids=CASES)
def test_a_figure_is_compared_with_its_limits(
    value: float | None, minimum: float | None, maximum: float | None, expected: bool
) -> None:
    assert is_within(value, minimum=minimum, maximum=maximum) is expected


def test_every_figure_with_a_limit_has_a_verdict() -> None:
    figures = {"enough": 0.5, "too much": 3.0, "between": 2.0, "undefined": None, "free": 0.0}
    least, most = {"enough": 0.5, "between": 1.0, "undefined": 0.1}, {"too much": 2.0, "between": 3.0}
    found = {"enough": True, "too much": False, "between": True, "undefined": False}
    assert verdicts(figures, least, most) == found
