"""Images of each class, so that a person sees what the class is, and whether the boxes are right."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from pipeline.data.coco import CocoDataset
from pipeline.data.conversion import draw_order
from pipeline.data.report.box_columns import Columns, Integers
from pipeline.data.report.inline_images import Gallery, Picture, Row
from pipeline.data.report.thumbnails import Shot, develop
from pipeline.errors import UsageError

_ROOM = (260, 180)  # pixels of a picture
_MOST_CLASSES = 80
_MOST_PICTURES = 160  # keeps a page of 80 classes within a few megabytes


def class_samples(dataset: CocoDataset, images_folder: Path, *, count: int = 4, seed: int = 0) -> Gallery:
    """Images of every class with its boxes marked; the boxes of other classes are thin.

    A box that is small on its image is shown with a part of the image around it.

    Args:
        dataset: A sound data set.
        images_folder: Where its images are.
        count: How many images of a class, at most; fewer where there are many classes.
        seed: Which ones.

    Raises:
        UsageError: The count is below 0.
    """
    if count < 0:
        raise UsageError(f"{count} images of a class are none", expected="0 or more")
    columns = Columns.of(dataset)
    counts = columns.per_class(len(dataset.categories))
    classes = np.argsort(-counts, kind="stable")[: min(_MOST_CLASSES, np.count_nonzero(counts))]
    count = min(count, max(1, _MOST_PICTURES // max(1, len(classes))))
    chosen = _choose(dataset, columns, classes, count, seed)
    shots = _shots(dataset, columns, chosen)
    names = dataset.classes
    pictures: defaultdict[int, list[Picture]] = defaultdict(list)
    for box, shot, made in zip(chosen, shots, develop(images_folder, shots, room=_ROOM), strict=True):
        place = int(columns.classes[box])
        alt = f"{names[place]} in {shot.file_name}"
        alt = f"{alt}: {made.problem}" if made.problem else alt
        pictures[place].append(Picture(alt, made.jpeg, made.width, made.height, shot.file_name))
    rows = (Row(f"{names[place]} ({counts[place]} boxes)", tuple(each)) for place, each in pictures.items())
    return Gallery(tuple(rows), "There are no boxes to show." if count else "No samples were asked for.")


def _shots(dataset: CocoDataset, columns: Columns, chosen: Integers) -> list[Shot]:
    """What to draw for each chosen box: it, the others of its class on the image, and those of other classes."""
    order = np.argsort(columns.images, kind="stable")
    start = np.concatenate([[0], np.cumsum(columns.per_image())])
    shots = []
    for box in chosen:
        image = columns.images[box]
        here = order[start[image] : start[image + 1]]
        same = columns.classes[here] == columns.classes[box]
        marked = np.concatenate([[box], here[same & (here != box)]])
        shots.append(Shot(dataset.images[image].file_name, columns.boxes[marked], columns.boxes[here[~same]]))
    return shots


def _choose(dataset: CocoDataset, columns: Columns, classes: Integers, count: int, seed: int) -> Integers:
    """Boxes, up to `count` of each class, from different images drawn by the seed; the class's largest on each."""
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
