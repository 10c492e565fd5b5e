"""The suspects of a label check for people: a section of the report, and files for labelling tools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.data.coco import Annotation, Box
from pipeline.data.figures import encode_jpeg, outline, read_pixels, scale
from pipeline.data.report.inline_images import InlineImage
from pipeline.data.writing.formats import label_writer
from pipeline.data.writing.labelled import LabelledBox, LabelledImage
from pipeline.evaluation.label_check import KINDS, SURE, LabelCheck, LabelSuspect, check_labels
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.report.charts import RIGHT, WRONG
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.matching import match_results

FILES = {"coco": "coco.json", "cvat": "cvat.xml", "label-studio": "label_studio.json"}
"""The files by their formats."""

_SHOWN = 30  # suspects, with 50 KB each at most
_SIDE = 240  # pixels of a picture's longer side
_LARGEST_ZOOM = 3.0
_AROUND = 0.5  # of the boxes' sides, shown around them


@dataclass(frozen=True)
class ShownSuspect:
    """A suspect, and what is seen there: the label's box in blue, the model's in orange."""

    suspect: LabelSuspect
    picture: InlineImage


@dataclass(frozen=True)
class LabelCheckSection:
    """The part of the report on one set of images; `label_check.html.j2` shows it."""

    name: str  # of the set, such as `Test images`
    folder: str  # where the files are, as seen from the report
    check: LabelCheck
    shown: tuple[ShownSuspect, ...]  # the first of the list

    kinds = KINDS  # for the page
    sure = SURE


def check_label_sets(
    sets: Mapping[str, tuple[GroundTruth, ServicePredictions]], folder: Path
) -> list[LabelCheckSection]:
    """Check the labels of several sets by what the model finds in them, and write the suspects below a folder.

    Args:
        sets: By name, such as `test`.
        folder: Gets a folder for each set, and lies beside the report.
    """
    sections = []
    for name, (truth, found) in sets.items():
        check = check_labels(truth, match_results(truth, found.results)[1])
        write_suspects(folder / name, check, truth)
        sections.append(label_check_section(check, truth, f"{name} images".capitalize(), f"{folder.name}/{name}"))
    return sections


def label_check_section(check: LabelCheck, truth: GroundTruth, name: str, folder: str) -> LabelCheckSection:
    """Draw the first suspects of the list.

    Raises:
        MissingError: An image is missing.
        DataError: An image cannot be decoded.
    """
    shown = tuple(ShownSuspect(each, _picture(each, truth)) for each in check.suspects[:_SHOWN])
    return LabelCheckSection(name, folder, check, shown)


def _picture(suspect: LabelSuspect, truth: GroundTruth) -> InlineImage:
    pixels = read_pixels(truth.path_of(suspect.file_name))
    boxes = [(box, colour) for box, colour in ((suspect.truth, RIGHT), (suspect.detection, WRONG)) if box]
    left, top, right, bottom = _window([box.bbox for box, _ in boxes], *pixels.shape[1::-1])
    zoom = min(_SIDE / max(right - left, bottom - top), _LARGEST_ZOOM)
    drawn = scale(pixels[top:bottom, left:right], zoom)
    for box, colour in boxes:
        x, y, width, height = box.bbox
        outline(drawn, np.array([x - left, y - top, width, height]) * zoom, colour, 2)
    alt = f"{suspect.kind} in {suspect.file_name}"
    return InlineImage(alt, encode_jpeg(drawn, 80), drawn.shape[1], drawn.shape[0])


def _window(boxes: list[Box], width: int, height: int) -> tuple[int, int, int, int]:
    """The part of an image around boxes: left, top, right, bottom, with at least one pixel."""
    corners = np.array([(x, y, x + across, y + down) for x, y, across, down in boxes])
    low, high = corners[:, :2].min(0), corners[:, 2:].max(0)
    margin = (high - low) * _AROUND
    left, top = np.clip(np.floor(low - margin), 0, [width - 1, height - 1]).astype(int).tolist()
    right, bottom = np.clip(np.ceil(high + margin), [left + 1, top + 1], [width, height]).astype(int).tolist()
    return left, top, right, bottom


def write_suspects(folder: Path, check: LabelCheck, truth: GroundTruth) -> None:
    """Write the images with suspects into files for labelling tools, the most suspect first.

    Each file has all labels of these images, except for crowd regions, and the boxes of the detections that contradict
    them. Both have, where they are suspect, the attributes `kind` and `suspicion`, which is the score of the suspect;
    `drawn_by` tells the `label` from the `model`. An image has `suspicion`, too, that of its first suspect.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        classes = list(truth.categories.values())
        writers = [stack.enter_context(label_writer(kind, folder / name, classes)) for kind, name in FILES.items()]
        for image in _images(check, truth):
            for writer in writers:
                writer.add(image)


def _images(check: LabelCheck, truth: GroundTruth) -> Iterator[LabelledImage]:
    of_image: dict[int, list[LabelSuspect]] = {}
    for each in check.suspects:
        of_image.setdefault(each.image_id, []).append(each)
    labels: dict[int, list[Annotation]] = {}
    for label in truth.annotations:
        if label.image_id in of_image and not label.iscrowd:
            labels.setdefault(label.image_id, []).append(label)
    images = {image.id: image for image in truth.images}
    for image_id, suspects in of_image.items():
        marks = {each.annotation_id: _mark(each, "label") for each in suspects}
        drawn = [
            LabelledBox(truth.categories[each.category_id], each.bbox, attributes=marks.get(each.id, {}))
            for each in labels.get(image_id, [])
        ]
        found = [replace(each.detection, attributes=_mark(each, "model")) for each in suspects if each.detection]
        image, first = images[image_id], suspects[0]
        extra = {"kind": first.kind, "suspicion": round(first.score, 4)}
        yield LabelledImage(image.file_name, image.width, image.height, (*drawn, *found), extra)


def _mark(suspect: LabelSuspect, drawn_by: str) -> dict[str, str | float]:
    return {"kind": suspect.kind, "suspicion": round(suspect.score, 4), "drawn_by": drawn_by}
