"""Images with their boxes: some of each class, some of the worst findings, and a grid of a written dataset.

For a page each image is decoded once, no larger than needed, and cropped to the box.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.data.checks.findings import Finding
from pipeline.data.coco import Annotation, CocoDataset, read_coco, unsafe_name
from pipeline.data.conversion import draw_order
from pipeline.data.figures import PALETTE, Chart, Pixels, draw_labelled, encode_jpeg, outline, read_pixels, scale
from pipeline.data.fonts import labels, written
from pipeline.data.report.box_columns import BoxColumns, Floats, Integers
from pipeline.data.report.dataset_figures import WIDTH
from pipeline.data.report.inline_images import Gallery, InlineImage
from pipeline.errors import DataError
from pipeline.serving.decoding import MAX_PIXELS, read_header

Thumbnail = tuple[str, Floats, Floats]  # a file, `(N, 4)` boxes to mark, the first of which is shown, `(M, 4)` others
View = tuple[float, float, float, float]  # left, top, right, bottom on the image, in its pixels

_CLASS_ROOM = (260, 180)  # pixels of a thumbnail, at most
_FINDING_ROOM = (300, 220)
_MOST_CLASSES = 80
_MOST_IMAGES = 160  # keeps a page of 80 classes within a few megabytes
_SEVERITIES = ("error", "warning", "info")
_SHOWN_SIDE = 380  # pixels of the longer side of an image in a grid
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
_CONTEXT = 3.5  # times its side that is shown around a small box
_LEAST_VIEW = 96  # fewest pixels of the image that a thumbnail shows across
_WHOLE = 0.6  # share of the image from which on all of it is shown
_BEYOND = 0.25  # share of the image's side by which a view may follow a box out of the image
_MARGIN = (238, 238, 238)  # grey, where there is no image
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold an image of MAX_PIXELS


def class_samples(dataset: CocoDataset, images_folder: Path, *, count: int = 4, seed: int = 0) -> Gallery:
    """Draw images of every class with its boxes; the boxes of other classes are thin.

    A small box is shown with the part of the image around it. The seed decides which images; there are at most `count`
    of a class, and fewer where there are many classes.
    """
    columns = BoxColumns.of(dataset)
    counts = columns.per_class(len(dataset.categories))
    classes = np.argsort(-counts, kind="stable")[: min(_MOST_CLASSES, np.count_nonzero(counts))]
    count = min(count, max(1, _MOST_IMAGES // max(1, len(classes))))
    chosen = _choose(dataset, columns, classes, count, seed)
    by_image = np.argsort(columns.images, kind="stable")
    start = np.concatenate([[0], np.cumsum(columns.per_image())])
    wanted: list[Thumbnail] = []
    for box in chosen:
        image = columns.images[box]
        here = by_image[start[image] : start[image + 1]]
        same = columns.classes[here] == columns.classes[box]
        marked = np.concatenate([[box], here[same & (here != box)]])
        wanted.append((dataset.images[image].file_name, columns.boxes[marked], columns.boxes[here[~same]]))
    images: defaultdict[int, list[InlineImage]] = defaultdict(list)
    drawn = draw_thumbnails(images_folder, wanted, room=_CLASS_ROOM)
    for place, (name, *_), each in zip(columns.classes[chosen].tolist(), wanted, drawn, strict=True):
        alt = f"{dataset.classes[place]} in {name}" + f": {each.alt}" * bool(each.alt)
        images[place].append(replace(each, alt=alt, caption=name))
    rows = {f"{dataset.classes[i]} ({counts[i]} boxes)": row for i, row in images.items()}
    return Gallery(rows, "There are no boxes to show." if count else "No samples were asked for.")


def _choose(dataset: CocoDataset, columns: BoxColumns, classes: Integers, count: int, seed: int) -> Integers:
    """Up to `count` boxes of each class, from different images in the seed's order; the largest box on each."""
    rank = np.empty(len(dataset.images), np.int64)
    rank[sorted(range(len(rank)), key=lambda i: draw_order(dataset.images[i].file_name, seed))] = np.arange(len(rank))
    place = np.full(len(dataset.categories), -1)
    place[classes] = np.arange(len(classes))
    area = columns.boxes[:, 2] * columns.boxes[:, 3]
    key = place[columns.classes] * len(rank) + rank[columns.images]  # by class, then in the seed's order
    order = np.lexsort((-area, key))
    order = order[key[order] >= 0]
    largest = order[np.unique(key[order], return_index=True)[1]]  # of each class on each image
    kind = place[columns.classes[largest]]
    number = np.arange(len(kind)) - np.searchsorted(kind, kind)
    chosen: Integers = largest[number < count]
    return chosen


