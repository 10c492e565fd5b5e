"""Images with their boxes: some of each class, some of the worst findings, and a grid of a written dataset."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.data.checks.findings import Finding
from pipeline.data.coco import Annotation, CocoDataset, Image, read_coco
from pipeline.data.conversion import draw_order
from pipeline.data.figures import PALETTE, Chart, Pixels, draw_labelled, read_pixels, scale
from pipeline.data.report.box_columns import BoxColumns, Integers
from pipeline.data.report.figure_style import WIDTH, labels, written
from pipeline.data.report.inline_images import Gallery, GalleryRow, InlineImage
from pipeline.data.report.thumbnails import Thumbnail, draw_thumbnails
from pipeline.errors import UsageError

_CLASS_ROOM = (260, 180)  # pixels of a thumbnail, at most
_MOST_CLASSES = 80
_MOST_IMAGES = 160  # keeps a page of 80 classes within a few megabytes
_FINDING_ROOM = (300, 220)  # pixels of a thumbnail, at most
_SEVERITIES = ("error", "warning", "info")
_SHOWN_SIDE = 380  # pixels of the longer side of an image in a grid


def class_samples(dataset: CocoDataset, images_folder: Path, *, count: int = 4, seed: int = 0) -> Gallery:
    """Draw images of every class with its boxes; the boxes of other classes are thin.

    A small box is shown with the part of the image around it.

    Args:
        dataset: A validated dataset.
        images_folder: The folder of its images.
        count: Most images of a class; fewer where there are many classes.
        seed: Decides which images.

    Raises:
        UsageError: The count is below 0.
    """
    if count < 0:
        raise UsageError(f"cannot show {count} images of a class", expected="0 or more")
    columns = BoxColumns.of(dataset)
    counts = columns.per_class(len(dataset.categories))
    classes = np.argsort(-counts, kind="stable")[: min(_MOST_CLASSES, np.count_nonzero(counts))]
    count = min(count, max(1, _MOST_IMAGES // max(1, len(classes))))
    chosen = _choose(dataset, columns, classes, count, seed)
    wanted = _thumbnails(dataset, columns, chosen)
    names = dataset.classes
    images: defaultdict[int, list[InlineImage]] = defaultdict(list)
    for box, thumbnail, made in zip(
        chosen, wanted, draw_thumbnails(images_folder, wanted, room=_CLASS_ROOM), strict=True
    ):
        place = int(columns.classes[box])
        alt = f"{names[place]} in {thumbnail.file_name}"
        alt = f"{alt}: {made.problem}" if made.problem else alt
        images[place].append(InlineImage(alt, made.jpeg, made.width, made.height, thumbnail.file_name))
    rows = (GalleryRow(f"{names[place]} ({counts[place]} boxes)", tuple(each)) for place, each in images.items())
    return Gallery(tuple(rows), "There are no boxes to show." if count else "No samples were asked for.")


def _thumbnails(dataset: CocoDataset, columns: BoxColumns, chosen: Integers) -> list[Thumbnail]:
    """The thumbnail of each chosen box, with the other boxes of its class and those of other classes on the image."""
    order = np.argsort(columns.images, kind="stable")
    start = np.concatenate([[0], np.cumsum(columns.per_image())])
    wanted = []
    for box in chosen:
        image = columns.images[box]
        here = order[start[image] : start[image + 1]]
        same = columns.classes[here] == columns.classes[box]
        marked = np.concatenate([[box], here[same & (here != box)]])
        wanted.append(Thumbnail(dataset.images[image].file_name, columns.boxes[marked], columns.boxes[here[~same]]))
    return wanted


def _choose(dataset: CocoDataset, columns: BoxColumns, classes: Integers, count: int, seed: int) -> Integers:
    """Up to `count` boxes of each class, from different images in the seed's order; the largest box on each."""
    drawn = sorted(range(len(dataset.images)), key=lambda i: draw_order(dataset.images[i].file_name, seed))
    rank = np.empty(len(drawn), np.int64)
    rank[drawn] = np.arange(len(drawn))
    place = np.full(len(dataset.categories), -1)
    place[classes] = np.arange(len(classes))
    area = columns.boxes[:, 2] * columns.boxes[:, 3]
    order = np.lexsort((np.arange(len(area)), -area, rank[columns.images], place[columns.classes]))
    order = order[place[columns.classes[order]] >= 0]
    kind, image = columns.classes[order], columns.images[order]
    first = np.ones(len(order), bool)
    first[1:] = (kind[1:] != kind[:-1]) | (image[1:] != image[:-1])
    largest = order[first]  # of each class on each image, by class and then as drawn
    kind = columns.classes[largest]
    starts = np.flatnonzero(np.r_[True, kind[1:] != kind[:-1]]) if len(kind) else np.zeros(0, np.int64)
    number = np.arange(len(kind)) - np.repeat(starts, np.diff(np.r_[starts, len(kind)]))
    chosen: Integers = largest[number < count]
    return chosen


