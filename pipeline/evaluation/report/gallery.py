"""Examples as a part of a page: photographs with the ground truth and the predictions drawn over them.

Each photograph is in the page once, however many examples show it, and so are its boxes: an example is a view of them.
The boxes are drawn by the browser, and stay sharp when it zooms. The script of the page filters and zooms. Without it,
all examples are visible.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from pipeline.data.figures import encode_jpeg, read_pixels, scale
from pipeline.evaluation.examples import LOW_SCORE, Example, Selection, select_examples
from pipeline.evaluation.report.templates import render
from pipeline.metrics.coco_matching import SIZES, Bools, Floats, Ints
from pipeline.metrics.detection_metrics import DetectionMetrics
from pipeline.metrics.error_kinds import KINDS, MISSED
from pipeline.metrics.ground_truth import GroundTruth

_LONGEST, _LONGEST_OF_MANY = 640, 480  # pixels of a photograph's longer side
_MANY = 250  # photographs
_QUALITY = 70
_MOST_BYTES = 16_000_000  # of all photographs, as they are in the page
_SHAPE = 4 / 3  # width to height of a view
_CONTEXT, _LEAST_VIEW = 2.5, 0.3  # width of a view in widths of the box, and its least share of the photograph
_IN_NOTEBOOK = 3  # of each group


@dataclass(frozen=True)
class DrawnBox:
    """A box of an object or a detection, [x, y, width, height] in pixels of the photograph."""

    box: tuple[float, float, float, float]
    text: str
    is_right: bool


@dataclass(frozen=True)
class Photograph:
    """An image of the test set with all its objects and, for each model, the detections that count."""

    file_name: str
    width: int  # pixels of the test set's image; the JPEG file may have fewer
    height: int
    jpeg: bytes = field(repr=False)
    # the objects, and whether each model found them; then the detections of each model
    truth: tuple[tuple[DrawnBox, ...], ...]
    found: tuple[tuple[DrawnBox, ...], ...]

    @property
    def told(self) -> str:
        """How many objects each model found, and its errors."""
        told = []
        for objects, detections in zip(self.truth, self.found, strict=True):
            found, false = (sum(each.is_right is right for each in detections) for right in (True, False))
            told.append(f"{found} found, {len(objects) - found} missed, {false} false")
        return " → ".join(told)

    @property
    def url(self) -> str:
        """The JPEG file as an address."""
        return f"data:image/jpeg;base64,{base64.b64encode(self.jpeg).decode('ascii')}"


@dataclass(frozen=True)
class View:
    """An example, and what part of the photograph shows it: x, y, width and height in pixels."""

    example: Example
    window: tuple[int, int, int, int]


@dataclass(frozen=True)
class ExampleGallery:
    """Examples in groups, with their photographs by image id."""

    models: tuple[str, ...]  # headings of the predictions
    classes: tuple[str, ...]
    groups: Mapping[str, tuple[Example, ...]]
    totals: Mapping[str, int]  # examples that there are in each group, shown or not
    photographs: Mapping[int, Photograph]

    def __html__(self) -> str:
        return self._render(is_page=True)

    def _repr_html_(self) -> str:
        """The first examples of each group, without filters."""
        first = {group: examples[:_IN_NOTEBOOK] for group, examples in self.groups.items()}
        used = {each.image_id for examples in first.values() for each in examples}
        photographs = {image_id: each for image_id, each in self.photographs.items() if image_id in used}
        return replace(self, groups=first, photographs=photographs)._render(is_page=False)

    def _render(self, *, is_page: bool) -> str:
        if not self.groups:
            return "<p>There is no object and no detection to show.</p>"
        every = [each for examples in self.groups.values() for each in examples]
        present = {label for each in every for label in each.labels}
        kinds = {each.kind for each in every}
        return render(
            "gallery.html.j2",
            {"outlines": _outlines},
            gallery=self,
            is_page=is_page,
            groups={name: [self._view(each) for each in examples] for name, examples in self.groups.items()},
            classes=[(label, name) for label, name in enumerate(self.classes) if label in present],
            kinds=[kind for kind in (*KINDS, MISSED, LOW_SCORE) if kind in kinds],
            sizes=SIZES[1:],
            boxes=self._boxes() if is_page else {},
            script=script(),
        )

    def _view(self, example: Example) -> View:
        """The part of the photograph around the example's box, or all of it."""
        photo = self.photographs[example.image_id]
        if example.box is None:
            return View(example, (0, 0, photo.width, photo.height))
        x, y, width, height = example.box
        wanted = max(_CONTEXT * width, _CONTEXT * height * _SHAPE, _LEAST_VIEW * max(photo.width, photo.height))
        wide, high = min(wanted, photo.width), min(wanted / _SHAPE, photo.height)
        left = min(max(x + width / 2 - wide / 2, 0), photo.width - wide)
        top = min(max(y + height / 2 - high / 2, 0), photo.height - high)
        return View(example, (round(left), round(top), max(round(wide), 1), max(round(high), 1)))

    def _boxes(self) -> dict[str, Any]:
        """What the script writes beside the boxes of each photograph."""

        def plain(layers: Iterable[tuple[DrawnBox, ...]]) -> list[list[Any]]:
            return [[[*map(_short, each.box[:2]), each.text, int(each.is_right)] for each in layer] for layer in layers]

        return {
            str(image_id): {
                "name": photo.file_name,
                "size": [photo.width, photo.height],
                "truth": plain(photo.truth),
                "found": plain(photo.found),
            }
            for image_id, photo in self.photographs.items()
        }


