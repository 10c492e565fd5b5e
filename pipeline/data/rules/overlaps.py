"""Rules on boxes of one image against each other: none twice, none for two categories, none all but on top of another.

What is near is looked up in a grid, never by comparing every box with every other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.boxes import overlap, shown
from pipeline.data.coco import Annotation, Box, CocoDataset
from pipeline.data.rules.findings import DID, Action, Facts, Result, annotation_finding, with_annotations

_CELL = 4  # side of a grid's cell, in the largest distance between boxes that overlap enough; at least 2
_FEW = 12  # boxes of a group or a cell that are sooner compared each with each
_ABOUT = 1 - 1e-9  # a little less, as `overlap` decides to the last digit
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: spreads numbers over 64 bits, here those of cells


def duplicate_boxes(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """No box twice for one category."""
    problems = [""] * len(dataset.annotations)
    first: dict[tuple[int, int, Box, int], int] = {}
    for i in _twins(dataset):
        each = dataset.annotations[i]
        other = first.setdefault((each.image_id, each.category_id, each.bbox, each.iscrowd), i)
        if other != i:
            problems[i] = f"{shown(each.bbox)} is there already, as annotation {dataset.annotations[other].id}"
    return _judged(dataset, "duplicate-box", problems, action)


def boxes_of_two_categories(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """No box for a second category; a region that is not judged may be one for many."""
    problems = [""] * len(dataset.annotations)
    first: dict[tuple[int, Box], Annotation] = {}
    names = {category.id: category.name for category in dataset.categories}
    for i in _twins(dataset):
        each = dataset.annotations[i]
        other = each if each.iscrowd else first.setdefault((each.image_id, each.bbox), each)
        if other.category_id != each.category_id:
            mine, others = names[each.category_id], names[other.category_id]
            problems[i] = f"{shown(each.bbox)} is '{mine}' here and '{others}' as annotation {other.id}"
    return _judged(dataset, "box-of-two-categories", problems, action)


def _twins(dataset: CocoDataset) -> list[int]:
    """Positions of annotations whose box is there more than once in their image; a chance few of others too."""
    numbers = (hash((each.image_id, each.bbox)) for each in dataset.annotations)
    return np.flatnonzero(_company(np.fromiter(numbers, np.int64, len(dataset.annotations))) > 1).tolist()


def overlapping_boxes(dataset: CocoDataset, _: Facts, action: Action, *, most: float) -> Result:
    """No two boxes of one category overlap by more than `most`, as when an object was boxed twice.

    The first of such boxes counts as the object, and later ones are held against it. The same box again is the
    business of `duplicate_boxes`.
    """
    places = [i for i, each in enumerate(dataset.annotations) if not each.iscrowd]
    objects = [dataset.annotations[i] for i in places]
    problems = [""] * len(dataset.annotations)
    for later, earlier in _near([each.bbox for each in objects], list(map(_group, objects)), most).items():
        each, other = objects[later], objects[earlier]
        shared = overlap(each.bbox, other.bbox)
        problems[places[later]] = f"{shown(each.bbox)} overlaps annotation {other.id} by {shared:.0%}"
    return _judged(dataset, "overlapping-boxes", problems, action)


def _group(annotation: Annotation) -> tuple[int, int]:
    return annotation.image_id, annotation.category_id


def _judged(dataset: CocoDataset, rule: str, problems: list[str], action: Action) -> Result:
    """Meet annotations with a problem with the action; `problems` by position."""
    if not any(problems):
        return dataset, []
    names = {image.id: image.file_name for image in dataset.images}
    judged = list(zip(dataset.annotations, problems, strict=True))
    findings = [
        annotation_finding(rule, "warning", each, DID[action], problem, names[each.image_id])
        for each, problem in judged
        if problem
    ]
    kept = (each for each, problem in judged if not problem)
    return with_annotations(dataset, kept, changed=action == "drop"), findings


def _near(boxes: Sequence[Box], groups: Sequence[tuple[int, int]], most: float) -> dict[int, int]:
    """For boxes that overlap an earlier one of their group by more than `most`, which one, by position.

    Args:
        boxes: `N` boxes.
        groups: `N`, what must be equal.
        most: Intersection over union.
    """
    numbers = np.fromiter(map(hash, groups), np.int64, len(groups)).astype(np.uint64)
    index = np.flatnonzero(_company(numbers) > 1)
    table = np.array([boxes[i] for i in index.tolist()], np.float64).reshape(-1, 4)
    rows, cells = _candidates(table, numbers[index], most)
    where: defaultdict[int, list[int]] = defaultdict(list)
    for i, cell in zip(index[rows].tolist(), cells.tolist(), strict=True):
        where[i].append(cell)
    found: dict[int, int] = {}
    objects: defaultdict[int, list[int]] = defaultdict(list)  # by cell; few to each, as they do not overlap by much
    for i in sorted(where):
        candidates = (other for cell in where[i] for other in objects[cell] if groups[other] == groups[i])
        near = next((other for other in candidates if overlap(boxes[other], boxes[i]) > most), None)
        if near is None:
            for cell in where[i]:
                objects[cell].append(i)
        elif boxes[near] != boxes[i]:
            found[i] = near
    return found


def _company(numbers: NDArray[Any]) -> NDArray[np.intp]:
    """How often each of the numbers is there."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    several: NDArray[np.intp] = counts[inverse]
    return several