def worst_examples(findings: Iterable[Finding], images_folder: Path, *, count: int = 12) -> Gallery:
    """Draw images of findings with the box concerned: some of every rule, the most severe first.

    Boxes are drawn as found, before any repair; for a file that cannot be decoded the problem is shown as text.
    """
    chosen = choose_findings(findings, count)
    none = np.zeros((0, 4))
    wanted = [(each.file_name, none if each.bbox is None else np.array([each.bbox]), none) for each in chosen]
    images = tuple(
        replace(
            image,
            alt=image.alt or f"{each.rule}: {each.item}",
            caption=f"{each.rule}, {each.action}: {each.detail} ({each.file_name}{each.source and f', {each.source}'})",
        )
        for each, image in zip(chosen, draw_thumbnails(images_folder, wanted, room=_FINDING_ROOM), strict=True)
    )
    return Gallery({"": images} if images else {}, "No finding is about an image.")


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
    order = list(rules)
    return sorted(turns[:count], key=lambda each: order.index(each.rule))


def sample_grid(folder: Path, *, count: int = 9, seed: int = 0) -> Chart:
    """Draw some images of a written dataset, `annotations.json` and `images/`, with boxes and labels, as a grid."""
    dataset = read_coco(folder / "annotations.json")
    chosen = sorted(dataset.images, key=lambda image: draw_order(image.file_name, seed))[:count]
    columns = min(3, max(1, len(chosen)))
    rows = max(1, math.ceil(len(chosen) / columns))
    aspects = [each.height / max(1, each.width) for each in chosen] or [1.0]
    aspect = float(np.clip(np.quantile(aspects, 0.75), 0.6, 1.0))  # fits most of the images
    chart = Chart(WIDTH, rows * (WIDTH / columns * aspect + 0.25))
    boxes = dataset.by_image()
    cells: npt.NDArray[Any] = chart.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for axes, image in zip(cells.flat, chosen, strict=False):
        axes.imshow(_annotated(folder / "images" / image.file_name, boxes.get(image.id, []), dataset))
        axes.set_title(written(Path(image.file_name).name, 40), fontsize=8, color="0.3")
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


def draw_thumbnails(folder: Path, wanted: Sequence[Thumbnail], *, room: tuple[int, int]) -> list[InlineImage]:
    """Draw thumbnails, in the given order; for an image that cannot be shown `alt` is the problem, never an error."""
    by_name: defaultdict[str, list[Thumbnail]] = defaultdict(list)
    for each in wanted:
        by_name[each[0]].append(each)
    with ThreadPoolExecutor(_WORKERS) as pool:  # OpenCV lets go of the interpreter lock
        results = pool.map(lambda group: iter(_draw_all(folder, group, room)), by_name.values())
        drawn = dict(zip(by_name, results, strict=True))
    return [next(drawn[name]) for name, *_ in wanted]


