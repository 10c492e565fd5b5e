"""Image files: their names in a folder, their headers, and facts found by decoding each once.

For facts the header is read first, so that an image of too many pixels is refused before it takes any memory. Small
images are decoded in parallel, large ones one at a time.

OpenCV and Pillow decode a JPEG with broken data in its middle without an error, to an image that is shifted or grey
from there on. libjpeg-turbo detects it, and simplejpeg passes its messages on. Decoding to a fraction of the size still
reads all of the compressed data, and is faster. A wrong bit that happens to be a valid code cannot be detected, nor
damage in lossy WebP and BMP files of the right length, which have no checksum.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import simplejpeg  # type: ignore[import-untyped]
from tqdm import tqdm

from pipeline.errors import DataError
from pipeline.serving.decoding import MAX_PIXELS, ImageHeader, read_header
from pipeline.serving.image_fingerprint import fingerprint_of

# Formats that Pillow reads, under their usual names.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".avif", ".avifs"}
    | {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".ico", ".icns"}
    | {".pcx", ".sgi", ".rgb", ".qoi", ".dds", ".psd", ".apng", ".mpo"}
)
SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height
UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, LookupError, EOFError, OverflowError, struct.error)
ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A

# The packed service refuses larger files, so they are of no use in the sets that it is trained for and tested on.
MAX_BYTES = 31 << 20  # of the request's 32 MiB; the form around the file takes a little

_LARGE = MAX_PIXELS // 4
_one_large_image = Lock()
_LEAST_SIDE = 48  # pixels a JPEG is decoded to at least, where it has them
_LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", re.IGNORECASE)
_FEW = 4  # bytes beyond the four that libjpeg ignores; webcams end a whole scan with some superfluous ones

_REFUSES = "the service would refuse it"

Pixels = npt.NDArray[np.uint8]
Kind = Literal["", "missing", "empty", "truncated", "corrupt", "undecodable", "refused"]


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The state of an image file."""

    width: int = 0  # of the upright image in pixels; 0 if it cannot be used
    height: int = 0
    orientation: int = 1  # of EXIF, 1 to 8; 1 is upright as stored
    problem: str = ""  # why it cannot be used; empty if it can
    kind: Kind = ""
    digest: str = field(default="", compare=False)  # SHA-256 of the file; empty if it was not read
    fingerprint: bytes = field(default=b"", compare=False, repr=False)  # upright; empty if unreadable or flat


class BrokenFileError(Exception):
    """A file that does not hold a whole image: the kind of damage, and the problem."""


def file_names(folder: Path) -> list[str]:
    """The files in a folder and its subfolders, as POSIX paths relative to it, sorted, without hidden ones."""
    names = []
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__MACOSX"]
        inside = Path(root).relative_to(folder)
        names += [(inside / each).as_posix() for each in files if not each.startswith(".")]
    return sorted(names)


