"""Fingerprints of images in 288 bytes, and a search for similar ones in time that grows with their number.

A fingerprint is a thumbnail of 16 x 16 shades of grey and 4 x 4 of colour. Candidates are found by the signs of its
lowest frequencies, as in a perceptual hash
(https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html) with a threshold of zero: 63 bits, from
which those of a mirrored or turned image follow. They are sorted in several permuted orders, and each fingerprint is
compared with the next few in each, after Manku et al., Detecting near-duplicates for web crawling (WWW 2007). So no
number of similar images makes it quadratic: N fingerprints, in 2 turns in 30 orders and in 8 in 2 more, are compared
with 16 neighbours at most. Candidates are then compared by the thumbnails: first by sums of their colours that no turn
changes, then by the colours, then by the greys. Several orders are searched at once, with the same result as in turn.

The limits were chosen on COCO's photographs: nearly all copies that are re-encoded, resized, brighter or cropped by two
hundredths are within them; of different photographs the most similar pair is more than twice as far apart. A flat image
has no fingerprint: one grey wall is not another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from pipeline.serving.image_fingerprint import (
    ACROSS,
    COLOUR_SIDE,
    DOWN,
    FINGERPRINT_BYTES,
    GREYS,
    SIDE,
    Pixels,
    upright,
)

Indices = npt.NDArray[np.intp]

_FREQUENCIES = 8  # the lowest of each direction
_ORDERS, _NEIGHBOURS = 32, 16
_MIRRORINGS, _TURNS = 2, 8  # turns by EXIF orientation, from 0: the first two are the original and its mirror image
_TURNED_ORDERS = 2  # orders with all turns: quarter turns keep every cell, and few bits differ
_MOST_BITS = 12  # of 63 that differ
_AT_ONCE = 1 << 13  # fingerprints at a time: 16 MB where all have to be compared
_THREADS = 4  # at most: each takes some 200 bytes an image

# Limits for two fingerprints with mean 0 and standard deviation 1: 1 - correlation, the largest difference of a cell;
# and the mean difference of the colours, in shades of 255.
_MOST_APART, _MOST_IN_A_CELL, _MOST_IN_COLOUR = 0.08, 1.75, 6.0
_LOOSE = 2.0  # times the limits, for the first members of two groups that become one


def group_similar(prints: Sequence[bytes], *, whole_chains: bool = False) -> list[int]:
    """Group similar images, mirrored ones and those turned by quarters included.

    Two groups become one where two of their members are similar and, without `whole_chains`, their first members
    nearly so: a first member then represents its group, and a slow pan is many groups. With `whole_chains` no two
    similar fingerprints are in different groups, and a slow pan is one. Empty fingerprints are alone. For each
    fingerprint the index of the first one of its group is returned.
    """
    seen = np.flatnonzero([bool(each) for each in prints])
    first = np.arange(len(prints))
    if len(seen) > 1:
        table = np.frombuffer(b"".join(prints), np.uint8).reshape(-1, FINGERPRINT_BYTES)
        first[seen] = seen[_group(table, whole_chains)]
    return [int(index) for index in first]


def find_similar(prints: Pixels, others: Pixels) -> npt.NDArray[np.bool_]:
    """Which of N fingerprints are similar to at least one of M others, in any of the 8 orientations, `(N,)`.

    All pairs are compared by their bits, so that none is missed and the time grows with N times M; pairs with similar
    bits are compared by their thumbnails. Both tables are `(…, FINGERPRINT_BYTES)`, without flat images.
    """
    found = np.zeros(len(prints), np.bool_)
    order = _order(0)
    keys = _keys(_bits(prints), order, _TURNS).reshape(_TURNS, -1)
    other_keys = _keys(_bits(others), order, 1)
    for start in range(0, len(others), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        for i in np.flatnonzero(~found):
            turns, at = np.nonzero(np.bitwise_count(keys[:, i, None] ^ other_keys[part]) <= _MOST_BITS)
            if len(at):
                turned = np.broadcast_to(prints[i], (len(at), FINGERPRINT_BYTES))
                found[i] = _are_similar(others[part][at], turned, turns).any()
    return found


def _group(table: Pixels, whole_chains: bool) -> Indices:
    """The root of each fingerprint of a table `(N, FINGERPRINT_BYTES)`, by union-find: the first one of its group."""
    roots: Indices = np.arange(len(table))
    for a, b in _similar_pairs(table, roots):
        low, high = sorted(_resolved(roots, np.array([a, b])).tolist())
        if low == high:
            continue
        if not whole_chains and {low, high} != {a, b}:
            one, other = table[[low] * _TURNS], table[[high] * _TURNS]
            if not _are_similar(one, other, np.arange(_TURNS), _LOOSE).any():
                continue
        roots[high] = low
    return _resolved(roots, np.arange(len(table)))


def _similar_pairs(table: Pixels, roots: Indices) -> Iterator[tuple[int, int]]:
    """Similar neighbours in any order of the bits, except those that have one root already.

    Pairs come order by order. `roots` changes while threads read it: they may find a pair that has one root by now,
    which changes nothing, but never leave out one that has not. The first order is searched alone, because it finds
    most pairs of the many images that may be similar, and all others then have one root.
    """
    bits, sums = _bits(table), _colour_sums(table)
    for low, high in _neighbours(table, bits, sums, roots, 0):
        yield from zip(low.tolist(), high.tolist(), strict=True)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        for found in pool.map(lambda number: list(_neighbours(table, bits, sums, roots, number)), range(1, _ORDERS)):
            for low, high in found:
                yield from zip(low.tolist(), high.tolist(), strict=True)


def _neighbours(
    table: Pixels, bits: npt.NDArray[np.bool_], sums: npt.NDArray[np.int16], roots: Indices, number: int
) -> Iterator[tuple[Indices, Indices]]:
    """Similar neighbours in one order of the bits: the lower indices `(n,)` of pairs and the higher ones."""
    count = len(table)
    keys = _keys(bits, _order(number), _MIRRORINGS if number < _ORDERS - _TURNED_ORDERS else _TURNS)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    for start in range(0, len(order), _AT_ONCE):
        part = slice(start, start + _AT_ONCE + _NEIGHBOURS)
        near_keys, near = keys[part], order[part]
        for step in range(1, min(_NEIGHBOURS, len(near) - 1) + 1):
            (at,) = np.nonzero(np.bitwise_count(near_keys[:-step] ^ near_keys[step:]) <= _MOST_BITS)
            one, other = near[at], near[at + step]
            some = (one < count) | (other < count)  # a pair of turned ones is compared unturned elsewhere
            one, other = one[some], other[some]
            low, (turn, high) = np.minimum(one, other), np.divmod(np.maximum(one, other), count)
            # in no turn can the colours differ by less than their sums
            useful = np.abs(sums[low] - sums[high]).sum(axis=1) <= _MOST_IN_COLOUR * (FINGERPRINT_BYTES - GREYS)
            useful &= _root(roots, low) != _root(roots, high)
            low, high = low[useful], high[useful]
            similar = _are_similar(table[low], table[high], turn[useful])
            if similar.any():
                yield low[similar], high[similar]


def _colour_sums(table: Pixels) -> npt.NDArray[np.int16]:
    """Sums of each colour over the corners, the middle and the rest of the cells, `(N, 6)`: the same in all turns."""
    colours = table[:, GREYS:].reshape(-1, COLOUR_SIDE**2, 2).astype(np.float32)
    sums = np.einsum("nci,cp->npi", colours, _RINGS).reshape(-1, 2 * _RINGS.shape[1])
    return np.asarray(sums, np.int16)


def _root(roots: Indices, prints: Indices) -> Indices:
    found = roots[prints]
    while not np.array_equal(above := roots[found], found):
        found = above
    return found


def _resolved(roots: Indices, prints: Indices) -> Indices:
    found = _root(roots, prints)
    roots[prints] = found  # shorter paths for the next call
    return found


def _are_similar(one: Pixels, other: Pixels, turn: Indices, slack: float = 1.0) -> npt.NDArray[np.bool_]:
    """Whether pairs of fingerprints `(n, FINGERPRINT_BYTES)` are similar, the second ones turned, `(n,)`."""
    colours = np.take_along_axis(other, _CELLS[turn, GREYS:], axis=1)
    in_colour = np.abs(one[:, GREYS:].astype(np.int16) - colours).sum(axis=1, dtype=np.int32)
    similar: npt.NDArray[np.bool_] = in_colour <= slack * _MOST_IN_COLOUR * colours.shape[1]
    (rows,) = np.nonzero(similar)
    a = _normalised(one[rows])
    b = _normalised(np.take_along_axis(other[rows], _CELLS[turn[rows], :GREYS], axis=1))
    apart = 1 - np.einsum("ij,ij->i", a, b) / GREYS
    in_a_cell = np.abs(a - b).max(axis=1, initial=0)
    similar[rows] = (apart <= slack * _MOST_APART) & (in_a_cell <= slack * _MOST_IN_A_CELL)
    return similar


def _normalised(prints: Pixels) -> npt.NDArray[np.float32]:
    greys = prints[:, :GREYS].astype(np.float32)
    greys -= greys.mean(axis=1, keepdims=True)
    greys /= greys.std(axis=1, keepdims=True)
    return greys


def _bits(table: Pixels) -> npt.NDArray[np.bool_]:
    """Signs `(N, 64)` of the lowest frequencies of the cosine transform; the first one, the mean, is always False."""
    bits = np.empty((len(table), _FREQUENCIES**2), np.bool_)
    for start in range(0, len(table), _AT_ONCE):
        greys = table[start : start + _AT_ONCE, :GREYS].astype(np.float32).reshape(-1, SIDE, SIDE)
        bits[start : start + _AT_ONCE] = (_COSINES @ greys @ _COSINES.T > 0).reshape(-1, _FREQUENCIES**2)
    bits[:, 0] = False
    return bits


def _keys(bits: npt.NDArray[np.bool_], permutation: Indices, turns: int) -> npt.NDArray[np.uint64]:
    """The bits `(N, 64)` in so many turns, in the permuted order, as numbers `(turns * N,)`."""
    as_it_is = _packed(np.take(bits, permutation, axis=1))
    transposed = _packed(np.take(bits, _TRANSPOSED[permutation], axis=1)) if turns > 4 else as_it_is
    signs = _packed(_SIGNS[:turns, permutation])
    return np.concatenate([(as_it_is if turn < 4 else transposed) ^ signs[turn] for turn in range(turns)])


def _packed(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8")[:, 0].astype(np.uint64)


def _order(number: int) -> Indices:
    """One of several permutations of the 64 bits: steps of an odd number meet each of them once."""
    return (np.arange(64) * (2 * number + 1) + 37 * number) % 64


def _cells(orientation: int) -> Indices:
    """Where the bytes of a turned fingerprint are in the original, `(FINGERPRINT_BYTES,)`."""
    greys = np.arange(GREYS).reshape(SIDE, SIDE, 1)
    colours = np.arange(GREYS, FINGERPRINT_BYTES).reshape(COLOUR_SIDE, COLOUR_SIDE, 2)
    return np.concatenate([upright(each, orientation).ravel() for each in (greys, colours)])


def _signs(orientation: int) -> npt.NDArray[np.bool_]:
    """Which bits of a turned fingerprint, after transposing, differ from the original's, `(64,)`."""
    odd_down, odd_across = np.indices((_FREQUENCIES, _FREQUENCIES)) % 2 == 1  # these change their sign in a mirror
    signs: npt.NDArray[np.bool_] = (odd_down & (orientation in DOWN)) ^ (odd_across & (orientation in ACROSS))
    return signs.ravel()


_ENDS = np.isin(np.arange(COLOUR_SIDE), (0, COLOUR_SIDE - 1)).astype(int)
_RINGS = np.eye(3, dtype=np.float32)[(_ENDS[:, None] + _ENDS).ravel()]  # cells in the middle, at a side, at a corner
_CELLS = np.stack([_cells(turn + 1) for turn in range(_TURNS)])
_SIGNS = np.stack([_signs(turn + 1) for turn in range(_TURNS)])
_TRANSPOSED = np.arange(_FREQUENCIES**2).reshape(_FREQUENCIES, _FREQUENCIES).T.ravel()
_ANGLES = np.pi / (2 * SIDE) * np.arange(_FREQUENCIES)[:, None] * (2 * np.arange(SIDE) + 1)
_COSINES = np.cos(_ANGLES).astype(np.float32)
