"""Image files in a folder: which there are."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

# What Pillow reads, under the names these files usually have.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif", ".avifs"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico", ".icns"}
    | {".pcx", ".sgi", ".rgb", ".qoi", ".dds", ".psd", ".apng", ".mpo"}
)


def image_names(folder: Path) -> set[str]:
    """The image files in a folder, as POSIX paths relative to it; hidden ones are none of them."""
    names = set()
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__MACOSX"]
        inside = Path(root).relative_to(folder)
        names |= {(inside / each).as_posix() for each in files if is_image_name(each) and not each.startswith(".")}
    return names


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES
