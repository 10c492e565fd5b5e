"""Iterative stratification: groups of images assigned so that each subset gets its share of every class.

Sechidis, Tsoumakas, Vlahavas: On the Stratification of Multi-Label Data, ECML PKDD 2011. The rarest class is assigned
first, each image to the subset that lacks most of that class. Unlike there, a full subset takes no more images, and a
unit may be a group of images, the largest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """Units that are assigned as a whole: how many images each has, and how many of them show which class.

    Attributes:
        weights: Images of each unit, `(units,)`.
        starts: Where each unit's part of `columns` and `counts` starts, then where the last one ends, `(units + 1,)`.
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
        """The units of these rows, which must ascend."""
        chosen = np.zeros(len(self.weights), bool)
        chosen[rows] = True
        lengths = np.diff(self.starts)
        pairs = np.repeat(chosen, lengths)
        starts = np.concatenate([[0], np.cumsum(lengths[chosen])])
        return Units(self.weights[chosen], starts, self.columns[pairs], self.counts[pairs], self.classes)


def make_units(unit: Integers, image: Integers, column: Integers, count: int, classes: int) -> Units:
    """Count the classes of units."""
    width = max(1, classes)
    shown = np.unique(image * width + column)  # each class once an image
    pairs, counts = np.unique(unit[shown // width] * width + shown % width, return_counts=True)
    starts = np.searchsorted(pairs // width, np.arange(count + 1))
    return Units(np.bincount(unit, minlength=count), starts, pairs % width, counts, classes)


@dataclass(frozen=True)
class FilledSubsets:
    """What subsets have already: images `(subsets,)`, and images that show each class `(subsets, classes)`."""

    images: Integers
    shown: Integers


def stratify(units: Units, sizes: Integers, filled: FilledSubsets | None = None) -> Integers:
    """Assign units to subsets.

    A unit goes to the subset that lacks most of the class, of those with room for all of it; if none has, to the subset
    with most room. So no subset misses its size by more than the largest unit, and units of one image fill all subsets
    exactly. A subset with a size that would stay empty gets the smallest unit of one that has several.

    Args:
        units: The units; equals are assigned in this order.
        sizes: Images for each subset, `(subsets,)`; their sum is that of the units.
        filled: What the subsets have already, for the balance of classes.

    Returns:
        The subset of each unit, `(units,)`.
    """
    filled = filled or FilledSubsets(np.zeros_like(sizes), np.zeros((len(sizes), units.classes), np.int64))
    total = sizes + filled.images
    share = total / max(1, total.sum())
    lacking = np.outer(share, units.per_class + filled.shown.sum(axis=0)) - filled.shown  # (subsets, classes) images
    subset = _assign(units, sizes, lacking.tolist())
    for part in np.flatnonzero((sizes > 0) & (filled.images == 0)).tolist():
        _spare_one(subset, units.weights, sizes, part)
    return subset


def _assign(units: Units, sizes: Integers, lacking: list[list[float]]) -> Integers:
    places: list[int] = sizes.tolist()
    weights: list[int] = units.weights.tolist()
    starts, columns, counts = units.starts.tolist(), units.columns.tolist(), units.counts.tolist()
    remaining: list[int] = units.per_class.tolist()
    showing = _showing(units)
    subset = [-1] * len(weights)
    needs: list[tuple[float, ...]]
    while any(remaining):
        rarest = min((i for i, count in enumerate(remaining) if count), key=remaining.__getitem__)
        for unit in showing[rarest]:
            if subset[unit] >= 0:
                continue
            needs = [(row[rarest], room) for row, room in zip(lacking, places, strict=True)]
            part = _neediest(needs, places, weights[unit])
            subset[unit] = part
            places[part] -= weights[unit]
            for pair in range(starts[unit], starts[unit + 1]):
                lacking[part][columns[pair]] -= counts[pair]
                remaining[columns[pair]] -= counts[pair]
    for unit in np.argsort(-units.weights, kind="stable").tolist():
        if subset[unit] < 0:  # units without a class fill the places left
            needs = [(room / max(1, size),) for room, size in zip(places, sizes.tolist(), strict=True)]
            subset[unit] = part = _neediest(needs, places, weights[unit])
            places[part] -= weights[unit]
    return np.array(subset, np.int64)


def _showing(units: Units) -> list[list[int]]:
    """The units that show each class: the largest first, equals in their own order."""
    unit_of_pair = np.repeat(np.arange(len(units.weights)), np.diff(units.starts))
    order = np.lexsort((-units.weights[unit_of_pair], units.columns))
    ends = np.searchsorted(units.columns[order], np.arange(1, units.classes))
    return [part.tolist() for part in np.split(unit_of_pair[order], ends)] if units.classes else []


def _neediest(needs: Sequence[tuple[float, ...]], places: Sequence[int], weight: int) -> int:
    """Of the subsets with room for a unit, the neediest; if none has room, the one with most.

    So a size is exceeded by less than a unit, and missed by at most two thirds of one.
    """
    fitting = [part for part, room in enumerate(places) if room >= weight]
    if fitting:
        return max(fitting, key=needs.__getitem__)
    return max(range(len(places)), key=places.__getitem__)


def _spare_one(subset: Integers, weights: Integers, sizes: Integers, part: int) -> None:
    units = np.bincount(subset, minlength=len(sizes))
    donors = np.flatnonzero(units > 1).tolist()
    if units[part] or not donors:
        return
    over = np.bincount(subset, weights, len(sizes)) - sizes
    rows = np.flatnonzero(subset == max(donors, key=lambda donor: over[donor]))
    subset[rows[weights[rows].argmin()]] = part