def is_image_name(name: str) -> bool:
    """Whether a file's name says that it is an image."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def orientation_of(image: PIL.Image.Image) -> int:
    """EXIF orientation of an opened image, 1 to 8; 1, upright as stored, if it is missing or invalid.

    Only the EXIF block is read, as OpenCV does: Pillow's `getexif` reads XMP too, and decodes a whole PNG for it. For a
    TIFF, whose size Pillow gives upright, it is 1.
    """
    exif = PIL.Image.Exif()
    try:
        exif.load(image.info.get("exif") or b"")
        value = int(exif.get(ORIENTATION_TAG, 1))
    except UNREADABLE:
        return 1  # the image is shown as stored
    return value if value in range(1, 9) else 1


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file as it is shown; one of `UNREADABLE` or a bomb error if the header is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)  # nothing is decoded
        with PIL.Image.open(path) as image:
            width, height = image.size
            return (height, width) if orientation_of(image) in SIDEWAYS else (width, height)


def inspect(folder: Path, names: Sequence[str]) -> dict[str, ImageFacts]:
    """Decode each of the files once; that one is missing or broken is a fact, too.

    `cv2.imdecode`, and with it training and serving, decodes the whole ones to the same size.
    """
    with ThreadPoolExecutor() as pool:  # decoders release the interpreter lock
        facts = pool.map(_inspect, [folder / name for name in names])
        bar = tqdm(facts, "checking images", len(names), unit="file", mininterval=0.5, ascii=True)
        return dict(zip(names, bar, strict=True))


def decode_whole(data: bytes, header: ImageHeader) -> Pixels:
    """Decode all of a file to `(height, width, 3)` pixels in BGR, as stored; a JPEG to a fraction of its size."""
    if header.format == "JPEG":
        return _decode_jpeg(data)
    is_cut_png = header.format == "PNG" and b"IEND\xaeB`\x82" not in data
    if is_cut_png or (header.format == "WebP" and len(data) < 8 + int.from_bytes(data[4:8], "little")):
        raise BrokenFileError("truncated", f"the {header.format} file ends early")
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None:
        problem = f"the {header.format} file is broken inside, ends early, or is of a kind that OpenCV does not read"
        raise BrokenFileError("corrupt", problem)
    if pixels.shape[:2] != (header.height, header.width):
        raise BrokenFileError("corrupt", f"the {header.format} file's header and its pixels disagree about its size")
    return np.asarray(pixels, np.uint8)


def _inspect(path: Path) -> ImageFacts:
    digest = ""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BrokenFileError("refused", f"{_REFUSES}: {size / 2**20:.0f} MiB are more than {MAX_BYTES >> 20}")
        if not (data := path.read_bytes()):
            raise BrokenFileError("empty", "the file is empty")
        digest = hashlib.sha256(data).hexdigest()
        header = read_header(data)
        if header.pixels > MAX_PIXELS:
            problem = f"{header.pixels / 1e6:.0f} megapixels are more than {MAX_PIXELS // 10**6}"
            raise BrokenFileError("refused", f"{_REFUSES}: {problem}")
        with _one_large_image if header.pixels > _LARGE else nullcontext():
            print_ = fingerprint_of(decode_whole(data, header), orientation := _stored_orientation(data))
    except BrokenFileError as error:
        broken, problem = error.args
        return ImageFacts(problem=problem, kind=broken, digest=digest)
    except DataError as error:
        kind: Kind = "truncated" if "ends before" in error.problem else "undecodable"
        return ImageFacts(problem=f"the file cannot be decoded: {error.problem}", kind=kind, digest=digest)
    except FileNotFoundError:
        return ImageFacts(problem="the file is missing", kind="missing")
    except OSError as error:
        return ImageFacts(problem=f"the file cannot be read: {error.strerror}", kind="undecodable")
    width, height = header.width, header.height
    if orientation in SIDEWAYS:
        width, height = height, width
    return ImageFacts(width, height, orientation, digest=digest, fingerprint=print_)


def _stored_orientation(data: bytes) -> int:
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            return orientation_of(image)
    except (*UNREADABLE, PIL.Image.DecompressionBombError):
        return 1  # OpenCV decoded it, and that is the image that counts


def _decode_jpeg(data: bytes) -> Pixels:
    try:
        return _decode_reduced(data)
    except ValueError as error:
        message = str(error)
    if len(plain := _without_strays(data)) < len(data):
        return _decode_jpeg(plain)
    if "Premature end of JPEG file" in message:
        raise BrokenFileError("truncated", "the JPEG file ends early")
    if found := _LEFT_OVER.fullmatch(message):
        count, end = int(found[1]), data.rfind(b"\xff\xd9")
        left = data[max(0, end - count) : end]
        if count <= _FEW or not left.strip(left[:1]):  # a few, or padding
            return _decode_reduced(data, strict=False)
    raise BrokenFileError("corrupt", f"the JPEG file is broken inside: {message.removeprefix('Corrupt JPEG data: ')}")


def _without_strays(data: bytes) -> bytes:
    """A JPEG without bytes between the segments of its header, which some cameras write and decoders skip."""
    kept, offset = [data[:2]], 2
    while 0 <= (offset := data.find(b"\xff", offset)) <= len(data) - 4:
        marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == 0xDA:  # the pixels begin
            return b"".join([*kept, data[offset:]])
        if marker in (0x00, 0xFF):  # a stray or a fill byte
            offset += 1
        else:
            kept.append(data[offset : offset + 2 + max(length, 2)])
            offset += len(kept[-1])
    return data


def _decode_reduced(data: bytes, *, strict: bool = True) -> Pixels:
    least = {"min_width": _LEAST_SIDE, "min_height": _LEAST_SIDE, "strict": strict}
    if simplejpeg.decode_jpeg_header(data, strict=strict)[2] not in {"CMYK", "YCCK"}:
        return np.asarray(simplejpeg.decode_jpeg(data, "BGR", **least), np.uint8)
    inks = np.asarray(simplejpeg.decode_jpeg(data, "CMYK", **least), np.uint16)
    # Stored inverted, as Adobe does: shares of light, which OpenCV multiplies in the same way.
    return np.asarray(inks[..., 2::-1] * inks[..., 3:] // 255, np.uint8)
