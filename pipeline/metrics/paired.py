"""Two models on the same test images: the differences of their figures, and whether chance explains them.

Both are drawn together, so an image that is hard for both adds nothing to the interval, which reaches from the 2.5th to
the 97.5th percentile of the differences of the draws. The error of AP on few images, which both have, cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.metrics.chance import CONFIDENCE, FEWEST_IMAGES, images_of_figures
from pipeline.metrics.coco_matching import Floats
from pipeline.metrics.detection_metrics import DetectionMetrics, evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.named_figures import FIGURES
from pipeline.metrics.resampling import DRAWS, Draws, draw_figures

BETTER, WORSE, CLOSE, SAME = "better", "worse", "too close to call", "the same"

_NEGLIGIBLE = 5e-4  # of a figure; smaller differences are not seen in three digits, and come from rounding


@dataclass(frozen=True)
class Difference:
    """A figure of two models."""

    before: float
    after: float
    low: float | None  # ends of the 95 % interval of the difference; None on too few images
    high: float | None
    more_is_better: bool = True

    @property
    def change(self) -> float:
        """What the second has more."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """Whether the second is better: only where all of the interval is on one side of zero."""
        if self.low is None or self.high is None:
            return SAME if abs(self.change) < _NEGLIGIBLE else CLOSE
        if max(abs(self.low), abs(self.high)) < _NEGLIGIBLE:
            return SAME
        if self.low <= 0 <= self.high:
            return CLOSE
        return BETTER if (self.low > 0) is self.more_is_better else WORSE


@dataclass(frozen=True)
class PairedFigures:
    """The differences of two models, by figure and by class; those that are defined for both."""

    images: int
    figures: dict[str, Difference]  # by the names of `named_figures.FIGURES`
    class_ap: dict[str, Difference]

    def images_for(self, change: float) -> int | None:
        """About how many images would show such a difference of mAP; None where the interval is not known."""
        difference = self.figures.get("mAP")
        if difference is None or difference.low is None or difference.high is None:
            return None
        return math.ceil(self.images * ((difference.high - difference.low) / 2 / change) ** 2)

    @property
    def decided(self) -> dict[str, Difference]:
        """AP of the classes that differ beyond chance."""
        return {name: each for name, each in self.class_ap.items() if each.verdict in {BETTER, WORSE}}


def compare_models(
    truth: GroundTruth, before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], *, draws: int = DRAWS
) -> PairedFigures:
    """Compare the detections of two models in one test set, in COCO's results format."""
    metrics = evaluate(truth, before), evaluate(truth, after)
    left, right = (draw_figures(each, draws=draws) for each in metrics)
    return compare_draws(metrics[1], left, right)


def compare_draws(metrics: DetectionMetrics, before: Draws, after: Draws) -> PairedFigures:
    """Compare two models by the draws of their figures; the `metrics` are those of one of them, for the test set."""
    images = images_of_figures(metrics.coco_matches)
    figures = {
        name: _difference(before.figures[each.attribute], after.figures[each.attribute], images[each.attribute])
        for name, each in FIGURES.items()
    }
    classes = {
        each.name: _difference(before.class_ap[:, label], after.class_ap[:, label], each.images)
        for label, each in enumerate(metrics.classes)
    }
    return PairedFigures(
        images=metrics.images,
        figures={
            name: replace(each, more_is_better=FIGURES[name].more_is_better)
            for name, each in figures.items()
            if each is not None
        },
        class_ap={name: each for name, each in classes.items() if each is not None},
    )


def _difference(before: Floats, after: Floats, images: int) -> Difference | None:
    """The difference of a figure that depends on so many images, from its draws; the first is the test set itself."""
    if np.isnan(before[0]) or np.isnan(after[0]):
        return None
    low = high = None
    if images >= FEWEST_IMAGES:
        tail = 50 * (1 - CONFIDENCE)
        low, high = map(float, np.nanpercentile(after[1:] - before[1:], [tail, 100 - tail]))
    return Difference(float(before[0]), float(after[0]), low, high)
