"""The quality gate: the mAP50 that a model must reach to be released."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import UsageError
from pipeline.evaluation.metrics import DetectionMetrics

_ROUNDING = 1e-9  # a mean of many quotients that is 0.5 on paper may be 0.49999999999999994


@dataclass(frozen=True)
class Gate:
    """What was asked for and what was reached.

    Attributes:
        minimum_map50: The bar; None without a gate.
        map50: What the model reached on the test set; None where that holds no object.
        passed: Whether it clears the bar; None without a gate.
    """

    minimum_map50: float | None
    map50: float | None
    passed: bool | None


def judge(metrics: DetectionMetrics, minimum_map50: float | None) -> Gate:
    """Compare with the bar.

    Args:
        metrics: Of the test set.
        minimum_map50: The bar, between 0 and 1; None or 0 for no gate.

    Raises:
        UsageError: The bar is not between 0 and 1.
    """
    if not minimum_map50:
        return Gate(None, metrics.map50, None)
    if not 0 < minimum_map50 <= 1:
        raise UsageError(f"A quality gate of {minimum_map50} makes no sense", expected="a mAP50 between 0 and 1")
    reached = metrics.map50 is not None and metrics.map50 >= minimum_map50 - _ROUNDING
    return Gate(minimum_map50, metrics.map50, reached)
