"""Two models on the same test images: the differences of their figures, and whether chance explains them.

Both are drawn together, so an image that is hard for both adds nothing to the interval, which reaches from the 2.5th to
the 97.5th percentile of the differences of the draws. The error of AP on few images, which both have, cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.evaluation.chance import CONFIDENCE, FEWEST_IMAGES
from pipeline.evaluation.coco_matching import Floats, match_boxes
from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.resampling import draw_weights, resample

BETTER, WORSE, CLOSE, SAME = "better", "worse", "too close to call", "the same"

NAMES = {
    "map": "mAP", "map50": "mAP50", "map75": "mAP75", "map_small": "mAP small", "map_medium": "mAP medium",
    "map_large": "mAP large", "ar1": "AR 1", "ar10": "AR 10", "ar100": "AR 100",
}  # fmt: skip
"""Of the figures, for people."""

_DRAWS = 1000
_MOST = 1e-12  # differences below it come from the order of additions


@dataclass(frozen=True)
class Difference:
    """A figure of two models, of which more is better."""

    before: float
    after: float
    low: float | None  # ends of the 95 % interval of the difference; None on too few images
    high: float | None

    @property
    def change(self) -> float:
        """What the second has more."""
        return self.after - self.before

    @property
    def verdict(self) -> str:
        """Whether the second is better: only where all of the interval is on one side of zero."""
        if self.low is None or self.high is None:
            return CLOSE
        if max(abs(self.low), abs(self.high)) < _MOST:
            return SAME
        return BETTER if self.low > 0 else WORSE if self.high < 0 else CLOSE


@dataclass(frozen=True)
class PairedFigures:
    """The differences of two models, by COCO's figures and by class; those that are defined for both."""

    images: int
    figures: dict[str, Difference]
    class_ap: dict[str, Difference]

    @property
    def decided(self) -> dict[str, Difference]:
        """AP of the classes that differ beyond chance."""
        return {name: each for name, each in self.class_ap.items() if each.verdict in {BETTER, WORSE}}


def compare_models(
    truth: GroundTruth,
    before: Sequence[Mapping[str, Any]],
    after: Sequence[Mapping[str, Any]],
    *,
    draws: int = _DRAWS,
) -> PairedFigures:
    """Compare the detections of two models in one test set, in COCO's results format."""
    matches = match_boxes(truth, before), match_boxes(truth, after)
    weights = draw_weights(len(truth.images), draws + 1)
    left, right = (resample(each, weights) for each in matches)
    with_object = {each.image_id for each in truth.annotations if not each.iscrowd}
    figures = {name: _difference(left.figures[name], right.figures[name], len(with_object)) for name in left.figures}
    classes = {}
    for label, (category, name) in enumerate(truth.categories.items()):
        images = {each.image_id for each in truth.annotations if each.category_id == category and not each.iscrowd}
        classes[name] = _difference(left.class_ap[:, label], right.class_ap[:, label], len(images))
    return PairedFigures(
        images=len(truth.images),
        figures={name: each for name, each in figures.items() if each is not None},
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
