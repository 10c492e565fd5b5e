"""The fingerprint of an image, 288 bytes: a thumbnail of 16 x 16 shades of grey and 4 x 4 of colour.

It is here so that training, imports and the service have one implementation. `pipeline.data.fingerprints` searches for
similar ones.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

SIDE, COLOUR_SIDE = 16, 4
GREYS = SIDE * SIDE
FINGERPRINT_BYTES = GREYS + 2 * COLOUR_SIDE * COLOUR_SIDE
LEAST_CONTRAST = 3.0
"""Shades of 255, the standard deviation; below is noise, and what JPEG makes of it."""
DOWN, ACROSS = (3, 4, 7, 8), (2, 3, 6, 7)
"""EXIF orientations that flip an image, after transposing it."""


def fingerprint_of(pixels: Pixels, orientation: int = 1, *, of_flat: bool = False) -> bytes:
    """The fingerprint of an image `(height, width, 3)` in BGR as stored, turned upright by its EXIF orientation.

    It is empty for an image with so little contrast that all such would be similar, unless `of_flat` asks for it: first
    the greys, row by row, then red and blue differences (Cr, Cb) by turns.
    """
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    small = cv2.cvtColor(small, cv2.COLOR_BGR2YCrCb)
    if not of_flat and float(small[..., 0].std()) < LEAST_CONTRAST:
        return b""
    turned = upright(small, orientation)
    colours = cv2.resize(turned[..., 1:], (COLOUR_SIDE, COLOUR_SIDE), interpolation=cv2.INTER_AREA)
    return turned[..., 0].tobytes() + colours.tobytes()


def upright(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn pixels `(height, width, channels)` by an EXIF orientation, 1 to 8."""
    pixels = pixels.transpose(1, 0, 2) if orientation >= 5 else pixels
    return np.ascontiguousarray(pixels[:: -1 if orientation in DOWN else 1, :: -1 if orientation in ACROSS else 1])
