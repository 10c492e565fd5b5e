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

from pipeline.metrics.coco_matching import CocoMatches, Floats
from pipeline.metrics.detection_metrics import DetectionMetrics
from pipeline.metrics.resampling import Draws, draw_figures

CONFIDENCE = 0.95
FEWEST_IMAGES = 5
"""With objects: on fewer, a figure of them has no interval, because equal images would make it look certain."""

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


def measure_chance(metrics: DetectionMetrics, draws: Draws | None = None) -> Chance:
    """Compute the intervals of the figures, from the draws of their images, which are made where they are not given."""
    matches, found = metrics.coco_matches, draws or draw_figures(metrics)
    images = images_of_figures(matches)
    return Chance(
        images=matches.images,
        figures={
            name: interval_of(values, images[name], limit=math.inf if name.startswith("fp_") else 1.0)
            for name, values in found.figures.items()
        },
        class_ap=tuple(
            interval_of(values, each.images, limit=1.0)
            for values, each in zip(found.class_ap.T, metrics.classes, strict=True)
        ),
    )


def images_of_figures(matches: CocoMatches) -> dict[str, int]:
    """How many images each figure depends on: those with objects of its size, or those without any."""
    by_size = [len(np.unique(matches.truth_image[of_size])) for of_size in ~matches.truth_ignored.T]
    images = dict.fromkeys(("map", "map50", "map75", "ar1", "ar10", "ar100", "fp_per_image_with_objects"), by_size[0])
    images |= dict(zip(("map_small", "map_medium", "map_large"), by_size[1:], strict=True))
    return {**images, "fp_per_image_without_objects": int(matches.is_empty().sum())}


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
