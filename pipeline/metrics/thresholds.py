"""The score threshold that is recommended for a service, and how certain the choice is.

The test images are drawn again, as in `resampling`, and the threshold is chosen on each draw. F1 there is that of the
images on which it was chosen, so it is a little lower on others: by 0.005 in simulations of 34 images. It is not
corrected for that, because what the draws say of it is more than twice as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from pipeline.metrics.chance import CONFIDENCE, FEWEST_IMAGES
from pipeline.metrics.coco_matching import Bools, Floats, Ints
from pipeline.metrics.detection_metrics import LEVELS, DetectionMetrics, best_threshold, point_at
from pipeline.metrics.resampling import Weights, draw_weights

_DRAWS = 400


@dataclass(frozen=True)
class ThresholdAdvice:
    """The one threshold for all classes with the highest mean F1; every F1 is the mean of the classes at IoU 0.5."""

    threshold: float
    f1: float  # on the test set, which the threshold was chosen on
    # Ends of the range that holds the best threshold for all such images in 95 of 100 cases. None on too few images.
    low: float | None
    high: float | None
    current: float  # that of the service's answers now
    current_f1: float
    own_f1: float  # where each class has its own best threshold, chosen on the test set


def advise_threshold(metrics: DetectionMetrics, current: float, *, draws: int = _DRAWS) -> ThresholdAdvice | None:
    """Compare the recommended threshold with the service's `current` one; None where none can be recommended."""
    if metrics.threshold is None or metrics.f1 is None:
        return None
    matches = metrics.matches
    present = [label for label, each in enumerate(metrics.classes) if each.ground_truth]
    low = high = None
    if metrics.images_with_objects >= FEWEST_IMAGES:
        f1 = f1_of_draws(metrics, draw_weights(metrics.images, draws + 1))
        chosen = [threshold for threshold, _ in map(best_threshold, f1[1:, None]) if threshold is not None]
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(chosen, [tail, 100 - tail], method="nearest").tolist()
    return ThresholdAdvice(
        threshold=metrics.threshold,
        f1=metrics.f1,
        low=low,
        high=high,
        current=current,
        current_f1=float(np.mean([point_at(matches, label, current).f1 for label in present])),
        own_f1=float(np.mean([metrics.classes[label].best.f1 for label in present])),
    )


def f1_of_draws(metrics: DetectionMetrics, weights: Weights) -> Floats:
    """The mean F1 of the classes at each of `LEVELS`: `(D, 101)`; classes that a draw has no object of do not count."""
    matches, image_ids = metrics.matches, np.array(sorted(each.image_id for each in metrics.per_image), np.int64)
    image = np.searchsorted(image_ids, matches.image_ids)
    truth_image = np.searchsorted(image_ids, matches.truth_image_ids)
    level = np.searchsorted(LEVELS, matches.scores, side="right") - 1  # the highest that a detection reaches
    total, classes = np.zeros((len(LEVELS), weights.shape[1])), np.zeros(weights.shape[1])
    for label in range(len(metrics.classes)):
        found, is_object = matches.labels == label, matches.truth_labels == label
        objects = weights[truth_image[is_object]].sum(0, dtype=np.float64)
        kept = _counts(found, image, level, weights)
        right = _counts(found & (matches.truth >= 0), image, level, weights)
        with np.errstate(invalid="ignore"):
            total += np.where(objects > 0, 2 * right / (kept + objects), 0.0)
        classes += objects > 0
    with np.errstate(invalid="ignore"):
        return np.asarray((total / classes).T)


def _counts(of: Bools, image: Ints, level: Ints, weights: Weights) -> Floats:
    """How many of some detections reach each of `LEVELS` in each draw: `(101, D)`."""
    shape = len(LEVELS), len(weights)
    at_level = csr_matrix((np.ones(int(of.sum()), np.float32), (level[of], image[of])), shape) @ weights
    return np.asarray(np.cumsum(at_level[::-1], 0, dtype=np.float64)[::-1])
