"""From an image file's bytes to upright 8-bit BGR pixels, with a limit on the pixels before they are decoded.

Decoding takes width x height x 3 bytes of memory, and a 20 kB PNG may have 169 megapixels. So the header is read first,
in microseconds, for the four formats that the service accepts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError

FORMATS = ("JPEG", "PNG", "WebP", "BMP")
MAX_PIXELS = 50_000_000
"""Default limit: more than the 48 megapixels of phone cameras, and 150 MB when decoded."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG and DAC
_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0..RST7 and SOI carry no length


@dataclass(frozen=True)
class ImageHeader:
    """Format and size of an image file.

    Attributes:
        format: One of `FORMATS`.
        width: Columns as stored, before any EXIF orientation is applied.
        height: Rows as stored, before any EXIF orientation is applied.
    """

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels: width x height."""
        return self.width * self.height


def read_header(data: bytes) -> ImageHeader:
    """Read format and size from an image file's first bytes, without decoding.

    Args:
        data: The file's bytes.

    Raises:
        DataError: The bytes are not a JPEG, PNG, WebP or BMP file, or end before its size.
    """
    try:
        if data.startswith(_PNG_SIGNATURE):
            header = _read_png(data)
        elif data.startswith(b"\xff\xd8\xff"):
            header = _read_jpeg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            header = _read_webp(data)
        elif data.startswith(b"BM"):
            header = _read_bmp(data)
        else:
            raise DataError(f"not an image file of a known format ({', '.join(FORMATS)})")
    except (struct.error, IndexError) as error:
        raise DataError("the image file ends before it has told its size") from error
    if header.width < 1 or header.height < 1:
        raise DataError(f"the image file claims {header.width} x {header.height} pixels")
    return header


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode an image file to the pixels the detector was trained on.

    As by `cv2.imdecode(..., IMREAD_COLOR)` and `mmcv.imfrombytes`, EXIF orientation is applied, grey and palette become
    three channels, alpha is dropped and 16 bits are scaled to 8.

    Args:
        data: The file's bytes.
        max_pixels: Larger images are refused before decoding.

    Returns:
        (H, W, 3) pixels, BGR, upright.

    Raises:
        DataError: The file is not an image of these formats, too large, truncated or broken.
    """
    header = read_header(data)
    if header.pixels > max_pixels:
        raise DataError(
            f"the image is {header.width} x {header.height}: {header.pixels / 1e6:.1f} megapixels",
            expected=f"at most {max_pixels / 1e6:.1f} megapixels",
        )
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise DataError(f"the {header.format} file cannot be decoded: {error.err}") from error
    if pixels is None:
        raise DataError(f"the {header.format} file is truncated or broken")
    if sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise DataError(f"the {header.format} file's header and its pixels disagree about its size")
    return np.asarray(pixels, np.uint8)


def _read_png(data: bytes) -> ImageHeader:
    length, kind, width, height = struct.unpack_from(">I4sII", data, len(_PNG_SIGNATURE))
    if kind != b"IHDR" or length != 13:
        raise DataError("the PNG file does not begin with its header")
    return ImageHeader("PNG", width, height)


def _read_jpeg(data: bytes) -> ImageHeader:
    height, width = struct.unpack_from(">HH", data, _find_jpeg_frame(data) + 5)
    return ImageHeader("JPEG", width, height)


def _find_jpeg_frame(data: bytes) -> int:
    """Offset of the frame header's marker (FF Cx), walking from segment to segment as decoders do."""
    offset = 2
    while True:
        offset = data.find(b"\xff", offset)
        if offset < 0:
            raise DataError("the JPEG file has no frame header")
        marker = data[offset + 1]
        if marker in _JPEG_FRAMES:
            return offset
        if marker in (0x00, 0xFF):  # a stuffed or a fill byte: no marker begins here
            offset += 1
        elif marker in _JPEG_STANDALONE:
            offset += 2
        elif marker in (0xD9, 0xDA):
            raise DataError("the JPEG file has no frame header before its pixels")
        else:
            offset += 2 + int(struct.unpack_from(">H", data, offset + 2)[0])


def _read_webp(data: bytes) -> ImageHeader:
    """Source of the layouts: RFC 9649 (container, lossless) and RFC 6386 (lossy key frame)."""
    kind = data[12:16]
    if kind == b"VP8X":  # extended: 24-bit canvas size, each stored less one
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return ImageHeader("WebP", (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1)
    if kind == b"VP8L":  # lossless: signature byte, then 14 bits each, stored less one
        signature, bits = struct.unpack_from("<BI", data, 20)
        if signature == 0x2F:
            return ImageHeader("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":  # lossy: frame tag, start code, 14 bits each
        start_code, width, height = struct.unpack_from("<3sHH", data, 23)
        if start_code == b"\x9d\x01\x2a":
            return ImageHeader("WebP", width & 0x3FFF, height & 0x3FFF)
    raise DataError("the WebP file has no image in its first chunk")


def _read_bmp(data: bytes) -> ImageHeader:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:  # the oldest header, with 16-bit sizes
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("BMP", width, abs(height))  # a negative height stores the rows from the top
