"""How far chance moves the figures: a test set is drawn again, image by image, many times.

Each draw takes as many images as there are, with repetition, so an image counts as often as it was drawn. Two models
that were measured on the same images are drawn together: what makes an image hard for both is no difference of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from pipeline.metrics.average_precision import AP_FIGURES, LIMITS, RECALLS
from pipeline.metrics.coco_matching import IOUS, SIZES, Bools, CocoMatches, Floats, Ints
from pipeline.metrics.detection_metrics import DetectionMetrics

Weights = npt.NDArray[np.float32]

DRAWS = 1000


def draw_weights(images: int, draws: int, seed: int = 0) -> Weights:
    """How often each image is in each draw: `(images, draws)`. The first draw is the test set itself."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws - 1)
    return np.ascontiguousarray(np.vstack([np.ones((1, images)), drawn]).T, np.float32)


@dataclass(frozen=True)
class Draws:
    """The figures of `D` draws, and the AP of `K` classes; NaN where not defined. The first is the test set itself."""

    figures: dict[str, Floats]  # `(D,)` each, by the names of `DetectionMetrics`
    class_ap: Floats  # `(D, K)`


def draw_figures(metrics: DetectionMetrics, *, draws: int = DRAWS) -> Draws:
    """Compute COCO's figures and the false positives per image for each of so many draws of a test set's images.

    The draws of two models are the same ones if their test sets are.
    """
    matches = metrics.coco_matches
    weights = draw_weights(matches.images, draws + 1)
    found = resample(matches, weights)
    order = np.argsort([each.image_id for each in metrics.per_image])
    false = np.array([each.false_positives for each in metrics.per_image], np.float64)[order]
    for name, among in (
        ("fp_per_image_with_objects", matches.has_object()),
        ("fp_per_image_without_objects", matches.is_empty()),
    ):
        defined = getattr(metrics, name) is not None
        found.figures[name] = _mean_of(false, among, weights) if defined else np.full(draws + 1, np.nan)
    return found


def _mean_of(values: Floats, among: Bools, weights: Weights) -> Floats:
    """The mean of some images' values in each draw; NaN where a draw has none of them."""
    with np.errstate(invalid="ignore"):
        return np.asarray((values * among) @ weights / (among @ weights))


def resample(matches: CocoMatches, weights: Weights) -> Draws:
    """Compute COCO's figures for each draw of the images."""
    draws = weights.shape[1]
    ap = np.full((len(IOUS), matches.classes, len(SIZES), draws), np.nan)
    recall = np.full((matches.classes, len(LIMITS), draws), np.nan)
    for label in range(matches.classes):
        for size in range(len(SIZES)):
            is_object = (matches.truth_label == label) & ~matches.truth_ignored[:, size]
            images = matches.truth_image[is_object]
            if len(images):
                objects = weights[images].sum(0, dtype=np.float64)
                part = matches.of_class(label)
                ap[:, label, size] = list(_average_precisions(matches, part, size, weights, objects))
                if size == 0:
                    recall[label] = list(_recalls(matches, part, weights, objects))
    figures = {name: _mean(ap[levels, :, size], (0, 1)) for name, (levels, size) in AP_FIGURES.items()}
    figures |= {f"ar{limit}": _mean(recall[:, place], 0) for place, limit in enumerate(LIMITS)}
    return Draws(figures, _mean(ap[:, :, 0], 0).T)


def resample_ap50(matches: CocoMatches, weights: Weights, size: int = 0) -> Floats:
    """AP at IoU 0.5 of each class and draw, for one of the `SIZES`: `(D, K)`; NaN where not defined."""
    ap = np.full((matches.classes, weights.shape[1]), np.nan)
    for label in range(matches.classes):
        images = matches.truth_image[(matches.truth_label == label) & ~matches.truth_ignored[:, size]]
        if len(images):
            objects = weights[images].sum(0, dtype=np.float64)
            part = matches.of_class(label)
            (ap[label],) = _average_precisions(matches, part, size, weights, objects, levels=1)
    return ap.T


def _average_precisions(
    matches: CocoMatches, part: slice, size: int, weights: Weights, objects: Floats, levels: int = len(IOUS)
) -> Iterator[Floats]:
    """The AP of a class at each of the first IoUs: `(D,)`; NaN where a draw has no object of it."""
    images = matches.image[part]
    for level in range(levels):
        counts = ~matches.ignored[part, size, level]
        hits = counts & (matches.truth[part, size, level] >= 0)
        found = np.where(objects > 0, 0.0, np.nan)
        if hits.any():
            precision, reached = _curve(images, counts, hits, weights, objects)
            # the recalls that each hit is the first to reach
            new = np.diff(reached, axis=0, prepend=0)
            found += (new * precision).sum(0) / len(RECALLS)
        yield found


def _curve(
    images: Ints, counts: Bools, hits: Bools, weights: Weights, objects: Floats
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """At each of `H` hits, in order: the highest precision from there on, and how many `RECALLS` are reached.

    Precision falls between hits, so nothing else decides. Both are `(H, D)`.
    """
    places = np.flatnonzero(hits)
    false = np.flatnonzero(counts & ~hits)
    false = false[false < places[-1]]
    before = np.searchsorted(np.searchsorted(places, false), np.arange(len(places) + 1))
    since_last = csr_matrix((np.ones(len(false), np.float32), images[false], before), (len(places), len(weights)))
    right = np.cumsum(weights[images[places]], 0, dtype=np.float64)
    precision = np.cumsum(since_last @ weights, 0, dtype=np.float64)
    precision += right
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(right, precision, out=precision)
        right /= objects
    np.nan_to_num(precision, copy=False)
    np.nan_to_num(right, copy=False)
    reached = (100 * right + 1e-9).astype(np.int64)
    reached -= RECALLS[reached] > right
    reached += 1
    reached[right == 0] = 0
    return np.maximum.accumulate(precision[::-1], 0)[::-1], reached


def _recalls(matches: CocoMatches, part: slice, weights: Weights, objects: Floats) -> Iterator[Floats]:
    """The recall of a class with each of `LIMITS`, the mean over the IoUs: `(D,)`."""
    right = (~matches.ignored[part, 0] & (matches.truth[part, 0] >= 0)).sum(1)
    for limit in LIMITS:
        counts = np.where(matches.rank[part] < limit, right, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            yield (counts @ weights[matches.image[part]]) / len(IOUS) / objects


def _mean(values: Floats, axis: int | tuple[int, ...]) -> Floats:
    """The mean without NaN; NaN where there is nothing else."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0.0).sum(axis) / defined.sum(axis))
