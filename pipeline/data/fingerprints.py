"""What a picture looks like in 288 bytes, and which pictures look alike, in time that grows with their number.

A look is a thumbnail of 16 x 16 shades of grey and 4 x 4 of colour. Candidates are found by the signs of its lowest
frequencies, as a perceptual hash (https://www.hackerfactor.com/blog/index.php?/archives/432-Looks-Like-It.html) with
zero for the threshold: 63 bits, of which those of a mirrored or turned picture are known without looking at it. They
are sorted in several permuted orders, and each look is held against the next few in each, after Manku et al.,
Detecting near-duplicates for web crawling (WWW 2007). So no number of pictures alike makes it quadratic: N looks, in 2
turns in 30 orders and in 8 in 2 more, are compared with 16 neighbours at most. What is close in bits is then compared
by the thumbnails themselves.

The limits were chosen on COCO's photographs: re-encoded, resized, made brighter or cropped by two hundredths, nearly
all are within them; of all pairs of different ones the nearest are more than twice as far apart. Flat pictures look
like nothing: one grey wall is not another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]

_SIDE, _COLOUR_SIDE = 16, 4
_GREYS = _SIDE * _SIDE
LOOK_BYTES = _GREYS + 2 * _COLOUR_SIDE * _COLOUR_SIDE

_LEAST_CONTRAST = 3.0  # shades of 255, the standard deviation; below is noise, and what JPEG makes of it
_FREQUENCIES = 8  # the lowest of each direction
_ORDERS, _NEIGHBOURS = 32, 16
_MIRRORINGS, _TURNS = 2, 8  # turns of a look by EXIF orientation, from 0: the first two are it and its mirror image
_TURNED_ORDERS = 2  # of those, in which looks are in all turns: quarter turns keep every cell, and few bits are off
_MOST_BITS = 12  # of 63 that differ
_AT_ONCE = 1 << 13  # looks at a time: 16 MB where all of them have to be compared

# Of two looks, with the mean taken away and the standard deviation made 1: 1 - correlation, the largest difference of
# a cell, and the mean difference of the colours as they are, in shades of 255.
_MOST_APART, _MOST_IN_A_CELL, _MOST_IN_COLOUR = 0.08, 1.75, 6.0
_LOOSE = 2.0  # times those between the first pictures of two groups that are to become one


def look_of(pixels: Pixels, orientation: int = 1) -> bytes:
    """The look of a picture.

    Args:
        pixels: (h, w, 3), BGR, as stored.
        orientation: EXIF orientation, 1 to 8, by which the look is turned upright.

    Returns:
        `LOOK_BYTES` bytes; none where the picture has so little contrast that all such look alike.
    """
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.cvtColor(small, cv2.COLOR_BGR2YCrCb)
    if float(small[..., 0].std()) < _LEAST_CONTRAST:
        return b""
    upright = _upright(small, orientation)
    colours = cv2.resize(upright[..., 1:], (_COLOUR_SIDE, _COLOUR_SIDE), interpolation=cv2.INTER_AREA)
    return upright[..., 0].tobytes() + colours.tobytes()


def group_alike(looks: Sequence[bytes], *, whole_chains: bool = False) -> list[int]:
    """For each look, the index of the first one of its group; its own where it is alone.

    Pictures mirrored or turned by quarters are alike. Two groups become one where two of theirs are alike and, unless
    chains are to be whole, their first ones nearly so: then a first one stands for all of its group, and a slow pan is
    many groups.
    With whole chains no two looks found alike are in different groups, and a slow pan is one.

    Args:
        looks: What `look_of` gives; empty ones are alone. Earlier ones come to stand for their groups.
        whole_chains: Whether a long chain of small changes is one group.
    """
    seen = np.array([i for i, look in enumerate(looks) if look], np.intp)
    first = list(range(len(looks)))
    if len(seen) > 1:
        table = np.frombuffer(b"".join(look for look in looks if look), np.uint8).reshape(len(seen), LOOK_BYTES)
        for i, root in zip(
            seen.tolist(), seen[_Groups(table, whole_chains=whole_chains).found()].tolist(), strict=True
        ):
            first[i] = root
    return first


def find_alike(looks: Pixels, others: Pixels) -> npt.NDArray[np.bool_]:
    """Which looks are like at least one of the others, in any of the 8 orientations.

    Every look is compared with every other one by its bits, so that none is missed and the time grows with N times M;
    pairs that are close in bits are compared by their thumbnails.

    Args:
        looks: `(N, LOOK_BYTES)`, none of a flat picture.
        others: `(M, LOOK_BYTES)`, the same.

    Returns:
        `(N,)`, True where a look is like one of the others.
    """
    found = np.zeros(len(looks), np.bool_)
    order = _order(0)
    keys = _keys(_bits(looks), order, _TURNS).reshape(_TURNS, -1)
    other_keys = _keys(_bits(others), order, 1)
    for start in range(0, len(others), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        for i in np.flatnonzero(~found):
            found[i] = _is_among(looks[i], keys[:, i], others[part], other_keys[part])
    return found


def _is_among(look: Pixels, keys: npt.NDArray[np.uint64], others: Pixels, other_keys: npt.NDArray[np.uint64]) -> bool:
    """Whether a look `(LOOK_BYTES,)`, with the keys of its turns `(8,)`, is like one of the others."""
    turns, at = np.nonzero(np.bitwise_count(keys[:, None] ^ other_keys) <= _MOST_BITS)
    turned = np.broadcast_to(look, (len(at), LOOK_BYTES))
    return len(at) > 0 and bool(_are_alike(others[at], turned, turns).any())


class _Groups:
    """Union-find over a table `(N, LOOK_BYTES)` of looks; the root of a group is its first look."""

    def __init__(self, table: Pixels, *, whole_chains: bool) -> None:
        self._table, self._whole_chains = table, whole_chains
        self._root: Indices = np.arange(len(table))

    def found(self) -> Indices:
        """The root of each look."""
        bits = _bits(self._table)
        for number in range(_ORDERS):
            self._link_in_order(bits, _order(number), _MIRRORINGS if number < _ORDERS - _TURNED_ORDERS else _TURNS)
        return self._resolved(np.arange(len(self._table)))

    def _link_in_order(self, bits: npt.NDArray[np.bool_], permutation: Indices, turns: int) -> None:
        """Put together what is alike in one order of the bits, each look being there in so many turns."""
        keys = _keys(bits, permutation, turns)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for start in range(0, len(order), _AT_ONCE):
            part = slice(start, start + _AT_ONCE + _NEIGHBOURS)
            self._link_neighbours(keys[part], order[part])

    def _link_neighbours(self, keys: npt.NDArray[np.uint64], order: Indices) -> None:
        """Put together what is alike of each look and the next ones in an order."""
        count = len(self._table)
        for step in range(1, min(_NEIGHBOURS, len(order) - 1) + 1):
            (at,) = np.nonzero(np.bitwise_count(keys[:-step] ^ keys[step:]) <= _MOST_BITS)
            one, other = order[at], order[at + step]
            some = (one < count) | (other < count)  # two turned ones are compared as they are, elsewhere
            one, other = one[some], other[some]
            low, (turn, high) = np.minimum(one, other), np.divmod(np.maximum(one, other), count)
            useful = self._resolved(low) != self._resolved(high)
            self._link(low[useful], high[useful], turn[useful])

    def _link(self, one: Indices, other: Indices, turn: Indices) -> None:
        alike = _are_alike(self._table[one], self._table[other], turn)
        for a, b in zip(one[alike].tolist(), other[alike].tolist(), strict=True):
            self._join(a, b)

    def _resolved(self, looks: Indices) -> Indices:
        roots = self._root[looks]
        while not np.array_equal(above := self._root[roots], roots):
            roots = above
        self._root[looks] = roots  # a shorter way for the next time
        return roots

    def _join(self, a: int, b: int) -> None:
        low, high = sorted((self._find(a), self._find(b)))
        if low == high:
            return
        if self._whole_chains or {low, high} == {a, b} or self._are_nearly_alike(low, high):
            self._root[high] = low

    def _find(self, index: int) -> int:
        while (above := int(self._root[index])) != index:
            index = above
        return index

    def _are_nearly_alike(self, a: int, b: int) -> bool:
        one, other = self._table[[a] * _TURNS], self._table[[b] * _TURNS]
        return bool(_are_alike(one, other, np.arange(_TURNS), _LOOSE).any())


def _are_alike(one: Pixels, other: Pixels, turn: Indices, slack: float = 1.0) -> npt.NDArray[np.bool_]:
    """Whether looks `(n, LOOK_BYTES)` are alike, pair by pair, the second of a pair being turned as told, `(n,)`."""
    other = np.take_along_axis(other, _CELLS[turn], axis=1)
    a, b = _normalised(one), _normalised(other)
    apart = 1 - np.einsum("ij,ij->i", a, b) / _GREYS
    in_a_cell = np.abs(a - b).max(axis=1)
    in_colour = np.abs(one[:, _GREYS:].astype(np.float32) - other[:, _GREYS:]).mean(axis=1)
    limits = slack * _MOST_APART, slack * _MOST_IN_A_CELL, slack * _MOST_IN_COLOUR
    alike: npt.NDArray[np.bool_] = (apart <= limits[0]) & (in_a_cell <= limits[1]) & (in_colour <= limits[2])
    return alike


def _normalised(looks: Pixels) -> npt.NDArray[np.float32]:
    greys = looks[:, :_GREYS].astype(np.float32)
    greys -= greys.mean(axis=1, keepdims=True)
    greys /= greys.std(axis=1, keepdims=True)
    return greys


def _bits(table: Pixels) -> npt.NDArray[np.bool_]:
    """Signs `(N, 64)` of the lowest frequencies of the cosine transform; the first one, the mean, is always False."""
    bits = np.empty((len(table), _FREQUENCIES**2), np.bool_)
    for start in range(0, len(table), _AT_ONCE):
        greys = table[start : start + _AT_ONCE, :_GREYS].astype(np.float32).reshape(-1, _SIDE, _SIDE)
        bits[start : start + _AT_ONCE] = (_COSINES @ greys @ _COSINES.T > 0).reshape(-1, _FREQUENCIES**2)
    bits[:, 0] = False
    return bits


def _keys(bits: npt.NDArray[np.bool_], permutation: Indices, turns: int) -> npt.NDArray[np.uint64]:
    """The bits `(N, 64)` of looks in so many turns, in the permuted order, as numbers `(turns * N,)`."""
    as_it_is = _packed(np.take(bits, permutation, axis=1))
    transposed = _packed(np.take(bits, _TRANSPOSED[permutation], axis=1)) if turns > 4 else as_it_is
    signs = _packed(_SIGNS[:turns, permutation])
    return np.concatenate([(as_it_is if turn < 4 else transposed) ^ signs[turn] for turn in range(turns)])


def _packed(bits: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8")[:, 0].astype(np.uint64)


def _order(number: int) -> Indices:
    """One of several permutations of the 64 bits: steps of an odd number meet each of them once."""
    return (np.arange(64) * (2 * number + 1) + 37 * number) % 64


def _upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels)


def _cells(orientation: int) -> Indices:
    """Where the bytes of a turned look are in the look, `(LOOK_BYTES,)`."""
    greys = np.arange(_GREYS).reshape(_SIDE, _SIDE, 1)
    colours = np.arange(_GREYS, LOOK_BYTES).reshape(_COLOUR_SIDE, _COLOUR_SIDE, 2)
    return np.concatenate([_upright(each, orientation).ravel() for each in (greys, colours)])


def _signs(orientation: int) -> npt.NDArray[np.bool_]:
    """Which bits of a turned look, after transposing, are not those of the look, `(64,)`."""
    down, across = np.indices((_FREQUENCIES, _FREQUENCIES)) % 2 == 1  # odd frequencies change their sign in a mirror
    signs: npt.NDArray[np.bool_] = (down & (orientation in (3, 4, 7, 8))) ^ (across & (orientation in (2, 3, 6, 7)))
    return signs.ravel()


_CELLS = np.stack([_cells(turn + 1) for turn in range(_TURNS)])
_SIGNS = np.stack([_signs(turn + 1) for turn in range(_TURNS)])
_TRANSPOSED = np.arange(_FREQUENCIES**2).reshape(_FREQUENCIES, _FREQUENCIES).T.ravel()
_COSINES = np.cos(np.pi / (2 * _SIDE) * np.arange(_FREQUENCIES)[:, None] * (2 * np.arange(_SIDE) + 1)).astype(
    np.float32
)
