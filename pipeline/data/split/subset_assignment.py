"""Groups of images dealt out to train, eval and test: balanced in classes, or stable in place."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.groups import Ties
from pipeline.data.split.hashed_split import stable_place
from pipeline.data.split.predefined import EVAL, FREE, SUBSETS, TEST, TRAIN, Placed
from pipeline.data.split.stratification import Held, Units, make_units, stratify

Integers = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Deck:
    """What is to be dealt out, in order: groups of images, a group that straddles the data's own split in its parts.

    Attributes:
        rows: The images of each unit.
        keys: What identifies each unit.
        units: How many images, of what classes.
        owner: The subset that a unit has before, or FREE, `(units,)`.
        lent: Whether an eval or test set that the data's own split lacks may be taken from it, `(units,)`.
        lacking: The subsets that may take from it.
    """

    rows: tuple[tuple[int, ...], ...]
    keys: tuple[str, ...]
    units: Units
    owner: Integers
    lent: npt.NDArray[np.bool_]
    lacking: tuple[int, ...]


@dataclass(frozen=True)
class Dealt:
    """The subset of each unit, `(units,)`, and how many images each subset should have got, `(3,)`."""

    owner: Integers
    asked: Shares


def make_deck(
    dataset: CocoDataset,
    images: Sequence[Image],
    ties: Ties,
    placed: Placed,
    shares: Shares,
) -> Deck:
    """Put the images in units, in the order of their first images.

    Args:
        dataset: What the images show.
        images: Those to deal, in the order of `ties` and `placed`, which decides between equals.
        ties: What ties them.
        placed: Which have a subset.
        shares: What each subset is to get.
    """
    found = []
    for group in placed.groups:
        parts = sorted({int(placed.owner[row]) for row in group})
        key = ties.key(images, group)
        for part in parts:
            rows = tuple(row for row in group if placed.owner[row] == part)
            found.append((key, part, len(parts) == 1 and part == TRAIN, rows))
    rows_of = tuple(rows for *_, rows in found)
    lacking = tuple(part for part in (EVAL, TEST) if part not in placed.brought and shares[part] > 0)
    return Deck(
        rows_of,
        tuple(key for key, *_ in found),
        _units(dataset, images, rows_of),
        np.array([part for _, part, *_ in found], np.int64),
        np.array([lent for *_, lent, _ in found], bool),
        lacking,
    )


def deal(deck: Deck, shares: Shares, *, mode: str, seed: int) -> Dealt:
    """Give every unit a subset.

    First the subsets that the data's own split lacks get theirs from its train set; then all units that have none
    are dealt out.

    Args:
        deck: What to deal.
        shares: What each subset is to get of all images, `(3,)`.
        mode: `balanced` or `stable`.
        seed: Of the places in stable mode.
    """
    owner, weights = deck.owner.copy(), deck.units.weights
    lent = np.flatnonzero(deck.lent) if deck.lacking else np.zeros(0, np.int64)
    free = np.flatnonzero(owner == FREE)
    kept = np.setdiff1d(np.flatnonzero(owner != FREE), lent)
    asked: Shares = np.bincount(owner[kept], weights[kept], len(SUBSETS)).astype(np.float64)

    def give(rows: Integers, part_shares: Shares, held: Held | None) -> None:
        nonlocal asked
        count = int(weights[rows].sum())
        if mode == "stable":
            owner[rows] = [stable_place(deck.keys[row], part_shares.tolist(), seed) for row in rows]
            asked = asked + count * part_shares
        else:
            sizes = whole_sizes(count, part_shares)
            owner[rows] = stratify(deck.units.take(rows), sizes, held)
            asked = asked + sizes

    if len(lent):
        give(lent, _among(shares, {TRAIN, *deck.lacking}), None)
    held = _held(deck.units, owner)
    if mode == "balanced" and held.images.any():
        shares = _to_fill(shares, held.images, int(weights[free].sum()))
    give(free, shares, held)
    return Dealt(owner, asked)


def whole_sizes(count: int, shares: Shares) -> Integers:
    """Whole numbers that add up to `count`: rounded down, the remainder to the largest fractions."""
    exact = count * shares
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    missing = count - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:missing]] += 1
    return sizes


def objects(dataset: CocoDataset, images: Sequence[Image]) -> tuple[Integers, Integers]:
    """The image and the class of every object as rows and columns, `(objects,)` each; crowd regions do not count."""
    row = {image.id: i for i, image in enumerate(images)}
    column = {category.id: i for i, category in enumerate(dataset.categories)}
    pairs = [
        (row[each.image_id], column[each.category_id])
        for each in dataset.annotations
        if not each.iscrowd and each.image_id in row and each.category_id in column
    ]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _units(dataset: CocoDataset, images: Sequence[Image], rows_of: Sequence[Sequence[int]]) -> Units:
    """What each unit shows; that an image is background is like one class more, to be dealt out as evenly."""
    dealt = [images[row] for rows in rows_of for row in rows]
    unit = np.repeat(np.arange(len(rows_of)), [len(rows) for rows in rows_of]).astype(np.int64)
    rows, columns = objects(dataset, dealt)
    ids, background = {image.id for image in dataset.background_images}, len(dataset.categories)
    nothing = np.array([row for row, image in enumerate(dealt) if image.id in ids], np.int64)
    rows = np.concatenate([rows, nothing])
    columns = np.concatenate([columns, np.full(len(nothing), background)])
    return make_units(unit, rows, columns, len(rows_of), background + 1)


def _among(shares: Shares, parts: Collection[int]) -> Shares:
    some = [share if part in parts else 0.0 for part, share in enumerate(shares.tolist())]
    return np.array(some) / sum(some)


def _to_fill(shares: Shares, held: Integers, count: int) -> Shares:
    """Shares of `count` images that bring the subsets, with what they have, as near to their shares as they can."""
    short = np.maximum(0.0, (held.sum() + count) * shares - held)
    return short / short.sum() if count else shares


def _held(units: Units, owner: Integers) -> Held:
    parts = range(len(SUBSETS))
    return Held(
        np.array([units.weights[owner == part].sum() for part in parts], np.int64),
        np.array([units.take(np.flatnonzero(owner == part)).per_class for part in parts]),
    )
