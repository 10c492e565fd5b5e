"""The one comparison of a figure with its limits, for the quality gate and for the report that shows it."""

from __future__ import annotations

from collections.abc import Mapping

_ROUNDING = 1e-9  # a mean of many quotients that is 0.5 on paper may be 0.49999999999999994


def is_within(value: float | None, *, minimum: float | None = None, maximum: float | None = None) -> bool:
    """Whether a figure is within its limits.

    Args:
        value: The figure; one that is not defined is below every minimum, and above no maximum.
        minimum: The least value within; None for no such limit.
        maximum: The greatest value within; None for no such limit.
    """
    if value is None:
        return minimum is None
    above = minimum is None or value >= minimum - _ROUNDING
    return above and (maximum is None or value <= maximum + _ROUNDING)


def verdicts(
    figures: Mapping[str, float | None], minimum: Mapping[str, float], maximum: Mapping[str, float]
) -> dict[str, bool]:
    """Whether each figure that has a limit is within it, by the figure's name."""
    limited = dict.fromkeys([*minimum, *maximum])
    return {name: is_within(figures[name], minimum=minimum.get(name), maximum=maximum.get(name)) for name in limited}
