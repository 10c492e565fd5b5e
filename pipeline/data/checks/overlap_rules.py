"""Rules on pairs of boxes in one image: none twice, none for two categories, no two that overlap almost wholly.

Neighbours are found by sweeping over the boxes of an image from left to right, and, where very many lie above each
other, in a grid. The rules never compare every box with every other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, product
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.boxes import overlap, shown
from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import Facts, Result, judge_places
from pipeline.data.coco import Annotation, Box, CocoDataset

_CELL = 4  # side of a grid's cell, in the largest distance between boxes that overlap enough; at least 2
_FEW = 12  # boxes of a group: comparing all pairs is quicker
_WINDOW = 64  # boxes that start closely after another, up to which comparing beats a grid
_ABOUT = 1 - 1e-9  # a little less, as `overlap` decides exactly
_GROUP = attrgetter("image_id", "category_id")
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd: spreads numbers over 64 bits, here those of cells


def duplicate_boxes(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes that repeat another box of their category."""
    problems = [""] * len(dataset.annotations)
    first: dict[tuple[int, int, Box, int], int] = {}
    for i in _twins(dataset):
        each = dataset.annotations[i]
        other = first.setdefault((each.image_id, each.category_id, each.bbox, each.iscrowd), i)
        if other != i:
            problems[i] = f"{shown(each.bbox)} is there already, as annotation {dataset.annotations[other].id}"
    return judge_places(dataset, action, problems)