def _candidates(
    boxes: NDArray[np.float64], group: NDArray[np.uint64], most: float
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Boxes that may overlap another by more than `most`, and cells in which to look for it: nearly none in sound data.

    Args:
        boxes: `(N, 4)`.
        group: `(N,)`.
        most: Intersection over union.

    Returns:
        `(M,)` rows of boxes and `(M,)` cells.
    """
    many = _company(group) > _FEW
    large, small = np.flatnonzero(many), np.flatnonzero(~many)
    rows, cells = _cells(boxes[large], group[large], most)
    rows, cells = np.concatenate([large[rows], small]), np.concatenate([cells, group[small]])
    size = _company(cells)
    few = np.flatnonzero((size > 1) & (size <= _FEW))
    chosen = size > _FEW
    chosen[few[_close(boxes[rows[few]], cells[few], most)]] = True
    return rows[chosen], cells[chosen]


def _close(boxes: NDArray[np.float64], cells: NDArray[np.uint64], most: float) -> NDArray[np.bool_]:
    """Which boxes `(N, 4)` overlap another of their cell by about `most`; there are few to each cell."""
    order = np.argsort(cells, kind="stable")
    close = np.zeros(len(cells), np.bool_)
    for step in range(1, min(_FEW, len(cells))):
        same = np.flatnonzero(cells[order[:-step]] == cells[order[step:]])
        one, other = order[same], order[same + step]
        a, b = boxes[one], boxes[other]
        sides = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
        shared = np.maximum(sides, 0).prod(axis=1)
        near = shared >= _ABOUT * most * (a[:, 2:].prod(axis=1) + b[:, 2:].prod(axis=1) - shared)
        close[one[near]] = close[other[near]] = True
    return close


def _cells(
    boxes: NDArray[np.float64], group: NDArray[np.uint64], most: float
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Cells that boxes are in, `(M,)` indices of boxes and `(M,)` cells: any two that overlap enough share one.

    Two boxes that overlap by more than t have widths w of a ratio below 1/t, and left edges closer than w(1-t)/t; the
    same goes for heights and upper edges. So the grid is one of log sizes, and within each of its cells one of places,
    with cells as large as the sizes there ask for. Each box is in the cells on both sides of a border that is near.
    """
    slack = -math.log(most)
    size = np.log(boxes[:, 2:]) / (_CELL * slack)
    reach = boxes[:, 2:] * (1 - most) / most
    index = np.arange(len(boxes))
    owners, cells = [], []
    for side in product((-1, 1), repeat=2):  # each size near a border is looked at on both sides of it
        scale = np.floor(size + np.array(side) / _CELL)
        cell = _CELL * np.exp((scale + 1) * _CELL * slack) * (1 - most) / most
        first = np.floor((boxes[:, :2] - reach) / cell)
        for corner in product((-1, 1), repeat=2):
            place = np.floor((boxes[:, :2] + np.array(corner) * reach) / cell)
            twice = ((np.array(corner) > 0) & (place == first)).any(axis=1)
            chosen = _told_apart(size, side) & ~twice
            owners.append(index[chosen])
            cells.append(_number(group[chosen], np.hstack([scale, place])[chosen]))
    return np.concatenate(owners), np.concatenate(cells)


def _told_apart(size: NDArray[np.float64], side: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where looking at this side of a border gives another cell than looking at the first side."""
    low, high = np.floor(size - 1 / _CELL), np.floor(size + 1 / _CELL)
    told_apart: NDArray[np.bool_] = ((np.array(side) < 0) | (low != high)).all(axis=1)
    return told_apart


def _number(group: NDArray[np.uint64], cell: NDArray[np.float64]) -> NDArray[np.uint64]:
    """One number for a cell of a group; two may share one by chance, which costs a comparison."""
    number = group
    for column in cell.T:
        number = _mixed(number + column.astype(np.int64).astype(np.uint64))
    return number


def _mixed(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    product_ = number * _MIX
    return product_ ^ (product_ >> np.uint64(32))
