"""Predictions beside ground truth, for the images where the detector did worst and for some typical ones."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.data.figures import FONT, PALETTE
from pipeline.data.image_drawing import Pixels, draw_labelled, encode_jpeg, read_pixels, scale
from pipeline.evaluation.ground_truth import IMAGES_FOLDER, read_ground_truth
from pipeline.evaluation.matching import Floats, Matches, matches_at_half, run_coco_eval
from pipeline.evaluation.metrics import DetectionMetrics, ImageErrors

_Bools = npt.NDArray[np.bool_]

# blue and vermilion of Okabe and Ito, apart for every kind of colour vision; the words say it too
_RIGHT, _WRONG = PALETTE[0], PALETTE[5]
_PANEL = 520  # pixels of a panel's longer side
_LARGEST_ZOOM = 3.0
_GAP = 8
_HEADING = 24
_ALL_LABELLED = 15  # with more boxes than this, only the wrong ones are labelled
_THUMBNAIL = 200  # pixels of its longer side
_JPEG_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """Ground truth (left) and predictions (right) of one image.

    Attributes:
        errors: The image and what is right and wrong in it.
        worst: Whether it was chosen as one of the worst.
        jpeg: The picture as a JPEG file.
        width: Of the picture in pixels.
        height: Of the picture in pixels.
    """

    errors: ImageErrors
    worst: bool
    jpeg: bytes
    width: int
    height: int

    @property
    def caption(self) -> str:
        """File name and counts in words."""
        one = self.errors
        return (
            f"{one.file_name}: {one.true_positives} found, {one.false_negatives} missed, "
            f"{one.false_positives} false or mislabelled"
        )

    def _repr_jpeg_(self) -> bytes:
        return self.jpeg


class Pictures(tuple[Picture, ...]):
    """Pictures that show themselves in a notebook, one below the other."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return "".join(
            f'<figure><img style="max-width:100%" src="data:image/jpeg;base64,{base64.b64encode(one.jpeg).decode()}">'
            f"<figcaption>{'worst' if one.worst else 'typical'}: {html.escape(one.caption)}</figcaption></figure>"
            for one in self
        )


def comparison_pictures(
    dataset_folder: str | Path,
    results: Sequence[Mapping[str, Any]],
    metrics: DetectionMetrics,
    *,
    worst: int = 6,
    typical: int = 3,
) -> Pictures:
    """Draw the images with the most errors, and images from the quartiles of the others.

    Boxes are those that count at the metrics' `errors_at`; blue ones are right, orange ones missed or false.

    Args:
        dataset_folder: A folder with `annotations.json` and `images/`.
        results: The predictions that were evaluated, in COCO's results format.
        metrics: What `evaluate` found for them.
        worst: Number of images with the most errors.
        typical: Number of other images.

    Raises:
        MissingError: An image of the test set is not there.
        DataError: An image cannot be decoded.
    """
    truth = read_ground_truth(dataset_folder)
    bad, others = _choose(metrics.per_image, worst, typical)
    chosen = {one.image_id for one in (*bad, *others)}
    part = truth.only(chosen)
    matches = matches_at_half(run_coco_eval(part, [one for one in results if one["image_id"] in chosen]), part)
    kept = matches.scores >= metrics.errors_at
    names = list(truth.categories.values())
    folder = truth.path.parent / IMAGES_FOLDER
    return Pictures(_picture(folder, one, one in bad, matches, kept, names) for one in (*bad, *others))


def thumbnail(path: Path) -> bytes:
    """A small picture of an image, as a JPEG file.

    Raises:
        MissingError: The image is not there.
        DataError: It cannot be decoded.
    """
    image = read_pixels(path)
    return encode_jpeg(scale(image, min(_THUMBNAIL / max(image.shape[:2]), 1.0)), _JPEG_QUALITY)


def _choose(per_image: Sequence[ImageErrors], worst: int, typical: int) -> tuple[list[ImageErrors], list[ImageErrors]]:
    ranked = sorted(per_image, key=lambda one: (-one.errors, one.f1, one.image_id))
    bad = [one for one in ranked[:worst] if one.errors]
    rest = [one for one in ranked if one not in bad and one.true_positives + one.errors]
    rest.sort(key=lambda one: (one.f1, one.image_id))
    places = [round(len(rest) * (number + 1) / (typical + 1)) for number in range(typical)]
    rows = sorted({min(place, len(rest) - 1) for place in places}) if rest else []
    return bad, [rest[row] for row in rows]


def _picture(
    folder: Path, errors: ImageErrors, worst: bool, matches: Matches, kept: _Bools, names: list[str]
) -> Picture:
    image = read_pixels(folder / errors.file_name)
    zoom = min(_PANEL / max(image.shape[:2]), _LARGEST_ZOOM)
    image = scale(image, zoom)

    shown = kept & (matches.image_ids == errors.image_id)
    here = matches.truth_image_ids == errors.image_id
    missed = ~np.isin(np.arange(len(here)), matches.truth[shown])[here]
    labels = [names[label] for label in matches.truth_labels[here]]
    heading = f"truth: {len(labels)} objects, {missed.sum()} missed"
    left = _panel(image, matches.truth_boxes[here] * zoom, missed, labels, "missed: ", heading)

    false = matches.truth[shown] < 0
    found = zip(matches.labels[shown], matches.scores[shown], strict=True)
    labels = [f"{names[label]} {score:.2f}" for label, score in found]
    heading = f"predictions: {len(labels)}, {false.sum()} false"
    right = _panel(image, matches.boxes[shown] * zoom, false, labels, "false: ", heading)
    return _encode(errors, worst, np.hstack([left, np.full((left.shape[0], _GAP, 3), 255, np.uint8), right]))


def _panel(image: Pixels, boxes: Floats, wrong: _Bools, labels: list[str], prefix: str, heading: str) -> Pixels:
    """Draw `(N, 4)` boxes [x, y, w, h] with their labels, the wrong ones on top, below a line of text."""
    order = np.argsort(wrong, kind="stable")
    colours = [_WRONG if wrong[row] else _RIGHT for row in order]
    if len(order) > _ALL_LABELLED:
        texts = [labels[row] if wrong[row] else None for row in order]
    else:
        texts = [f"{prefix if wrong[row] else ''}{labels[row]}" for row in order]
    strip = Image.new("RGB", (image.shape[1], _HEADING), "white")
    ImageDraw.Draw(strip).text((2, 4), heading, "black", ImageFont.truetype(FONT, 13))
    return np.vstack([np.asarray(strip), draw_labelled(image, boxes[order], colours, texts)])


def _encode(errors: ImageErrors, worst: bool, image: Pixels) -> Picture:
    return Picture(errors, worst, encode_jpeg(image, _JPEG_QUALITY), image.shape[1], image.shape[0])
