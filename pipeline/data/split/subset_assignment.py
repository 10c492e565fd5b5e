"""Groups of images assigned to train, eval and test: stratified by class, or by a hash of their names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.groups import Ties
from pipeline.data.split.predefined import EVAL, FREE, SUBSETS, TEST, TRAIN, PredefinedSubsets
from pipeline.data.split.stratification import FilledSubsets, Units, make_units, stratify

Integers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplitGroups:
    """Groups of images in the order of assignment; a group in several subsets of the data's own split is in parts.

    Attributes:
        rows: The images of each group.
        keys: The identity of each group, for the hash.
        units: How many images of which classes each group has.
        subset: The subset that a group has before, or FREE, `(groups,)`.
        may_leave_train: Whether a subset that the data's own split lacks may take the group, `(groups,)`.
        lacking: The subsets that the data's own split lacks.
    """

    rows: tuple[tuple[int, ...], ...]
    keys: tuple[str, ...]
    units: Units
    subset: Integers
    may_leave_train: npt.NDArray[np.bool_]
    lacking: tuple[int, ...]

    @property
    def images(self) -> int:
        """How many images there are in all groups."""
        return int(self.units.weights.sum())


@dataclass(frozen=True)
class SubsetAssignment:
    """The subset of each group, `(groups,)`, and how many images each subset should have got, `(3,)`."""

    subset: Integers
    asked: Shares


def make_groups(
    dataset: CocoDataset, images: Sequence[Image], ties: Ties, predefined: PredefinedSubsets, shares: Shares
) -> SplitGroups:
    """Group the images, in the order of their first images."""
    found = []
    for group in predefined.groups:
        parts = sorted({int(predefined.subset[row]) for row in group})
        key = ties.key(images, group)
        for part in parts:
            rows = tuple(row for row in group if predefined.subset[row] == part)
            found.append((key, part, parts == [TRAIN], rows))
    rows_of = tuple(rows for *_, rows in found)
    return SplitGroups(
        rows_of,
        tuple(key for key, *_ in found),
        _units(dataset, images, rows_of),
        np.array([part for _, part, *_ in found], np.int64),
        np.array([may_leave for *_, may_leave, _ in found], bool),
        tuple(part for part in (EVAL, TEST) if part not in predefined.present and shares[part] > 0),
    )


def assign(groups: SplitGroups, shares: Shares, *, mode: str, seed: int) -> SubsetAssignment:
    """Assign every group to a subset.

    First the subsets that the data's own split lacks take groups from its train set; then all groups without a subset
    are assigned.
    """
    subset, weights = groups.subset.copy(), groups.units.weights
    movable = np.flatnonzero(groups.may_leave_train) if groups.lacking else np.zeros(0, np.int64)
    free = np.flatnonzero(subset == FREE)
    fixed = np.setdiff1d(np.flatnonzero(subset != FREE), movable)
    asked: Shares = np.bincount(subset[fixed], weights[fixed], len(SUBSETS)).astype(np.float64)

    def fill(rows: Integers, part_shares: Shares, filled: FilledSubsets | None) -> None:
        nonlocal asked
        count = int(weights[rows].sum())
        if mode == "stable":
            subset[rows] = [hashed_subset(groups.keys[row], part_shares.tolist(), seed) for row in rows]
            asked = asked + count * part_shares
        else:
            sizes = _whole_sizes(count, part_shares)
            subset[rows] = stratify(groups.units.take(rows), sizes, filled)
            asked = asked + sizes

    if len(movable):
        fill(movable, _among(shares, {TRAIN, *groups.lacking}), None)
    filled = _filled(groups.units, subset)
    if mode == "balanced" and filled.images.any():
        shares = _to_fill(shares, filled.images, int(weights[free].sum()))
    fill(free, shares, filled)
    return SubsetAssignment(subset, asked)


def hashed_subset(key: str, shares: Sequence[float], seed: int) -> int:
    """The share that a key falls into, whatever other keys there are.

    The shares hold in expectation only: of n images, a subset with share s gets n s, with a standard deviation of
    sqrt(n s (1 - s)): of 1,000 images 150 give or take 11, of 100 images 15 give or take 4. The last share lies first
    on the line from 0 to 1: a change between train and eval then moves no image into or out of the test set.

    Args:
        key: What decides.
        shares: Shares that add up to 1.
        seed: Another seed gives other places.
    """
    # Not the hash that `conversion.draw_order` sorts by: images drawn by its smallest values would all fall together.
    digest = hashlib.sha256(f"split/{seed}/{key}".encode()).digest()
    point = int.from_bytes(digest[:7], "big") / 2**56  # exact in a float, and below 1
    places = [i for i in reversed(range(len(shares))) if shares[i] > 0]
    for place in places:
        point -= shares[place]
        if point < 0:
            return place
    return places[-1]


def hash_deviation(count: float, share: float) -> float:
    """The standard deviation of how many of `count` keys fall into a share."""
    return math.sqrt(count * share * (1 - share))


def objects(dataset: CocoDataset, images: Sequence[Image]) -> tuple[Integers, Integers]:
    """The image and the class of every object as rows and columns, `(objects,)` each, without crowd regions."""
    row = {image.id: i for i, image in enumerate(images)}
    column = {category.id: i for i, category in enumerate(dataset.categories)}
    pairs = [
        (row[each.image_id], column[each.category_id])
        for each in dataset.annotations
        if not each.iscrowd and each.image_id in row and each.category_id in column
    ]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _whole_sizes(count: int, shares: Shares) -> Integers:
    """Whole numbers that add up to `count`: rounded down, the remainder to the largest fractions."""
    exact = count * shares
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    missing = count - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:missing]] += 1
    return sizes


def _units(dataset: CocoDataset, images: Sequence[Image], rows_of: Sequence[Sequence[int]]) -> Units:
    """The classes of each group; background counts as one more class, so that it is spread evenly, too."""
    assigned = [images[row] for rows in rows_of for row in rows]
    unit = np.repeat(np.arange(len(rows_of)), [len(rows) for rows in rows_of]).astype(np.int64)
    rows, columns = objects(dataset, assigned)
    ids, background = {image.id for image in dataset.background_images}, len(dataset.categories)
    empty = np.array([row for row, image in enumerate(assigned) if image.id in ids], np.int64)
    rows = np.concatenate([rows, empty])
    columns = np.concatenate([columns, np.full(len(empty), background)])
    return make_units(unit, rows, columns, len(rows_of), background + 1)


def _among(shares: Shares, parts: Collection[int]) -> Shares:
    some = [share if part in parts else 0.0 for part, share in enumerate(shares.tolist())]
    return np.array(some) / sum(some)


def _to_fill(shares: Shares, filled: Integers, count: int) -> Shares:
    """Shares of `count` more images that bring the subsets as near to their shares of all as possible."""
    short = np.maximum(0.0, (filled.sum() + count) * shares - filled)
    return short / short.sum() if count else shares


def _filled(units: Units, subset: Integers) -> FilledSubsets:
    parts = range(len(SUBSETS))
    return FilledSubsets(
        np.array([units.weights[subset == part].sum() for part in parts], np.int64),
        np.array([units.take(np.flatnonzero(subset == part)).per_class for part in parts]),
    )
