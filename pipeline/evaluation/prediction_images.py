"""Predictions beside ground truth, for the images with the most errors and for some typical ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.figures import FONT, PALETTE, Pixels, draw_labelled, encode_jpeg, read_pixels, scale
from pipeline.data.report.inline_images import Gallery, GalleryRow, InlineImage
from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.matching import Bools, Floats, Matches, matches_at_half, run_coco_eval
from pipeline.evaluation.metrics import DetectionMetrics, ImageErrors

RIGHT, WRONG = PALETTE[0], PALETTE[5]  # blue and vermilion; the labels say it too
_PANEL = 520  # pixels of a panel's longer side
_LARGEST_ZOOM = 3.0
_GAP = 8
_HEADING = 24
_ALL_LABELLED = 15  # with more boxes than this, only the wrong ones are labelled


def draw_comparisons(
    truth: GroundTruth,
    results: Sequence[Mapping[str, Any]],
    metrics: DetectionMetrics,
    *,
    worst: int = 6,
    typical: int = 3,
) -> Gallery:
    """Draw ground truth (left) and predictions (right) of the images with the most errors, and of some others.

    Boxes are those that count at the metrics' `errors_at`. Blue ones are right, vermilion ones missed or false.

    Args:
        truth: The test set.
        results: The predictions that were evaluated, in COCO's results format.
        metrics: The result of `evaluate` for them.
        worst: Number of images with the most errors.
        typical: Number of images from the quartiles of the others.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: An image cannot be decoded.
    """
    worst_images, typical_images = _choose(metrics.per_image, worst, typical)
    chosen = {image.image_id for image in (*worst_images, *typical_images)}
    part = truth.only(chosen)
    matches = matches_at_half(run_coco_eval(part, [each for each in results if each["image_id"] in chosen]), part)
    kept = matches.scores >= metrics.errors_at
    rows = (("With the most errors", worst_images), ("Typical", typical_images))
    return Gallery(
        tuple(
            GalleryRow(heading, tuple(_draw(truth, image, matches, kept) for image in images))
            for heading, images in rows
            if images
        )
    )


def _choose(per_image: Sequence[ImageErrors], worst: int, typical: int) -> tuple[list[ImageErrors], list[ImageErrors]]:
    ranked = sorted(per_image, key=lambda image: (-image.errors, image.f1, image.image_id))
    worst_images = [image for image in ranked[:worst] if image.errors]
    rest = [image for image in ranked if image not in worst_images and image.true_positives + image.errors]
    rest.sort(key=lambda image: (image.f1, image.image_id))
    places = [round(len(rest) * (number + 1) / (typical + 1)) for number in range(typical)]
    rows = sorted({min(place, len(rest) - 1) for place in places}) if rest else []
    return worst_images, [rest[row] for row in rows]


def _draw(truth: GroundTruth, errors: ImageErrors, matches: Matches, kept: Bools) -> InlineImage:
    names = list(truth.categories.values())
    pixels = read_pixels(truth.path_of(errors.file_name))
    zoom = min(_PANEL / max(pixels.shape[:2]), _LARGEST_ZOOM)
    pixels = scale(pixels, zoom)

    shown = kept & (matches.image_ids == errors.image_id)
    here = matches.truth_image_ids == errors.image_id
    missed = ~np.isin(np.arange(len(here)), matches.truth[shown])[here]
    labels = [names[label] for label in matches.truth_labels[here]]
    heading = f"truth: {len(labels)} objects, {missed.sum()} missed"
    left = _panel(pixels, matches.truth_boxes[here] * zoom, missed, labels, "missed: ", heading)

    false = matches.truth[shown] < 0
    found = zip(matches.labels[shown], matches.scores[shown], strict=True)
    labels = [f"{names[label]} {score:.2f}" for label, score in found]
    heading = f"predictions: {len(labels)}, {false.sum()} false"
    right = _panel(pixels, matches.boxes[shown] * zoom, false, labels, "false: ", heading)

    both = np.hstack([left, np.full((left.shape[0], _GAP, 3), 255, np.uint8), right])
    caption = (
        f"{errors.file_name}: {errors.true_positives} found, {errors.false_negatives} missed, "
        f"{errors.false_positives} false or mislabelled"
    )
    alt = f"Ground truth and predictions of {errors.file_name}"
    return InlineImage(alt, encode_jpeg(both, 82), both.shape[1], both.shape[0], caption)


def _panel(pixels: Pixels, boxes: Floats, wrong: Bools, labels: list[str], prefix: str, heading: str) -> Pixels:
    """Draw `(N, 4)` boxes [x, y, w, h] with their labels, the wrong ones on top, below a line of text."""
    order = np.argsort(wrong, kind="stable")
    colours = [WRONG if wrong[row] else RIGHT for row in order]
    if len(order) > _ALL_LABELLED:
        texts = [labels[row] if wrong[row] else None for row in order]
    else:
        texts = [f"{prefix if wrong[row] else ''}{labels[row]}" for row in order]
    strip = Image.new("RGB", (pixels.shape[1], _HEADING), "white")
    ImageDraw.Draw(strip).text((2, 4), heading, "black", ImageFont.truetype(FONT, 13))
    return np.vstack([np.asarray(strip), draw_labelled(pixels, boxes[order], colours, texts)])