def make_gallery(truth: GroundTruth, metrics: DetectionMetrics, *, per_class: int = 12) -> ExampleGallery:
    """Show the worst misses, the most confident false alarms and the best hits of a model, and some whole images.

    `per_class` is the most of each that a class has. There are fewer where the photographs take too much room.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: An image cannot be decoded.
    """
    return draw_gallery(truth, {"predictions": metrics}, select_examples(truth, metrics, per_class=per_class))


def draw_gallery(
    truth: GroundTruth, models: Mapping[str, DetectionMetrics], selection: Selection, most_bytes: int = _MOST_BYTES
) -> ExampleGallery:
    """Show as many of the selected examples, from the first on, as there is room for their photographs.

    `models` have the predictions, by the heading over them.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: An image cannot be decoded.
    """
    files = {image.id: image.file_name for image in truth.images}
    layers = [_Layers(metrics) for metrics in models.values()]
    photographs: dict[int, Photograph] = {}
    groups: dict[str, list[Example]] = {name: [] for name in selection.totals}
    is_many = len({each.image_id for each in selection.examples}) > _MANY
    longest, room = _LONGEST_OF_MANY if is_many else _LONGEST, most_bytes
    for example in selection.examples:
        if example.image_id not in photographs:
            photo = _photograph(truth, files[example.image_id], example.image_id, layers, longest)
            room -= len(photo.jpeg) * 4 // 3
            if room < 0:
                break
            photographs[example.image_id] = photo
        groups[example.group].append(example)
    return ExampleGallery(
        models=tuple(models),
        classes=tuple(truth.categories.values()),
        groups={name: tuple(examples) for name, examples in groups.items() if examples},
        totals=selection.totals,
        photographs=photographs,
    )


class _Layers:
    """The boxes of a model by image; those of a test set are sorted only once."""

    def __init__(self, metrics: DetectionMetrics) -> None:
        matches = metrics.matches
        self._matches, self._names = matches, [each.name for each in metrics.classes]
        shown = np.flatnonzero(matches.scores >= metrics.errors_at)
        self._found = np.zeros(len(matches.truth_labels), bool)
        self._found[matches.truth[shown][matches.truth[shown] >= 0]] = True
        self._objects = _ByImage(matches.truth_image_ids, np.arange(len(matches.truth_labels)))
        self._detections = _ByImage(matches.image_ids[shown], shown)

    def truth(self, image_id: int) -> tuple[DrawnBox, ...]:
        rows, of = self._objects.of(image_id), self._matches
        return self._drawn(of.truth_boxes[rows], of.truth_labels[rows], self._found[rows])

    def found(self, image_id: int) -> tuple[DrawnBox, ...]:
        rows, of = self._detections.of(image_id), self._matches
        return self._drawn(of.boxes[rows], of.labels[rows], of.truth[rows] >= 0, of.scores[rows])

    def _drawn(self, boxes: Floats, labels: Ints, right: Bools, scores: Floats | None = None) -> tuple[DrawnBox, ...]:
        texts = [self._names[label] for label in labels]
        if scores is not None:
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores, strict=True)]
        rows = zip(boxes.tolist(), texts, right.tolist(), strict=True)
        return tuple(DrawnBox(tuple(box), text, is_right) for box, text, is_right in rows)


class _ByImage:
    """Rows by image id."""

    def __init__(self, image_ids: Ints, rows: Ints) -> None:
        order = np.argsort(image_ids, kind="stable")
        self._ids, self._rows = image_ids[order], rows[order]

    def of(self, image_id: int) -> Ints:
        return self._rows[slice(*np.searchsorted(self._ids, [image_id, image_id + 1]).tolist())]


def _photograph(
    truth: GroundTruth, file_name: str, image_id: int, layers: Sequence[_Layers], longest: int
) -> Photograph:
    pixels = read_pixels(truth.path_of(file_name))
    height, width = pixels.shape[:2]
    return Photograph(
        file_name=file_name,
        width=width,
        height=height,
        jpeg=encode_jpeg(scale(pixels, min(longest / max(width, height), 1.0)), _QUALITY),
        truth=tuple(each.truth(image_id) for each in layers),
        found=tuple(each.found(image_id) for each in layers),
    )


def _outlines(boxes: Sequence[DrawnBox], *, right: bool) -> str:
    """The boxes that are right, or those that are not, as one path of SVG."""
    corners = [tuple(map(_short, each.box)) for each in boxes if each.is_right is right]
    return "".join(f"M{x} {y}h{width}v{height}h-{width}z" for x, y, width, height in corners)


def _short(number: float) -> float | int:
    """One digit after the point, if it is not zero."""
    rounded = round(number, 1)
    return int(rounded) if rounded.is_integer() else rounded


@cache
def script() -> str:
    """What filters and zooms, for a page that has a gallery."""
    return resources.files(__package__).joinpath("gallery.js").read_text("utf-8")


def script_source() -> str:
    """The source of scripts that the content security policy of such a page has to allow."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script().encode()).digest()).decode('ascii')}'"
