"""Whether a service still gives, for its packed test image, the objects that were recorded when it was packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.05  # pixels; on another processor the same graph differs in the last digits


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


def count_unmatched(found: Sequence[ScoredObject], recorded: Sequence[ScoredObject], threshold: float) -> int:
    """The objects on either side without a counterpart on the other.

    A changed preprocessing, weight file or class order exceeds the tolerances by far.
    An object whose score is within the tolerance of the threshold may be on one side only.
    """
    sides = ((recorded, found), (found, recorded))
    single = [each for one, other in sides for each in one if not any(_agree(each, candidate) for candidate in other)]
    return sum(each.score > threshold + SCORE_TOLERANCE for each in single)


def _agree(one: ScoredObject, other: ScoredObject) -> bool:
    near = abs(one.score - other.score) <= SCORE_TOLERANCE and one.label == other.label
    return near and all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(one.box, other.box, strict=True))
