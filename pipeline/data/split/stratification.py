"""Iterative stratification: groups of images dealt out so that each subset gets its share of every class.

Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD 2011. The rarest class is dealt out
first, each image to the subset that still lacks most of that class. Unlike there, a subset that has its number of
images takes no more, and what is dealt may be a group of images, the largest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """What is dealt out as a whole: how many images it has, and how many of them show which class.

    Attributes:
        weights: Images of each unit, `(units,)`.
        starts: Where a unit's part of `columns` and `counts` starts, and at last where all end, `(units + 1,)`.
        columns: The classes that a unit shows, `(pairs,)`.
        counts: How many of its images show that class, `(pairs,)`.
        classes: How many classes there are.
    """

    weights: Integers
    starts: Integers
    columns: Integers
    counts: Integers
    classes: int

    @property
    def per_class(self) -> Integers:
        """How many images show each class, `(classes,)`."""
        return np.bincount(self.columns, self.counts, self.classes).astype(np.int64)

    def take(self, rows: Integers) -> Units:
        """Only the units of these rows, which must rise."""
        chosen = np.zeros(len(self.weights), bool)
        chosen[rows] = True
        lengths = np.diff(self.starts)
        pairs = np.repeat(chosen, lengths)
        starts = np.concatenate([[0], np.cumsum(lengths[chosen])])
        return Units(self.weights[chosen], starts, self.columns[pairs], self.counts[pairs], self.classes)


def make_units(unit: Integers, image: Integers, column: Integers, count: int, classes: int) -> Units:
    """Put together what images show.

    Args:
        unit: The unit of each image, `(images,)`.
        image: The image of each object, `(objects,)`.
        column: The class of each object, `(objects,)`.
        count: How many units there are.
        classes: How many classes there are.
    """
    width = max(1, classes)
    shown = np.unique(image * width + column)  # an image shows a class or does not, however often
    pairs, counts = np.unique(unit[shown // width] * width + shown % width, return_counts=True)
    starts = np.searchsorted(pairs // width, np.arange(count + 1))
    return Units(np.bincount(unit, minlength=count), starts, pairs % width, counts, classes)


@dataclass(frozen=True)
class Held:
    """What subsets have already: images `(subsets,)`, and images that show each class `(subsets, classes)`."""

    images: Integers
    shown: Integers


def stratify(units: Units, sizes: Integers, held: Held | None = None) -> Integers:
    """Deal units out.

    A unit goes where there is room for all of it, to the subset that lacks most of the class; if there is none, to the
    subset with most room. So no subset misses its size by more than the largest unit, and units of one image fill all
    to the last place. A subset with a size that would stay empty is given the smallest unit of one that has several.

    Args:
        units: In the order in which equals are dealt.
        sizes: Images that each subset is to get, `(subsets,)`; together those of the units.
        held: What they have already, for the balance of classes.

    Returns:
        The subset of each unit, `(units,)`.
    """
    held = held or Held(np.zeros_like(sizes), np.zeros((len(sizes), units.classes), np.int64))
    total = sizes + held.images
    share = total / max(1, total.sum())
    lacking = np.outer(share, units.per_class + held.shown.sum(axis=0)) - held.shown  # (subsets, classes) images
    owner = _deal(units, sizes, lacking.tolist())
    for part in np.flatnonzero((sizes > 0) & (held.images == 0)).tolist():
        _spare_one(owner, units.weights, sizes, part)
    return owner


def _deal(units: Units, sizes: Integers, lacking: list[list[float]]) -> Integers:
    places: list[int] = sizes.tolist()
    weights: list[int] = units.weights.tolist()
    starts, columns, counts = units.starts.tolist(), units.columns.tolist(), units.counts.tolist()
    remaining: list[int] = units.per_class.tolist()
    showing = _showing(units)
    owner = [-1] * len(weights)
    needs: list[tuple[float, ...]]
    while any(remaining):
        rarest = min((i for i, count in enumerate(remaining) if count), key=remaining.__getitem__)
        for unit in showing[rarest]:
            if owner[unit] >= 0:
                continue
            needs = [(row[rarest], room) for row, room in zip(lacking, places, strict=True)]
            part = _neediest(needs, places, weights[unit])
            owner[unit] = part
            places[part] -= weights[unit]
            for pair in range(starts[unit], starts[unit + 1]):
                lacking[part][columns[pair]] -= counts[pair]
                remaining[columns[pair]] -= counts[pair]
    for unit in np.argsort(-units.weights, kind="stable").tolist():
        if owner[unit] < 0:  # nothing to see in these: they fill the places left
            needs = [(room / max(1, size),) for room, size in zip(places, sizes.tolist(), strict=True)]
            owner[unit] = part = _neediest(needs, places, weights[unit])
            places[part] -= weights[unit]
    return np.array(owner, np.int64)


def _showing(units: Units) -> list[list[int]]:
    """The units that show each class: the largest first, equals in their own order."""
    unit_of_pair = np.repeat(np.arange(len(units.weights)), np.diff(units.starts))
    order = np.lexsort((-units.weights[unit_of_pair], units.columns))
    ends = np.searchsorted(units.columns[order], np.arange(1, units.classes))
    return [part.tolist() for part in np.split(unit_of_pair[order], ends)] if units.classes else []


def _neediest(needs: Sequence[tuple[float, ...]], places: Sequence[int], weight: int) -> int:
    """Of the subsets with room for a unit, the one with most need; without any, the one with most room.

    That only the subset with most room is ever overfilled bounds the error: by less than a unit above, and by two
    thirds of one below.
    """
    fitting = [part for part, room in enumerate(places) if room >= weight]
    if fitting:
        return max(fitting, key=needs.__getitem__)
    return max(range(len(places)), key=places.__getitem__)


def _spare_one(owner: Integers, weights: Integers, sizes: Integers, part: int) -> None:
    units = np.bincount(owner, minlength=len(sizes))
    donors = np.flatnonzero(units > 1).tolist()
    if units[part] or not donors:
        return
    over = np.bincount(owner, weights, len(sizes)) - sizes
    rows = np.flatnonzero(owner == max(donors, key=lambda donor: over[donor]))
    owner[rows[weights[rows].argmin()]] = part
