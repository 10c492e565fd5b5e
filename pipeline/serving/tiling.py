"""How large images are cut into overlapping tiles, for training and for detection alike.

A network sees 640 pixels of a side, say: resized to that, an object of 12 pixels in an image of 4,000 is 2 pixels long.
In tiles it keeps its size. The whole image is seen too, resized, for objects that are larger than a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from pipeline.errors import UsageError

if TYPE_CHECKING:  # every command checks the parameters, and numpy takes a tenth of a second to import
    import numpy as np
    from numpy.typing import NDArray

LEAST_TILE = 32  # pixels, as of the network's input
AS_TRAINED = -1  # in place of either: the value that the training had
MOST_OVERLAP = 0.5  # of a tile: more would only cost time, for a smaller share suffices for larger tiles


@dataclass(frozen=True)
class Tile:
    """A part of an image, in pixels; `right` and `bottom` are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """The part as a box: x1, y1, x2, y2."""
        return self.left, self.top, self.right, self.bottom

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A view of the part's pixels in an image `(H, W, 3)`."""
        return image[self.top : self.bottom, self.left : self.right]


@dataclass(frozen=True)
class Tiling:
    """The side of the tiles in pixels of the image, 0 for whole images, and how much neighbours share of it at least.

    Raises:
        UsageError: The side or the share is not possible.
    """

    size: int
    overlap: float

    def __post_init__(self) -> None:
        if self.size and self.size < LEAST_TILE:
            expected = f"0 for whole images, or at least {LEAST_TILE} pixels"
            raise UsageError(f"tile is {self.size}", where="tile", expected=expected)
        if not 0 <= self.overlap <= MOST_OVERLAP:
            expected = f"a share of a tile from 0 to {MOST_OVERLAP}"
            raise UsageError(f"overlap is {self.overlap}", where="overlap", expected=expected)

    @property
    def shared(self) -> int:
        """How many pixels neighbours have in common at least."""
        return round(self.size * self.overlap)

    def tiles(self, width: int, height: int) -> tuple[Tile, ...]:
        """The tiles of an image by rows, none where it is no larger than a tile.

        They are evenly spaced, and the last of a row or column ends with the image. An image that is narrower than a
        tile has tiles of its width, and a lower one of its height.
        """
        if not self.size or max(width, height) <= self.size:
            return ()
        columns, rows = self._spans(width), self._spans(height)
        return tuple(Tile(left, top, right, bottom) for top, bottom in rows for left, right in columns)

    def _spans(self, length: int) -> list[tuple[int, int]]:
        rest = length - self.size
        if rest <= 0:
            return [(0, length)]
        gaps = ceil(rest / (self.size - self.shared))
        return [(start, start + self.size) for start in (number * rest // gaps for number in range(gaps + 1))]

    def is_within_a_tile(self, boxes: NDArray[np.floating], width: int, height: int) -> NDArray[np.bool_]:
        """Which boxes `(N, 4)`, x1, y1, x2, y2, of an image are whole in a tile wherever they are.

        These are the boxes that are no larger than what neighbours share.
        """
        across, down = (length if length <= self.size else self.shared for length in (width, height))
        return (boxes[:, 2] - boxes[:, 0] <= across) & (boxes[:, 3] - boxes[:, 1] <= down)


def check_tiles(tile: int, overlap: float) -> None:
    """Raise a `UsageError` where `ModelMetadata.in_tiles` would."""
    Tiling(0 if tile == AS_TRAINED else tile, 0.0 if overlap == AS_TRAINED else overlap)
