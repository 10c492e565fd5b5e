"""Groups of images assigned to train, eval and test: stratified by class, or by a hash of their names.

Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD 2011. The rarest class is assigned
first, each image to the subset that lacks most of that class. Unlike there, a full subset takes no more images, and a
unit may be a group of images, the largest first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.groups import Ties
from pipeline.data.split.predefined import EVAL, FREE, TEST, TRAIN, Bools, Integers, PredefinedSubsets

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SplitGroups:
    """Groups of images in the order of assignment; a group in several subsets of the data's own split is in parts."""

    rows: tuple[tuple[int, ...], ...]  # the images of each group
    keys: tuple[str, ...]  # what a hash assigns each group by
    weights: Integers  # how many images each group has
    shown: Any  # how many of them show each class, `(groups, classes + 1)`, sparse; the last class is background
    subset: Integers  # that a group has before, or FREE
    may_leave_train: Bools  # for a subset that the data's own split lacks
    lacking: tuple[int, ...]  # those subsets


def make_groups(
    dataset: CocoDataset, images: Sequence[Image], ties: Ties, predefined: PredefinedSubsets, shares: Shares
) -> SplitGroups:
    """Group the images, in the order of their first images."""
    keys, parts, may_leave, rows_of = [], [], [], []
    for group in predefined.groups:
        held = sorted({int(predefined.subset[row]) for row in group})
        for part in held:
            keys.append(ties.key(images, group))
            parts.append(part)
            may_leave.append(held == [TRAIN])
            rows_of.append(tuple(row for row in group if predefined.subset[row] == part))
    weights = np.array([len(rows) for rows in rows_of], np.int64)
    assigned = [images[row] for rows in rows_of for row in rows]
    rows, columns = objects(dataset, assigned)
    background, classes = {image.id for image in dataset.background_images}, len(dataset.categories)
    empty = np.array([row for row, image in enumerate(assigned) if image.id in background], np.int64)
    rows, columns = np.concatenate([rows, empty]), np.concatenate([columns, np.full(len(empty), classes)])
    return SplitGroups(
        tuple(rows_of),
        tuple(keys),
        weights,
        count_shown(weights, rows, columns, classes + 1),
        np.array(parts, np.int64),
        np.array(may_leave, bool),
        tuple(part for part in (EVAL, TEST) if part not in predefined.present and shares[part] > 0),
    )


def count_shown(weights: Integers, rows: Integers, columns: Integers, classes: int) -> Any:
    """How many images of each group show each class, `(groups, classes)`, sparse.

    Images are numbered group by group; `rows` and `columns` are the image and the class of every object.
    """
    group = np.repeat(np.arange(len(weights)), weights)
    image, column = np.divmod(np.unique(rows * classes + columns), classes)  # each class once an image
    counts = csr_array((np.ones(len(image), np.int64), (group[image], column)), (len(weights), classes))
    counts.sum_duplicates()
    return counts


def assign(groups: SplitGroups, shares: Shares, *, mode: str, seed: int) -> tuple[Integers, Shares]:
    """The subset of each group, `(groups,)`, and how many images each subset should have got, `(3,)`.

    First the subsets that the data's own split lacks take groups from its train set; then all groups without a subset
    are assigned.
    """
    subset, weights = groups.subset.copy(), groups.weights
    movable = groups.may_leave_train & bool(groups.lacking)
    free, fixed = subset == FREE, (subset != FREE) & ~movable
    asked: Shares = np.bincount(subset[fixed], weights[fixed], 3).astype(np.float64)

    def fill(rows: Bools, part_shares: Shares, held: Bools) -> None:
        nonlocal asked
        count = int(weights[rows].sum())
        if mode == "stable":
            keys = (groups.keys[row] for row in np.flatnonzero(rows))
            subset[rows] = [hashed_subset(key, part_shares.tolist(), seed) for key in keys]
            asked = asked + count * part_shares
            return
        sizes = _whole_sizes(count, part_shares)
        filled = np.bincount(subset[held], weights[held], 3).astype(np.int64)
        shown = np.stack([groups.shown[held & (subset == part)].sum(axis=0) for part in range(3)])
        subset[rows] = stratify(weights[rows], groups.shown[rows], sizes, filled, shown)
        asked = asked + sizes

    if movable.any():
        among = np.where([part in {TRAIN, *groups.lacking} for part in range(3)], shares, 0.0)
        fill(movable, among / among.sum(), np.zeros(len(subset), bool))
    if mode == "balanced" and not free.all() and free.any():  # as near to the shares of all as possible
        filled = np.bincount(subset[~free], weights[~free], 3)
        short = np.maximum(0.0, weights.sum() * shares - filled)
        shares = short / short.sum()
    fill(free, shares, ~free)
    return subset, asked