def worst_examples(findings: Iterable[Finding], images_folder: Path, *, count: int = 12) -> Gallery:
    """Draw images of findings with the box concerned: some of every rule, the most severe first.

    Boxes are drawn as found, before any repair; for a file that cannot be decoded the problem is shown as text.

    Args:
        findings: The findings.
        images_folder: The folder of the images.
        count: Most images.
    """
    chosen = choose_findings(findings, count)
    wanted = [Thumbnail(each.file_name, _boxes(each), np.zeros((0, 4))) for each in chosen]
    drawn = draw_thumbnails(images_folder, wanted, room=_FINDING_ROOM)
    images = [
        InlineImage(made.problem or f"{each.rule}: {each.item}", made.jpeg, made.width, made.height, _caption(each))
        for each, made in zip(chosen, drawn, strict=True)
    ]
    return Gallery((GalleryRow("", tuple(images)),) if images else (), "No finding is about an image.")


def choose_findings(findings: Iterable[Finding], count: int) -> list[Finding]:
    """Choose findings to show: one of every rule, the most severe rules first, then a second of every rule, and so on.

    Findings of a rule come in the order of severity and of the list, each image once.
    """
    rules: defaultdict[str, dict[str, Finding]] = defaultdict(dict)
    for each in sorted(findings, key=lambda each: _SEVERITIES.index(each.severity)):
        if each.file_name:
            rules[each.rule].setdefault(each.file_name, each)
    rounds = zip_longest(*(list(each.values())[:count] for each in rules.values()))
    turns = [each for turn in rounds for each in turn if each is not None]
    order = {rule: place for place, rule in enumerate(rules)}
    return sorted(turns[: max(0, count)], key=lambda each: order[each.rule])


def _boxes(finding: Finding) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.array([] if finding.bbox is None else finding.bbox, np.float64).reshape(-1, 4)


def _caption(finding: Finding) -> str:
    return f"{finding.rule}, {finding.action}: {finding.detail} ({finding.file_name})"


def sample_grid(folder: Path, *, count: int = 9, seed: int = 0) -> Chart:
    """Draw some images of a written dataset with all their boxes and labels, as a grid.

    Args:
        folder: `annotations.json` and `images/`.
        count: Most images; at least 1.
        seed: Decides which images.

    Raises:
        UsageError: The count is below 1.
        DataError: An image cannot be decoded.
    """
    if count < 1:
        raise UsageError(f"cannot draw a grid of {count} images", expected="1 or more")
    dataset = read_coco(folder / "annotations.json")
    chosen = sorted(dataset.images, key=lambda image: draw_order(image.file_name, seed))[:count]
    columns = min(3, max(1, len(chosen)))
    rows = max(1, math.ceil(len(chosen) / columns))
    chart = Chart(WIDTH, rows * (WIDTH / columns * _aspect(chosen) + 0.25))
    groups = dataset.by_image()
    cells: npt.NDArray[Any] = chart.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for axes, image in zip(cells.flat, chosen, strict=False):
        axes.imshow(_annotated(folder / "images" / image.file_name, groups.get(image.id, []), dataset))
        axes.set_title(written(Path(image.file_name).name, 40), fontsize=8, color="0.3", parse_math=False)
    return chart


def _annotated(path: Path, annotations: Sequence[Annotation], dataset: CocoDataset) -> Pixels:
    """The image in RGB, at the size it is shown in, so that labels are equally large on all."""
    pixels = read_pixels(path)
    zoom = _SHOWN_SIDE / max(pixels.shape[:2])
    pixels = scale(pixels, zoom)
    if annotations:
        index = {category.id: i for i, category in enumerate(dataset.categories)}
        rows = [index[each.category_id] for each in annotations]
        names = labels(dataset.categories)
        texts = [names[row] + " crowd" * each.iscrowd for row, each in zip(rows, annotations, strict=True)]
        boxes = np.array([each.bbox for each in annotations]) * zoom
        pixels = draw_labelled(pixels, boxes, [PALETTE[row % 7] for row in rows], texts)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _aspect(images: Sequence[Image]) -> float:
    """A height over width that fits most of the images, from 0.6 to 1."""
    return float(np.clip(np.quantile([each.height / max(1, each.width) for each in images] or [1.0], 0.75), 0.6, 1.0))
