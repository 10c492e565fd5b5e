"""Whether an image file is whole: it is decoded once, and a JPEG to a fraction of its size.

OpenCV and Pillow decode a JPEG with broken data in its middle without an error, to an image that is shifted or grey
from there on. libjpeg-turbo detects it, and simplejpeg passes its messages on. Decoding to a fraction of the size still
reads all of the compressed data, and is faster. A wrong bit that happens to be a valid code cannot be detected, nor
damage in lossy WebP and BMP files of the right length, which have no checksum.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]
from PIL import Image, UnidentifiedImageError

from pipeline.serving.decoding import ImageHeader

Pixels = npt.NDArray[np.uint8]
BrokenKind = Literal["truncated", "corrupt", "undecodable"]

_LEAST_SIDE = 48  # pixels a JPEG is decoded to at least, where it has them
_LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x(\w\w)")
_FEW = 4  # bytes beyond the four that libjpeg ignores; webcams end a whole scan with some superfluous ones
_PNG_END = b"IEND"


class BrokenFileError(Exception):
    """A file that does not hold a whole image, with the kind of damage."""

    def __init__(self, kind: BrokenKind, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


def decode_whole(data: bytes, header: ImageHeader) -> Pixels:
    """Decode all of a file, as stored, perhaps to a smaller size.

    Args:
        data: The file's bytes.
        header: Their header.

    Returns:
        `(height, width, 3)` pixels in BGR, before any EXIF orientation; those of a JPEG at a fraction of its size.

    Raises:
        BrokenFileError: The file ends early, is broken inside, or is of a kind that OpenCV does not read.
    """
    if header.format == "JPEG":
        return _decode_jpeg(data, header)
    if _ends_early(data, header):
        raise BrokenFileError("truncated", f"the {header.format} file ends early")
    return _decode_by_opencv(data, header)


def _decode_jpeg(data: bytes, header: ImageHeader) -> Pixels:
    try:
        return _decode_reduced(data)
    except ValueError as error:
        message = str(error)
    if "Premature end of JPEG file" in message:
        raise BrokenFileError("truncated", "the JPEG file ends early")
    if message.startswith("Corrupt JPEG data"):
        return _decode_odd_jpeg(data, message)
    if not _is_sound_to_pillow(data):
        raise BrokenFileError("corrupt", f"the JPEG file is broken inside: {message}")
    return _decode_by_opencv(data, header)  # a rare kind that simplejpeg does not read


def _decode_reduced(data: bytes, *, strict: bool = True) -> Pixels:
    least = {"min_width": _LEAST_SIDE, "min_height": _LEAST_SIDE, "strict": strict}
    if simplejpeg.decode_jpeg_header(data, strict=strict)[2] not in {"CMYK", "YCCK"}:
        return np.asarray(simplejpeg.decode_jpeg(data, "BGR", **least), np.uint8)
    inks = np.asarray(simplejpeg.decode_jpeg(data, "CMYK", **least), np.uint16)
    # Stored inverted, as Adobe does: shares of light, which OpenCV multiplies in the same way.
    return np.asarray(inks[..., 2::-1] * inks[..., 3:] // 255, np.uint8)


def _decode_odd_jpeg(data: bytes, message: str) -> Pixels:
    """A JPEG with superfluous bytes that do no harm: between the segments of its header, or after the pixels."""
    stripped = _without_strays(data)
    if stripped != data:
        try:
            return _decode_reduced(stripped)
        except ValueError as error:
            data, message = stripped, str(error)
    found = _LEFT_OVER.fullmatch(message)
    if found and found[2].lower() == "d9":
        end = data.rfind(b"\xff\xd9")
        left = data[max(0, end - int(found[1])) : end]
        if int(found[1]) <= _FEW or not left.strip(left[:1]):  # a few, or padding
            return _decode_reduced(data, strict=False)
    raise BrokenFileError("corrupt", f"the JPEG file is broken inside: {message.removeprefix('Corrupt JPEG data: ')}")


def _without_strays(data: bytes) -> bytes:
    """A JPEG without superfluous bytes between the segments of its header."""
    kept, offset = [data[:2]], 2
    while True:
        offset = data.find(b"\xff", offset)
        if offset < 0 or offset + 4 > len(data):
            return data
        marker = data[offset + 1]
        if marker in (0x00, 0xFF):  # a stray or a fill byte
            offset += 1
        elif marker == 0xDA:
            return b"".join([*kept, data[offset:]])
        else:
            end = offset + 2 + int(struct.unpack_from(">H", data, offset + 2)[0])
            kept.append(data[offset:end])
            offset = end


def _is_sound_to_pillow(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error):
        return False
    return True


def _decode_by_opencv(data: bytes, header: ImageHeader) -> Pixels:
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise BrokenFileError("undecodable", f"OpenCV cannot decode the {header.format} file: {error.err}") from error
    if pixels is None:
        kind: BrokenKind = "undecodable" if header.format == "BMP" else "corrupt"
        raise BrokenFileError(
            kind, f"the {header.format} file is broken inside, or of a kind that OpenCV does not read"
        )
    if pixels.shape[:2] != (header.height, header.width):
        raise BrokenFileError("corrupt", f"the {header.format} file's header and its pixels disagree about its size")
    return np.asarray(pixels, np.uint8)


def _ends_early(data: bytes, header: ImageHeader) -> bool:
    """Whether a PNG, WebP or BMP file is shorter than it says."""
    if header.format == "PNG":
        return not _has_png_end(data)
    if header.format == "WebP":
        return len(data) < 8 + int(struct.unpack_from("<I", data, 4)[0])
    return len(data) < _bmp_size(data, header)


def _has_png_end(data: bytes) -> bool:
    offset = 8  # after the signature
    while offset + 12 <= len(data):
        if data[offset + 4 : offset + 8] == _PNG_END:
            return True
        offset += 12 + int(struct.unpack_from(">I", data, offset)[0])
    return False


def _bmp_size(data: bytes, header: ImageHeader) -> int:
    """How many bytes a BMP file has at least; 0 where its pixels are compressed, and only decoding tells."""
    if len(data) < 34:
        return 34
    start, header_size = struct.unpack_from("<II", data, 10)
    depth, compression = (
        (struct.unpack_from("<H", data, 24)[0], 0) if header_size == 12 else struct.unpack_from("<HI", data, 28)
    )
    if compression not in (0, 3):  # plain, or plain with masks
        return 0
    return int(start + (header.width * depth + 31) // 32 * 4 * header.height)