def hashed_subset(key: str, shares: Sequence[float], seed: int) -> int:
    """The share that a key falls into, whatever other keys there are; another seed gives other places.

    The shares add up to 1, and hold in expectation only: of n images, a subset with share s gets n s, with a standard
    deviation of sqrt(n s (1 - s)): of 1,000 images 150 give or take 11, of 100 images 15 give or take 4. The last share
    lies first on the line from 0 to 1: a change between train and eval then moves no image into or out of the test set.
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


def stratify(weights: Integers, shown: Any, sizes: Integers, filled: Integers, filled_shown: Integers) -> Integers:
    """Assign groups to subsets, so that each subset gets its share of every class.

    A group goes to the subset that lacks most of the class, of those with room for all of it; if none has, to the
    subset with most room: a size is exceeded by less than a group, and missed by at most two thirds of one. So groups
    of one image fill all subsets exactly. A subset with a size that would stay empty gets the smallest group of one
    that has several.

    `weights` are the images of each group, `(groups,)`, and equals are assigned in this order; `shown` is how many of
    them show each class, `(groups, classes)`, sparse. `sizes` are the images for each subset, `(subsets,)`, with the
    sum of the weights. Subsets have `filled` images already, which show the classes `filled_shown` times.
    """
    total = sizes + filled
    remaining = shown.sum(axis=0)
    wanted = np.outer(total / max(1, total.sum()), remaining + filled_shown.sum(axis=0))
    lacking: list[list[float]] = (wanted - filled_shown).tolist()  # of each subset, images of each class
    places: list[int] = sizes.tolist()
    subset = np.full(len(weights), -1)

    def place(group: int, needs: list[tuple[float, ...]]) -> int:
        weight = int(weights[group])
        fitting = [part for part, room in enumerate(places) if room >= weight]
        part = max(fitting, key=needs.__getitem__) if fitting else max(range(len(places)), key=places.__getitem__)
        subset[group] = part
        places[part] -= weight
        return part

    largest_first = np.argsort(-weights, kind="stable")
    by_class = shown[largest_first].tocsc()
    counts, starts = remaining.tolist(), shown.indptr.tolist()
    columns, images = shown.indices.tolist(), shown.data.tolist()
    while any(counts):
        rarest = min((i for i, count in enumerate(counts) if count), key=counts.__getitem__)
        showing = by_class.indices[by_class.indptr[rarest] : by_class.indptr[rarest + 1]]
        for group in largest_first[np.sort(showing)].tolist():
            if subset[group] < 0:
                part = place(group, [(row[rarest], room) for row, room in zip(lacking, places, strict=True)])
                for pair in range(starts[group], starts[group + 1]):
                    lacking[part][columns[pair]] -= images[pair]
                    counts[columns[pair]] -= images[pair]
    for group in largest_first[subset[largest_first] < 0].tolist():  # without a class: fill the places left
        place(group, [(room / max(1, size),) for room, size in zip(places, sizes.tolist(), strict=True)])
    for part in np.flatnonzero((sizes > 0) & (filled == 0)).tolist():
        _spare_one(subset, weights, sizes, part)
    return subset


def _spare_one(subset: Integers, weights: Integers, sizes: Integers, part: int) -> None:
    """Give an empty subset the smallest group of the fullest that has several."""
    groups = np.bincount(subset, minlength=len(sizes))
    if groups[part] or not (groups > 1).any():
        return
    over = np.bincount(subset, weights, len(sizes)) - sizes
    rows = np.flatnonzero(subset == np.where(groups > 1, over, -np.inf).argmax())
    subset[rows[weights[rows].argmin()]] = part


def _whole_sizes(count: int, shares: Shares) -> Integers:
    """Whole numbers that add up to `count`: rounded down, the remainder to the largest fractions."""
    exact = count * shares
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    missing = count - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:missing]] += 1
    return sizes
