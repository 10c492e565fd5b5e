"""Whether a service still gives, for its packed test image, the objects that were recorded when it was packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.serving.runtimes import FP32


@dataclass(frozen=True)
class Tolerance:
    """How much the same model may differ on another processor."""

    score: float = 1e-3
    pixels: float = 0.05  # of a corner
    side: float = 0.0  # of a corner, as a share of the longer side of the box, where that is more
    share: float = 0.0  # of the objects that may have no counterpart


_LAST_DIGITS = Tolerance()
# A CPU without bf16 computes in fp32, and one without VNNI rounds INT8 otherwise. On photographs bf16 and fp32 gave 1 %
# to 2 % of the objects scores that differ by more than 0.1, and INT8 and fp32 gave 10 % to 25 %. In one image a single
# object may be much of it.
_ROUNDING = Tolerance(score=0.2, side=0.2, share=0.5)


class ScoredObject(Protocol):
    """A detected object."""

    @property
    def box(self) -> Sequence[float]:
        """Its corners x1, y1, x2, y2 in pixels."""

    @property
    def score(self) -> float:
        """Its certainty, 0..1."""

    @property
    def label(self) -> str:
        """The name of its class."""


def count_unmatched(
    found: Sequence[ScoredObject], recorded: Sequence[ScoredObject], threshold: float, precision: str = FP32
) -> int:
    """The objects on either side without a counterpart on the other; 0 where they are no more than tolerated.

    A changed preprocessing, weight file or class order exceeds the tolerances by far, which depend on the precision of
    the packed model. An object whose score is within the tolerance of the threshold may be on one side only.
    """
    tolerance = _LAST_DIGITS if precision == FP32 else _ROUNDING
    compared, single = 0, 0
    for one, other in ((recorded, found), (found, recorded)):
        for each in one:
            if each.score > threshold + tolerance.score:
                compared += 1
                single += not any(_agree(each, candidate, tolerance) for candidate in other)
    return single if single > tolerance.share * compared else 0


def _agree(one: ScoredObject, other: ScoredObject, tolerance: Tolerance) -> bool:
    if one.label != other.label or abs(one.score - other.score) > tolerance.score:
        return False
    x1, y1, x2, y2 = one.box
    allowed = max(tolerance.pixels, tolerance.side * max(x2 - x1, y2 - y1))
    return all(abs(a - b) <= allowed for a, b in zip(one.box, other.box, strict=True))
