"""How far two sets of predictions for one test set are apart, such as those of one model on two processors.

Detections are counterparts if they are of one image and category, and overlap with an IoU of at least 0.5. They are
paired one to one, so that the sum of the IoUs is the greatest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask
from scipy.optimize import linear_sum_assignment

_IOU = 0.5

Detections = Sequence[Mapping[str, Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PredictionDifferences:
    """What two sets of predictions differ in."""

    before: int  # detections
    after: int
    images: int  # with any difference, except in the order of their detections
    unmatched: int  # detections of either without a counterpart in the other
    pixels: float  # largest difference of a side of a box from that of its counterpart
    score: float  # largest difference of a score from that of its counterpart


def compare_predictions(before: Detections, after: Detections) -> PredictionDifferences:
    """Compare two sets of detections in COCO's results format, whatever their order."""
    left, right = _by_image_and_category(before), _by_image_and_category(after)
    images: set[Any] = set()
    unmatched, pixels, score = 0, 0.0, 0.0
    for key in left.keys() | right.keys():
        one, other = left.get(key, _NOTHING), right.get(key, _NOTHING)
        if np.array_equal(one, other):
            continue
        images.add(key[0])
        rows, columns = _counterparts(one, other)
        unmatched += len(one) + len(other) - 2 * len(rows)
        if len(rows):
            apart = np.abs(one[rows] - other[columns])
            pixels, score = max(pixels, float(apart[:, :4].max())), max(score, float(apart[:, 4].max()))
    return PredictionDifferences(len(before), len(after), len(images), unmatched, pixels, score)


_NOTHING: Floats = np.empty((0, 5))


def _by_image_and_category(results: Detections) -> dict[tuple[Any, Any], Floats]:
    """`(N, 5)` arrays of left, top, right, bottom and score, by descending score."""
    found: dict[tuple[Any, Any], list[tuple[float, ...]]] = defaultdict(list)
    for each in results:
        x, y, width, height = each["bbox"]
        found[each["image_id"], each["category_id"]].append((x, y, x + width, y + height, each["score"]))
    return {key: np.array(sorted(rows, key=lambda row: (-row[4], row))) for key, rows in found.items()}


def _counterparts(one: Floats, other: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if not len(one) or not len(other):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    sides = [np.hstack([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]]) for boxes in (one, other)]
    overlaps = mask.iou(*sides, np.zeros(len(other), np.uint8))
    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    near = overlaps[rows, columns] >= _IOU
    return rows[near], columns[near]
