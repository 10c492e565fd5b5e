"""Facts about image files, found by decoding each once: whether it is whole, its size, and its fingerprint.

The header is read first, so that an image of too many pixels is refused before it takes any memory. Small images are
decoded in parallel, large ones one at a time.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Condition
from typing import Literal

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from pipeline.data.fingerprints import fingerprint_of
from pipeline.data.image_integrity import BrokenFileError, decode_whole
from pipeline.data.images import SIDEWAYS, UNREADABLE, orientation_of
from pipeline.errors import DataError
from pipeline.serving.decoding import FORMATS, MAX_PIXELS, ImageHeader, read_header

# The packed service refuses larger files, so they are of no use in the sets that it is trained for and tested on.
MAX_BYTES = 31 << 20  # of the request's 32 MiB; the form around the file takes a little

_AT_ONCE = 16  # files a thread takes at a time

Kind = Literal["", "missing", "empty", "truncated", "corrupt", "undecodable", "refused"]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The state of an image file.

    Attributes:
        width: Width of the upright image in pixels; 0 if it cannot be used.
        height: Its height in pixels.
        orientation: EXIF orientation, 1 to 8; 1 is upright as stored.
        problem: Why it cannot be used; empty if it can.
        kind: The kind of problem.
        digest: SHA-256 of the file's bytes; empty if they were not read.
        fingerprint: The upright image's fingerprint, see `fingerprints`; empty for an unreadable or flat image.
    """

    width: int = 0
    height: int = 0
    orientation: int = 1
    problem: str = ""
    kind: Kind = ""
    digest: str = field(default="", compare=False)
    fingerprint: bytes = field(default=b"", compare=False, repr=False)

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as stored, before the orientation is applied."""
        return (self.height, self.width) if self.orientation in SIDEWAYS else (self.width, self.height)


def inspect(folder: Path, names: Sequence[str]) -> dict[str, ImageFacts]:
    """Decode each of the files once; that one is missing or broken is a fact, too.

    `cv2.imdecode`, and with it training and serving, decodes the whole ones to the same size.
    """
    inspect_file = partial(_inspect, folder, _PixelBudget(MAX_PIXELS))
    parts = [names[start : start + _AT_ONCE] for start in range(0, len(names), _AT_ONCE)]
    facts: dict[str, ImageFacts] = {}
    bar = tqdm(desc="checking images", total=len(names), unit="file", mininterval=0.5, ascii=True)
    with bar, ThreadPoolExecutor() as pool:  # decoders release the interpreter lock
        for part, found in zip(parts, pool.map(lambda part: [inspect_file(name) for name in part], parts), strict=True):
            facts.update(zip(part, found, strict=True))
            bar.update(len(part))
    return facts


def _inspect(folder: Path, budget: _PixelBudget, name: str) -> ImageFacts:
    path = folder / name
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            return _refused(f"{size / 2**20:.0f} MiB are more than {MAX_BYTES >> 20}")
        data = path.read_bytes()
    except FileNotFoundError:
        return ImageFacts(problem="the file is missing", kind="missing")
    except OSError as error:
        return ImageFacts(problem=f"the file cannot be read: {error.strerror}", kind="undecodable")
    if not data:
        return ImageFacts(problem="the file is empty", kind="empty")
    digest = hashlib.sha256(data).hexdigest()
    try:
        header = read_header(data)
    except DataError as error:
        return _no_header(data, error, digest)
    if header.pixels > MAX_PIXELS:
        return _refused(f"{header.pixels / 1e6:.0f} megapixels are more than {MAX_PIXELS // 10**6}", digest)
    with budget.taken(header.pixels):
        return _decoded(data, header, digest)


def _decoded(data: bytes, header: ImageHeader, digest: str) -> ImageFacts:
    try:
        pixels = decode_whole(data, header)
    except BrokenFileError as error:
        return ImageFacts(problem=str(error), kind=error.kind, digest=digest)
    orientation = _orientation(data)
    size = (header.height, header.width) if orientation in SIDEWAYS else (header.width, header.height)
    return ImageFacts(*size, orientation, digest=digest, fingerprint=fingerprint_of(pixels, orientation))


def _refused(why: str, digest: str = "") -> ImageFacts:
    return ImageFacts(problem=f"the service would refuse it: {why}", kind="refused", digest=digest)


def _no_header(data: bytes, error: DataError, digest: str) -> ImageFacts:
    """A file without a header that the service reads: of another format, cut off, or not an image."""
    try:
        with Image.open(io.BytesIO(data)) as image:  # reads a header only
            other = image.format or ""
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        other = ""
    if other and other.upper() not in {each.upper() for each in FORMATS}:
        return _refused(f"it is {other}, not {', '.join(FORMATS[:-1])} or {FORMATS[-1]}", digest)
    kind: Kind = "truncated" if "ends before" in error.problem else "undecodable"
    return ImageFacts(problem=f"the file cannot be decoded: {error.problem}", kind=kind, digest=digest)


def _orientation(data: bytes) -> int:
    """The EXIF orientation by which OpenCV turns an image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return orientation_of(image)
    except (*UNREADABLE, Image.DecompressionBombError):
        return 1  # OpenCV decoded it, and that is the image that counts


class _PixelBudget:
    """A semaphore of pixels: a thread that wants more than are left waits."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._changed = Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold pixels of the budget, at most all of them."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()
