"""Facts about image files, found by decoding each once, the way training and serving do."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

# What the packed service takes: pictures it would refuse are of no use in the sets it is trained for and tested on.
MAX_PIXELS = 50_000_000
MAX_BYTES = 31 << 20  # of the request's 32 MiB; the form around the file takes a little
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")  # JPEG, PNG, BMP; WebP is told by two marks

_ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A
_SIDEWAYS = 5  # orientations from here to 8 swap width and height


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a file is.

    Attributes:
        width: Pixels across of the upright picture, 0 where there is none.
        height: Pixels down.
        orientation: EXIF orientation, 1 to 8; 1 is upright as stored.
        problem: Why there is no picture; empty where there is.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    problem: str = ""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as stored, before the orientation is applied."""
        return (self.height, self.width) if self.orientation >= _SIDEWAYS else (self.width, self.height)


def inspect(folder: Path, names: Sequence[str]) -> dict[str, ImageFacts]:
    """Decode each of the files once; what is absent or broken is a fact too."""
    with ThreadPoolExecutor() as pool:  # OpenCV lets go of the interpreter lock
        found = pool.map(partial(_inspect, folder), names)
        bar = tqdm(found, desc="checking images", total=len(names), unit="file", mininterval=0.5, ascii=True)
        return dict(zip(names, bar, strict=True))


def _inspect(folder: Path, name: str) -> ImageFacts:
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        return ImageFacts(problem="the file is missing")
    except OSError as error:
        return ImageFacts(problem=f"the file cannot be read: {error.strerror}")
    if not data:
        return ImageFacts(problem="the file is empty")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        pixels = None  # too many pixels for OpenCV, most likely
    if pixels is None:
        return ImageFacts(problem="the file cannot be decoded")
    refused = _refused(data, pixels.shape[0] * pixels.shape[1])
    if refused:
        return ImageFacts(problem=f"the service would refuse it: {refused}")
    return ImageFacts(pixels.shape[1], pixels.shape[0], _orientation(data))


def _refused(data: bytes, pixels: int) -> str:
    """Why the service would not take a file; empty where it would."""
    if not data.startswith(_STARTS) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        return "it is not JPEG, PNG, WebP or BMP"
    if len(data) > MAX_BYTES:
        return f"{len(data) / 2**20:.0f} MiB are more than {MAX_BYTES >> 20}"
    return f"{pixels / 1e6:.0f} megapixels are more than {MAX_PIXELS // 10**6}" if pixels > MAX_PIXELS else ""


def _orientation(data: bytes) -> int:
    try:
        with Image.open(io.BytesIO(data)) as header:
            value = header.getexif().get(_ORIENTATION_TAG, 1)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # OpenCV made a picture of it, and that is the one that counts
    return value if value in range(1, 9) else 1