def boxes_of_two_categories(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes that repeat a box of another category; a crowd region may belong to several."""
    problems = [""] * len(dataset.annotations)
    first: dict[tuple[int, Box], Annotation] = {}
    names = {category.id: category.name for category in dataset.categories}
    for i in _twins(dataset):
        each = dataset.annotations[i]
        other = each if each.iscrowd else first.setdefault((each.image_id, each.bbox), each)
        if other.category_id != each.category_id:
            mine, others = names[each.category_id], names[other.category_id]
            problems[i] = f"{shown(each.bbox)} is '{mine}' here and '{others}' as annotation {other.id}"
    return judge_places(dataset, action, problems)


def _twins(dataset: CocoDataset) -> list[int]:
    """Positions of annotations whose box occurs more than once in their image, and by chance a few others."""
    numbers = (hash((each.image_id, each.bbox)) for each in dataset.annotations)
    return np.flatnonzero(_company(np.fromiter(numbers, np.int64, len(dataset.annotations))) > 1).tolist()


def overlapping_boxes(dataset: CocoDataset, _: Facts, action: Action, *, most: float) -> Result:
    """Find boxes of one category that overlap by more than `most`, such as an object boxed twice.

    The first of such boxes counts as the object, and later ones are compared with it. `duplicate_boxes` handles equal
    boxes.
    """
    places = [i for i, each in enumerate(dataset.annotations) if not each.iscrowd]
    objects = [dataset.annotations[i] for i in places]
    problems = [""] * len(dataset.annotations)
    for later, earlier in _near(objects, most).items():
        each, other = objects[later], objects[earlier]
        shared = overlap(each.bbox, other.bbox)
        problems[places[later]] = f"{shown(each.bbox)} overlaps annotation {other.id} by {shared:.0%}"
    return judge_places(dataset, action, problems)


def _near(boxes: Sequence[Annotation], most: float) -> dict[int, int]:
    """The earlier box that a box overlaps by more than `most` in its image and category, by position."""
    numbers = np.fromiter(map(hash, map(_GROUP, boxes)), np.int64, len(boxes)).astype(np.uint64)
    sides = chain.from_iterable(each.bbox for each in boxes)
    table = np.fromiter(sides, np.float64, 4 * len(boxes)).reshape(-1, 4)
    rows, cells = _candidates(table, numbers, most)
    where: defaultdict[int, list[int]] = defaultdict(list)
    for i, cell in zip(rows.tolist(), cells.tolist(), strict=True):
        where[i].append(cell)
    found: dict[int, int] = {}
    objects: defaultdict[int, list[int]] = defaultdict(list)  # by cell; few to each, as they do not overlap by much
    for i in sorted(where):
        each = boxes[i]
        candidates = (other for cell in where[i] for other in objects[cell] if _GROUP(boxes[other]) == _GROUP(each))
        near = next((other for other in candidates if overlap(boxes[other].bbox, each.bbox) > most), None)
        if near is None:
            for cell in where[i]:
                objects[cell].append(i)
        elif boxes[near].bbox != each.bbox:
            found[i] = near
    return found


def _company(numbers: NDArray[Any]) -> NDArray[np.intp]:
    """How often each of the numbers occurs."""
    _, inverse, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    several: NDArray[np.intp] = counts[inverse]
    return several


def _candidates(
    boxes: NDArray[np.float64], group: NDArray[np.uint64], most: float
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """Rows `(M,)` of boxes that may overlap another by more than `most`, and the cells `(M,)` to search for it."""
    rows = np.flatnonzero(_close(boxes, group, most))
    many = _company(group[rows]) > _FEW
    large, small = rows[many], rows[~many]
    index, cells = _cells(boxes[large], group[large], most)
    owners = large[index]
    near = _close(boxes[owners], cells, most)
    return np.concatenate([owners[near], small]), np.concatenate([cells[near], group[small]])


def _close(boxes: NDArray[np.float64], group: NDArray[np.uint64], most: float) -> NDArray[np.bool_]:
    """Which boxes overlap another of their group by about `most`; all boxes of very crowded groups.

    Two boxes that overlap by more than t have left edges closer than w(1-t), where w is the width of the left one: in
    the order of left edges, each box is compared only with the few that follow so closely.
    """
    order = np.lexsort((boxes[:, 0], group))
    boxes, group = boxes[order], group[order]
    left = boxes[:, 0]
    last = left + boxes[:, 2] * (1 - most) + (1 - _ABOUT) * (np.abs(left) + boxes[:, 2])
    close = _crowded(left, last, group)
    left_over = np.flatnonzero(~close)
    for step in range(1, _WINDOW):
        left_over = left_over[left_over < len(order) - step]
        after = left_over + step
        left_over = left_over[(group[after] == group[left_over]) & (left[after] <= last[left_over])]
        if not len(left_over):
            break
        near = left_over[_overlap_by(boxes[left_over], boxes[left_over + step], _ABOUT * most)]
        close[near] = close[near + step] = True
    placed = np.empty_like(close)
    placed[order] = close
    return placed


def _crowded(left: NDArray[np.float64], last: NDArray[np.float64], group: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which boxes, sorted by group and left edge, are of a group where `_WINDOW` boxes start closely after another."""
    crowded = (group[_WINDOW:] == group[:-_WINDOW]) & (left[_WINDOW:] <= last[:-_WINDOW])
    if not crowded.any():
        return np.zeros(len(group), np.bool_)
    return np.isin(group, group[:-_WINDOW][crowded])


def _overlap_by(one: NDArray[np.float64], other: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Which boxes `(N, 4)` overlap their other by `least`."""
    sides = np.minimum(one[:, :2] + one[:, 2:], other[:, :2] + other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.maximum(sides, 0).prod(axis=1)
    enough: NDArray[np.bool_] = shared >= least * (one[:, 2:].prod(axis=1) + other[:, 2:].prod(axis=1) - shared)
    return enough


def _cells(
    boxes: NDArray[np.float64], group: NDArray[np.uint64], most: float
) -> tuple[NDArray[np.intp], NDArray[np.uint64]]:
    """The cells of each box, `(M,)` indices of boxes and `(M,)` cells: any two that overlap enough share one.

    Two boxes that overlap by more than t have widths w of a ratio below 1/t, and left edges closer than w(1-t)/t; the
    same holds for heights and upper edges. So the grid is one of log sizes, and within each of its cells one of
    places, with cells in proportion to the sizes there. A box near a border is in the cells on both sides.
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
            chosen = _differs(size, side) & ~twice
            owners.append(index[chosen])
            cells.append(_number(group[chosen], np.hstack([scale, place])[chosen]))
    return np.concatenate(owners), np.concatenate(cells)


def _differs(size: NDArray[np.float64], side: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where this side of a border is in another cell than the first side."""
    low, high = np.floor(size - 1 / _CELL), np.floor(size + 1 / _CELL)
    differs: NDArray[np.bool_] = ((np.array(side) < 0) | (low != high)).all(axis=1)
    return differs


def _number(group: NDArray[np.uint64], cell: NDArray[np.float64]) -> NDArray[np.uint64]:
    """A number for a cell of a group; two cells may share one by chance, which costs a comparison."""
    number = group
    for column in cell.T:
        number = _mixed(number + column.astype(np.int64).astype(np.uint64))
    return number


def _mixed(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    product_ = number * _MIX
    return product_ ^ (product_ >> np.uint64(32))