def choose_view(width: int, height: int, marked: Floats) -> View:
    """The part of an image that shows the first of `(N, 4)` boxes well: four by three around a small box, else all.

    A box that leaves the image gets a margin.
    """
    if not len(marked) or not np.isfinite(marked[0]).all():
        return 0.0, 0.0, float(width), float(height)
    x, y, across, down = marked[0].tolist()
    wide = max(_LEAST_VIEW, _CONTEXT * max(across, down * 4 / 3))
    tall = wide * 3 / 4
    inside = 0 <= x + across / 2 <= width and 0 <= y + down / 2 <= height
    if inside and wide <= _WHOLE * width and tall <= _WHOLE * height:
        left = min(max(x + across / 2 - wide / 2, 0), width - wide)
        top = min(max(y + down / 2 - tall / 2, 0), height - tall)
        return left, top, left + wide, top + tall
    return (
        max(min(0.0, x), -_BEYOND * width),
        max(min(0.0, y), -_BEYOND * height),
        min(max(width, x + across), (1 + _BEYOND) * width),
        min(max(height, y + down), (1 + _BEYOND) * height),
    )


def _draw_all(folder: Path, wanted: Sequence[Thumbnail], room: tuple[int, int]) -> list[InlineImage]:
    name = wanted[0][0]
    problem, pixels = "The file cannot be decoded.", None
    try:
        data = b"" if unsafe_name(name) else (folder / name).read_bytes()
        header = read_header(data)
        width, height = header.width, header.height
        if header.pixels > MAX_PIXELS:
            problem = f"{header.pixels / 1e6:.0f} megapixels are too many to show."
        else:
            zoom = max(_zoom(choose_view(width, height, marked), room) for _, marked, _ in wanted)
            # the smallest size that is not below the one to show
            flag = next((flag for divisor, flag in _REDUCED.items() if divisor * zoom <= 1), cv2.IMREAD_COLOR)
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except FileNotFoundError:
        problem = "The file is missing."
    except (OSError, DataError, cv2.error):
        problem = "The file is not an image that can be shown."
    if pixels is None:
        return [InlineImage(problem)] * len(wanted)
    if (pixels.shape[1] > pixels.shape[0]) != (width > height) and width != height:
        width, height = height, width  # EXIF has turned it
    return [_draw(pixels, (width, height), marked, others, room) for _, marked, others in wanted]


def _zoom(view: View, room: tuple[int, int]) -> float:
    return min(room[0] / (view[2] - view[0]), room[1] / (view[3] - view[1]))


def _draw(pixels: Any, size: tuple[int, int], marked: Floats, others: Floats, room: tuple[int, int]) -> InlineImage:
    """The view at its final size with its boxes; grey where it goes beyond the image."""
    view = choose_view(*size, marked)
    zoom = _zoom(view, room)
    left, top, right, bottom = max(0.0, view[0]), max(0.0, view[1]), min(size[0], view[2]), min(size[1], view[3])
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]  # below 1 where the decoder has reduced it
    rows = slice(int(top * down), max(int(top * down) + 1, round(bottom * down)))
    part = pixels[rows, int(left * across) : max(int(left * across) + 1, round(right * across))]
    shown = max(1, round((right - left) * zoom)), max(1, round((bottom - top) * zoom))
    drawn = cv2.resize(part, shown, interpolation=cv2.INTER_AREA if shown[0] < part.shape[1] else cv2.INTER_LINEAR)
    beyond = (top - view[1], view[3] - bottom, left - view[0], view[2] - right)
    above, below, before, after = (round(each * zoom) for each in beyond)
    drawn = cv2.copyMakeBorder(drawn, above, below, before, after, cv2.BORDER_CONSTANT, value=_MARGIN)
    faint = drawn.copy()
    for box in (others - [view[0], view[1], 0, 0]) * zoom:
        outline(faint, box, "#FFFFFF", 1)
    final = cv2.addWeighted(faint, 0.6, drawn, 0.4, 0).astype(np.uint8)
    for box in (marked[::-1] - [view[0], view[1], 0, 0]) * zoom:
        outline(final, box, "#FFFFFF", 4)  # an edge, so that the box stands out on dark and on light
        outline(final, box, PALETTE[5], 2)
    return InlineImage("", encode_jpeg(final, 80), final.shape[1], final.shape[0])
