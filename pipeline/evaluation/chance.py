"""95 % intervals of the figures: where they would lie with other images of the same kind.

An interval is the figure, plus and minus the t-value times the standard deviation over the draws of `resampling`. AP is
a little higher on few images than on many, and the draws, which have fewer different images, are higher still. In the
simulations of the tests, the error is about three times what the draws show, and the lower end is that much lower.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from pipeline.evaluation.coco_matching import Bools, Floats
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.resampling import Weights, draw_weights, resample

CONFIDENCE = 0.95
FEWEST_IMAGES = 5
"""With objects: on fewer, a figure of them has no interval, because equal images would make it look certain."""

_DRAWS = 1000
_EXCESS = 3.0  # how much higher AP is on a test set than on all images, in excesses of the draws over the test set


@dataclass(frozen=True)
class Interval:
    """The range that holds the true value of a figure in 95 of 100 cases."""

    low: float
    high: float

    @property
    def half_width(self) -> float:
        """How far it reaches to each side, where neither end is cut off."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Chance:
    """The intervals of a test set's figures; None for a figure that is not defined, or of too few images."""

    images: int
    figures: dict[str, Interval | None]  # by the names of `DetectionMetrics`
    class_ap: tuple[Interval | None, ...]

    def images_for(self, half_width: float) -> int | None:
        """About how many images bring mAP's interval to this half width; None where there is no interval."""
        interval = self.figures["map"]
        return None if interval is None else math.ceil(self.images * (interval.half_width / half_width) ** 2)


def measure_chance(metrics: DetectionMetrics, *, draws: int = _DRAWS) -> Chance:
    """Compute the intervals of the figures, from as many draws of the images."""
    matches = metrics.coco_matches
    weights = draw_weights(matches.images, draws + 1)
    found = resample(matches, weights)
    is_object = ~matches.truth_ignored
    with_objects = [len(np.unique(matches.truth_image[of_size])) for of_size in is_object.T]
    sizes = {"map_small": with_objects[1], "map_medium": with_objects[2], "map_large": with_objects[3]}
    figures = {
        name: interval_of(values, sizes.get(name, with_objects[0]), limit=1.0) for name, values in found.figures.items()
    }
    order = np.argsort([each.image_id for each in metrics.per_image])
    false = np.array([each.false_positives for each in metrics.per_image], np.float64)[order]
    has_object: Bools = np.bincount(matches.truth_image[is_object[:, 0]], minlength=matches.images) > 0
    is_empty: Bools = np.bincount(matches.truth_image, minlength=matches.images) == 0
    for name, among in (("fp_per_image_with_objects", has_object), ("fp_per_image_without_objects", is_empty)):
        defined = getattr(metrics, name) is not None
        figures[name] = interval_of(_mean_of(false, among, weights), int(among.sum())) if defined else None
    return Chance(
        images=matches.images,
        figures=figures,
        class_ap=tuple(
            interval_of(values, each.images, limit=1.0)
            for values, each in zip(found.class_ap.T, metrics.classes, strict=True)
        ),
    )


def _mean_of(values: Floats, among: Bools, weights: Weights) -> Floats:
    """The mean of some images' values in each draw; NaN where a draw has none of them."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values * among) @ weights / (among @ weights))


def interval_of(draws: Floats, images: int, limit: float = math.inf) -> Interval | None:
    """The interval of a figure from 0 to `limit` that depends on so many images.

    `draws` are its values `(D,)`, NaN where not defined; the first draw is the test set itself. None on too few images.
    """
    if images < FEWEST_IMAGES or np.isnan(draws[0]):
        return None
    reach = spread_of(draws, images) * float(student.ppf((1 + CONFIDENCE) / 2, images - 1))
    excess = max(float(np.nanmean(draws[1:]) - draws[0]), 0.0)
    return Interval(max(float(draws[0]) - reach - _EXCESS * excess, 0.0), min(float(draws[0]) + reach, limit))


def spread_of(draws: Floats, images: int) -> float:
    """The standard deviation of a figure that depends on so many images, from its draws `(D,)` but the first."""
    # the draws' variance is that of n images; with n - 1 it is not too small
    return float(np.nanstd(draws[1:])) * math.sqrt(images / (images - 1))
