"""COCO's precision and recall from the matches of a test set, equal to pycocotools' to the last bit.

Reference: `COCOeval.accumulate` and `summarize` of pycocotools,
https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from pipeline.metrics.coco_matching import IOUS, MOST_DETECTIONS, CocoMatches, Floats

RECALLS: Floats = np.linspace(0.0, 1.0, 101)
LIMITS = (1, 10, MOST_DETECTIONS)
"""Detections of an image and class that count for the recalls."""

AP_FIGURES: dict[str, tuple[slice, int]] = {
    "map": (slice(None), 0),
    "map50": (slice(0, 1), 0),
    "map75": (slice(5, 6), 0),
    "map_small": (slice(None), 1),
    "map_medium": (slice(None), 2),
    "map_large": (slice(None), 3),
}
"""Of which `IOUS` and of which of the `SIZES` each figure of COCO's challenge is the mean."""

_TINY = np.spacing(1)  # so that no precision is 0 / 0, as in pycocotools


@dataclass(frozen=True)
class AveragePrecision:
    """Precision and recall of `K` classes at the 10 `IOUS` and for `S` of the `SIZES`; NaN for a class without objects.

    `precision` is interpolated at the 101 `RECALLS`, with at most 100 detections of an image and class.
    """

    precision: Floats  # `(10, 101, K, S)`
    recall: Floats  # `(10, K, S, 3)`, the last axis is that of `LIMITS`

    @property
    def ap(self) -> Floats:
        """`(10, K, S)`: the mean precision over the recalls."""
        return np.asarray(self.precision.mean(1))


def average_precision(matches: CocoMatches) -> AveragePrecision:
    """Precision and recall, as `COCOeval.accumulate` computes them."""
    precision = np.full((len(IOUS), len(RECALLS), matches.classes, matches.sizes), np.nan)
    recall = np.full((len(IOUS), matches.classes, matches.sizes, len(LIMITS)), np.nan)
    for label in range(matches.classes):
        objects = (~matches.truth_ignored[matches.truth_label == label]).sum(0)
        part = matches.of_class(label)
        counts = ~matches.ignored[part]
        right = counts & (matches.truth[part] >= 0)
        for place, limit in enumerate(LIMITS):
            found = right[matches.rank[part] < limit].sum(0)  # (sizes, IoUs)
            recall[:, label, objects > 0, place] = (found[objects > 0] / objects[objects > 0, None]).T
        for size, level in product(np.flatnonzero(objects).tolist(), range(len(IOUS))):
            # one after the other: of a class with most of the detections, all sums together would take most memory
            true_positives = np.cumsum(right[:, size, level], dtype=np.float64)
            detections = np.cumsum(counts[:, size, level], dtype=np.float64)
            precision[level, :, label, size] = interpolated(true_positives, detections, int(objects[size]))
    return AveragePrecision(precision, recall)


def interpolated(true_positives: Floats, detections: Floats, objects: int) -> Floats:
    """Precision at `RECALLS`: at each, the highest of those at this or a greater recall; 0 where it is not reached."""
    curve = np.zeros(len(RECALLS))
    highest = np.maximum.accumulate((true_positives / (detections + _TINY))[::-1])[::-1]
    reached = np.searchsorted(true_positives / objects, RECALLS, side="left")
    inside = reached < len(true_positives)
    curve[inside] = highest[reached[inside]]
    return curve


def mean(values: npt.ArrayLike) -> float | None:
    """The mean without the classes that have no objects; None where there is no other."""
    defined = np.asarray(values, np.float64)
    defined = defined[~np.isnan(defined)]
    return float(defined.mean()) if defined.size else None


def coco_figures(result: AveragePrecision) -> dict[str, float | None]:
    """The figures of COCO's detection challenge, by the names of `DetectionMetrics`, without the recalls by size.

    There is none for a size that was not matched.
    """
    levels_and_sizes = {name: each for name, each in AP_FIGURES.items() if each[1] < result.precision.shape[-1]}
    return {
        **{name: mean(result.precision[levels, ..., size]) for name, (levels, size) in levels_and_sizes.items()},
        **{f"ar{limit}": mean(result.recall[:, :, 0, place]) for place, limit in enumerate(LIMITS)},
    }
