"""Whether scores mean what they say: of detections with a score of 0.7, seven of ten should be right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.matching import Matches

BINS = 10


@dataclass(frozen=True)
class ScoreBin:
    """The detections with scores from `low` to below `high`; the last bin holds those of 1, too."""

    low: float
    high: float
    detections: int
    score: float | None  # mean; None without detections
    precision: float | None  # share that is right at IoU 0.5


@dataclass(frozen=True)
class Calibration:
    """Scores against precision; `error` is the mean distance of the two, weighted by the bins' detections.

    Reference: expected calibration error, Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """

    bins: tuple[ScoreBin, ...]
    error: float | None  # None without detections


def calibration(matches: Matches) -> Calibration:
    """Compare scores with precision, in bins of equal width."""
    place = np.minimum((matches.scores * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    scores = np.bincount(place, matches.scores, BINS)
    right = np.bincount(place, matches.truth >= 0, BINS)
    total = int(counts.sum())
    bins = tuple(
        ScoreBin(
            low=number / BINS,
            high=(number + 1) / BINS,
            detections=int(counts[number]),
            score=float(scores[number] / counts[number]) if counts[number] else None,
            precision=float(right[number] / counts[number]) if counts[number] else None,
        )
        for number in range(BINS)
    )
    return Calibration(bins, float(np.abs(scores - right).sum() / total) if total else None)
