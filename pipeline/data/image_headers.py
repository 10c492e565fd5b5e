"""What an image file's header says: its size as it is shown, and how EXIF wants it turned. No pixel is decoded."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import PIL.Image

SIDEWAYS = range(5, 9)  # these orientations swap width and height
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, OverflowError, struct.error)
_ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A


def orientation_of(picture: PIL.Image.Image) -> int:
    """EXIF orientation of an opened picture, 1 to 8; 1, upright as stored, where it says none that makes sense.

    What is asked is the EXIF block alone, as OpenCV does: Pillow's `getexif` asks XMP too, and decodes the whole of a
    PNG for it. Of a TIFF, whose size Pillow gives upright, it is 1.
    """
    block = picture.info.get("exif")
    if not block:
        return 1
    exif = PIL.Image.Exif()
    try:
        exif.load(block)
        value = int(exif.get(_ORIENTATION_TAG, 1))
    except UNREADABLE:
        return 1  # the picture is still one, and shown as stored
    return value if value in range(1, 9) else 1


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of an image file as it is shown.

    Raises:
        OSError, ValueError, SyntaxError or another of `UNREADABLE`: The header cannot be read.
        PIL.Image.DecompressionBombError: It claims more pixels than Pillow will open.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # nothing is decoded
        with PIL.Image.open(path) as picture:
            width, height = picture.size
            return (height, width) if orientation_of(picture) in SIDEWAYS else (width, height)
