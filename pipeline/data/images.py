"""Image files: their names in a folder, and what a header says, without decoding a pixel."""

from __future__ import annotations

import os
import struct
import warnings
from pathlib import Path, PurePosixPath

import PIL.Image

# Formats that Pillow reads, under their usual names.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif", ".avifs"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico", ".icns"}
    | {".pcx", ".sgi", ".rgb", ".qoi", ".dds", ".psd", ".apng", ".mpo"}
)
SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, OverflowError, struct.error)
_ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A


def image_names(folder: Path) -> set[str]:
    """The image files in a folder, as POSIX paths relative to it, without hidden ones."""
    names = set()
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__MACOSX"]
        inside = Path(root).relative_to(folder)
        names |= {(inside / each).as_posix() for each in files if is_image_name(each) and not each.startswith(".")}
    return names


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def orientation_of(image: PIL.Image.Image) -> int:
    """EXIF orientation of an opened image, 1 to 8; 1, upright as stored, if it is missing or invalid.

    Only the EXIF block is read, as OpenCV does: Pillow's `getexif` reads XMP too, and decodes a whole PNG for it. For a
    TIFF, whose size Pillow gives upright, it is 1.
    """
    block = image.info.get("exif")
    if not block:
        return 1
    exif = PIL.Image.Exif()
    try:
        exif.load(block)
        value = int(exif.get(_ORIENTATION_TAG, 1))
    except UNREADABLE:
        return 1  # the image is shown as stored
    return value if value in range(1, 9) else 1


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of an image file as it is shown.

    Raises:
        OSError, ValueError, SyntaxError or another of `UNREADABLE`: The header cannot be read.
        PIL.Image.DecompressionBombError: It claims more pixels than Pillow opens.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # nothing is decoded
        with PIL.Image.open(path) as image:
            width, height = image.size
            return (height, width) if orientation_of(image) in SIDEWAYS else (width, height)
