"""From an image file's bytes to upright 8-bit BGR pixels, with a limit on the pixels before they are decoded.

Decoding takes width x height x 3 bytes of memory, and a 20 kB PNG may have 169 megapixels. So the header is read first,
in microseconds, for the four formats that the service accepts.

Channels of 16 bits are scaled by the smallest usual range that holds the image's greatest value, here and where images
are imported: cameras put 12 bits into files of 16, and by the range of the file such images would be black.
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
"""More than the 48 megapixels of phone cameras, and 150 MB when decoded."""

USUAL_BITS = (8, 10, 12, 14, 16, 24)
"""Of cameras and scanners, in numbers of more bits."""

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG and DAC
_JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, RST0..RST7 and SOI carry no length


@dataclass(frozen=True)
class ImageHeader:
    """Format, one of `FORMATS`, and size of an image file as stored, before any EXIF orientation is applied."""

    format: str
    width: int
    height: int
    is_deep: bool = False  # whether its channels have 16 bits, which only those of PNG files can have

    @property
    def pixels(self) -> int:
        """Number of pixels: width x height."""
        return self.width * self.height


def read_header(data: bytes) -> ImageHeader:
    """Read format and size from an image file's first bytes, without decoding.

    Raises:
        DataError: The bytes are not a JPEG, PNG, WebP or BMP file, or end before its size.
    """
    try:
        is_deep = False
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            start, width, height, bits = struct.unpack_from(">8sIIB", data, 8)
            name, size, is_deep = "PNG", (width, height), bits == 16
            if start != b"\x00\x00\x00\x0dIHDR":
                raise DataError("the PNG file does not begin with its header")
        elif data.startswith(b"\xff\xd8\xff"):
            name, size = "JPEG", _read_jpeg(data)
        elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            name, size = "WebP", _read_webp(data)
        elif data.startswith(b"BM"):
            (header_bytes,) = struct.unpack_from("<I", data, 14)
            layout = "<HH" if header_bytes == 12 else "<ii"  # the oldest header has 16-bit sizes
            width, height = struct.unpack_from(layout, data, 18)
            name, size = "BMP", (width, abs(height))  # a negative height stores the rows from the top
        else:
            raise DataError(f"not an image file of a known format ({', '.join(FORMATS)})")
    except (struct.error, IndexError) as error:
        raise DataError("the image file ends before it has told its size") from error
    if min(size) < 1:
        raise DataError(f"the image file claims {size[0]} x {size[1]} pixels")
    return ImageHeader(name, *size, is_deep)


def _read_jpeg(data: bytes) -> tuple[int, int]:
    """Walk from segment to segment, as decoders do, to the frame header."""
    offset = 2
    while True:
        offset = data.find(b"\xff", offset)
        marker = data[offset + 1] if offset >= 0 else 0xD9
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            return width, height
        if marker in (0xD9, 0xDA):
            raise DataError("the JPEG file has no frame header before its pixels")
        if marker in (0x00, 0xFF):  # a stuffed or a fill byte: no marker begins here
            offset += 1
        elif marker in _JPEG_STANDALONE:
            offset += 2
        else:
            offset += 2 + struct.unpack_from(">H", data, offset + 2)[0]


def _read_webp(data: bytes) -> tuple[int, int]:
    """Source of the layouts: RFC 9649 (container, lossless) and RFC 6386 (lossy key frame)."""
    kind = data[12:16]
    if kind == b"VP8X":  # extended: 24-bit canvas size, each stored less one
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, 24)
        return (high_w << 16 | low_w) + 1, (high_h << 16 | low_h) + 1
    if kind == b"VP8L":  # lossless: signature byte, then 14 bits each, stored less one
        signature, bits = struct.unpack_from("<BI", data, 20)
        if signature == 0x2F:
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":  # lossy: frame tag, start code, 14 bits each
        start_code, width, height = struct.unpack_from("<3sHH", data, 23)
        if start_code == b"\x9d\x01\x2a":
            return width & 0x3FFF, height & 0x3FFF
    raise DataError("the WebP file has no image in its first chunk")


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode an image file to the pixels the detector was trained on.

    As by `cv2.imdecode(..., IMREAD_COLOR)` and `mmcv.imfrombytes`, EXIF orientation is applied, grey and palette become
    three channels, and alpha is dropped. Where these take the upper 8 of 16 bits, `to_8_bits` scales.

    Returns:
        (H, W, 3) pixels, BGR, upright.

    Raises:
        DataError: The file is not an image of these formats, has more than `MAX_PIXELS`, is truncated or broken.
    """
    return decode_with_bits(data)[0]


def decode_with_bits(data: bytes) -> tuple[NDArray[np.uint8], int]:
    """Decode as `decode` does; also returns the number of bits by which the pixels were scaled, or else 8."""
    header = read_header(data)
    if header.pixels > MAX_PIXELS:
        raise DataError(
            f"the image is {header.width} x {header.height}: {header.pixels / 1e6:.1f} megapixels",
            expected=f"at most {MAX_PIXELS / 1e6:.1f} megapixels",
        )
    if header.format == "PNG":
        _check_chunks(data)
    try:
        depth = cv2.IMREAD_ANYDEPTH if header.is_deep else 0
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | depth)
    except cv2.error as error:
        raise DataError(f"the {header.format} file cannot be decoded: {error.err}") from error
    if pixels is None:
        raise DataError(f"the {header.format} file is truncated or broken")
    if sorted(pixels.shape[:2]) != sorted((header.height, header.width)):
        raise DataError(f"the {header.format} file's header and its pixels disagree about its size")
    return to_8_bits(np.asarray(pixels, np.uint16)) if header.is_deep else (np.asarray(pixels, np.uint8), 8)


def _check_chunks(data: bytes) -> None:
    """Refuse a PNG file with a chunk that is longer than the file.

    OpenCV 4.14 allocates a chunk by the length that it claims: 4 GB for a file of a kilobyte.
    """
    offset = 8
    while offset + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        offset += 12 + length  # with length, type and checksum
        if offset - 4 > len(data):
            raise DataError("the PNG file is truncated or broken")


def bits_in_use(greatest: int, bits: int) -> int:
    """The smallest usual number of bits that holds an image's greatest value, or all of its `bits`.

    So a dark image may be scaled by fewer bits than others of its source. One that is black throughout could be of any
    range.
    """
    return next((each for each in USUAL_BITS if 0 < greatest < 1 << each < 1 << bits), bits)


def to_8_bits(values: NDArray[np.uint16]) -> tuple[NDArray[np.uint8], int]:
    """Scale pixels of 16 bits, alpha not among them, to 8; also returns the number of bits by which they are scaled.

    A value v becomes 255 v / (2^bits - 1), rounded.
    """
    bits = bits_in_use(int(values.max(initial=0)), 16)
    most = (1 << bits) - 1
    every = np.arange(1 << 16, dtype=np.float32).clip(0, most)
    return np.rint(every * np.float32(255 / most)).astype(np.uint8)[values], bits
