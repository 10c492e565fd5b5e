"""The figures on parts of the test set: where a model is weak, and whether chance explains it.

A slice is compared with all test images, class by class, so that it is not worse merely because its classes are hard.
Both are drawn together, as in `resampling`. All images are the slice and the rest, so a slice that is worse than all is
worse than the rest, with the same certainty.

AP is a little higher on few images, so only a clear weakness is found. Correcting that by the draws would call slices
worse that are not: in simulations of 20 classes on 120 images, in 8 to 45 % of the test sets. Of many slices some look
worse by chance; so the more there are, the more certain each must be: where a model is equally good everywhere, at most
one test set in twenty has a slice that is called worse (Bonferroni's correction).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import t as student

from pipeline.evaluation.image_properties import Divisions, divide_images
from pipeline.metrics.chance import CONFIDENCE, Interval, interval_of, spread_of
from pipeline.metrics.coco_matching import SIZES, CocoMatches, Floats
from pipeline.metrics.detection_metrics import DetectionMetrics
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.resampling import draw_weights, resample_ap50

_DRAWS = 400  # with so many, a standard deviation is off by 4 %
_LEAST = 1e-9  # differences below it come from the order of additions
_OBJECT_SIZES = {
    "small": "small, below 32 x 32",
    "medium": "medium, up to 96 x 96",
    "large": "large, above 96 x 96",
}


@dataclass(frozen=True)
class Slice:
    """Some of the test images, or the objects of a size; None stands for what is not defined.

    Recall and false positives are those at `DetectionMetrics.errors_at` and IoU 0.5, as COCO counts them: detections of
    another size than the slice's, and not matched, are neither right nor wrong.
    """

    property: str
    value: str
    images: int
    images_with_objects: int  # that AP and recall depend on
    objects: int
    ap50: float | None  # mean of the classes with objects here
    interval: Interval | None  # None on too few images with objects
    recall: float | None
    fp_per_image: float
    change: float | None  # mean of the differences from the AP50 of the same classes in all test images
    is_worse: bool  # beyond chance


@dataclass(frozen=True)
class Slices:
    """The slices of a test set, those with the lowest AP50 first."""

    judged: tuple[Slice, ...]
    few: tuple[Slice, ...]  # with objects on too few images, in the order of their properties
    left_out: tuple[str, ...]  # fields of the images that make no slices

    @property
    def worse(self) -> tuple[Slice, ...]:
        """Those that are worse than the others beyond chance."""
        return tuple(each for each in self.judged if each.is_worse)

    def to_json(self) -> list[dict[str, Any]]:
        """All slices, as `metrics.schema.json` describes them."""
        return [
            asdict(each) | {"interval": [each.interval.low, each.interval.high] if each.interval else None}
            for each in (*self.judged, *self.few)
        ]


def measure_slices(truth: GroundTruth, metrics: DetectionMetrics, *, draws: int = _DRAWS) -> Slices:
    """Measure a model on the images of each kind, and on the objects of each of COCO's sizes.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: An image cannot be decoded.
    """
    return measure_divisions(metrics, divide_images(truth), draws=draws)


def measure_divisions(metrics: DetectionMetrics, divisions: Divisions, *, draws: int = _DRAWS) -> Slices:
    """Measure a model on the parts of a test set, and on the objects of each of COCO's sizes."""
    measured = list(_Measuring(metrics, draws).run(divisions))
    judged = [pair for pair in measured if pair[0].interval is not None]
    slices = [_judge(each, changes, len(judged)) for each, changes in judged]
    return Slices(
        judged=tuple(sorted(slices, key=lambda each: each.ap50 or 0.0)),
        few=tuple(each for each, _ in measured if each.interval is None),
        left_out=divisions.left_out,
    )


class _Measuring:
    """Measures slices, and draws their images together with all others."""

    def __init__(self, metrics: DetectionMetrics, draws: int) -> None:
        self._matches, self._errors_at = metrics.coco_matches, metrics.errors_at
        self._weights = draw_weights(self._matches.images, draws + 1)
        self._whole = resample_ap50(self._matches, self._weights)

    def run(self, divisions: Divisions) -> Iterator[tuple[Slice, Floats]]:
        """Each slice, not judged yet, and its change in each draw."""
        for name, value in _OBJECT_SIZES.items():
            yield self._slice("object size", value, self._matches, self._matches.images, SIZES.index(name))
        for division in divisions.found:
            for value, images in division.parts.items():
                yield self._slice(division.name, value, self._matches.only(images), int(images.sum()))

    def _slice(self, name: str, value: str, matches: CocoMatches, images: int, size: int = 0) -> tuple[Slice, Floats]:
        is_object = ~matches.truth_ignored[:, size]
        objects, with_objects = int(is_object.sum()), len(np.unique(matches.truth_image[is_object]))
        counted = ~matches.ignored[:, size, 0] & (matches.score >= self._errors_at)
        is_right = matches.truth[:, size, 0] >= 0
        by_class = resample_ap50(matches, self._weights, size)
        ap50, changes = _mean(by_class), _mean(by_class - self._whole)
        found = Slice(
            property=name,
            value=value,
            images=images,
            images_with_objects=with_objects,
            objects=objects,
            ap50=float(ap50[0]) if objects else None,
            interval=interval_of(ap50, with_objects, limit=1.0),
            recall=int((counted & is_right).sum()) / objects if objects else None,
            fp_per_image=int((counted & ~is_right).sum()) / images,
            change=float(changes[0]) if objects else None,
            is_worse=False,
        )
        return found, changes


def _judge(measured: Slice, changes: Floats, slices: int) -> Slice:
    """Tell whether one of so many slices is worse, by the draws of its change."""
    images = measured.images_with_objects
    certainty = 1 - (1 - CONFIDENCE) / slices
    reach = float(student.ppf(certainty, images - 1)) * spread_of(changes, images)
    return replace(measured, is_worse=float(changes[0]) < -max(reach, _LEAST))


def _mean(by_class: Floats) -> Floats:
    """The mean of the classes that a draw has objects of: `(D,)`, NaN where it has none."""
    defined = ~np.isnan(by_class)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, by_class, 0.0).sum(1) / defined.sum(1))
