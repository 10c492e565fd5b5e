"""Pictures of any pixel format as 8 bit RGB: grey of more bits scaled by its range, alpha laid on white."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_ROWS = 256  # at a time, so that wide numbers are never held for the whole picture
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, sections 8 and 19
_WHITE_IS_ZERO, _SIGNED = 0, 2
_USUAL_BITS = (8, 10, 12, 14, 16, 24)  # that cameras and scanners give, in numbers of more bits


def to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """A loaded picture as 8 bit RGB, and what there is to say of its brightness, mostly nothing.

    Grey of more than 8 bits is scaled by the least usual range that holds its greatest value: 8, 10, 12, 14, 16 or 24
    bits, or that of its type. Cameras put 12 bits into files of 16, and by the range of the type such pictures would
    be black. The price: a dark picture may be scaled by fewer bits than others of its source, which is said. No value
    is clipped but negative ones, which become black. Floating point has no such range: where all values lie in `0..1`
    that is taken, otherwise the picture's own least and greatest.
    What is transparent is laid on white. CMYK and the like are converted by Pillow's plain formulas, without profiles.
    """
    if image.mode.startswith("I"):
        grey, said = _grey_of_integers(image)
        return Image.fromarray(grey).convert("RGB"), said
    return _plain_rgb(image), ""


def _plain_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        return Image.fromarray(_grey_of_floats(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("LA") if image.mode == "La" else image
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")


def _grey_of_integers(image: Image.Image) -> tuple[NDArray[np.uint8], str]:
    top, unsigned, inverted = _range(image)
    values = np.asarray(image)
    if unsigned and values.dtype == np.int32:
        values = values.view(np.uint32)
    used = _used_range(values, top)
    bits, of_bits = used.bit_length(), top.bit_length()
    said = f"its greys fill {bits} of {of_bits} bits: scaled by {bits}" if used < top else ""
    grey = _scaled(values, 0.0, float(used))
    return (255 - grey if inverted else grey), said


def _used_range(values: NDArray[Any], top: int) -> int:
    """The greatest value of the least usual range that holds all; of a picture of zeros, that of its type."""
    greatest = int(values.max()) if values.size else 0
    ranges = (2**bits - 1 for bits in _USUAL_BITS)
    return next((each for each in ranges if greatest <= each < top), top) if greatest > 0 else top


def _range(image: Image.Image) -> tuple[int, bool, bool]:
    """The greatest value, whether 32 bits are unsigned, and whether 0 is white."""
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return (2**31 - 1 if image.mode == "I" and image.format != "PPM" else 65535), False, False
    bits = int(tags.get(_BITS, (16,))[0])
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    return 2 ** (bits - signed) - 1, not signed, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _grey_of_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    finite = values[np.isfinite(values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if least >= 0 and most <= 1:
        least, most = 0.0, 1.0
    return _scaled(values, least, most)


def _scaled(values: NDArray[Any], least: float, most: float) -> NDArray[np.uint8]:
    """Values from `least` to `most` as 0 to 255; NaN as 0."""
    grey = np.empty(values.shape, np.uint8)
    factor = 255 / (most - least) if most > least else 0.0
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        wide = np.nan_to_num(values[rows].astype(np.float64), nan=least, posinf=most, neginf=least)
        grey[rows] = np.rint(np.clip((wide - least) * factor, 0, 255))
    return grey
