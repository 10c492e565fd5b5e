"""Small images as bytes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image


def picture(form: str = "PNG", size: tuple[int, int] = (40, 20), *, seed: int = 0, orientation: int = 0) -> bytes:
    """An image of noise, the same for each seed; with an EXIF orientation, if there is one."""
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, exif=exif_of(orientation) if orientation else Image.Exif())
    return file.getvalue()


def smooth(seed: int, size: tuple[int, int] = (120, 80), cells: int = 6) -> Any:
    """Pixels of soft blotches: two seeds look nothing alike."""
    shades = np.random.default_rng(seed).integers(0, 255, (cells, cells, 3), np.uint8)
    return cv2.resize(shades, size, interpolation=cv2.INTER_CUBIC)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_start(width: int, height: int, bits: int = 8) -> bytes:
    """The signature and header of a PNG file, grey at less than 8 bits and colour at 8; its pixels are not there."""
    size = struct.pack(">IIBBBBB", width, height, bits, 2 if bits == 8 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", size)


def png_of_16_bits(values: Any, *, has_alpha: bool = False, orientation: int = 1) -> bytes:
    """A PNG file of values `(height, width, 1 or 3)`, grey or RGB; alpha is opaque."""
    height, width, channels = values.shape
    if has_alpha:
        values = np.concatenate([values, np.full((height, width, 1), 65535)], 2)
    kind = {1: 0, 3: 2}[channels] + 4 * has_alpha
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0" + bytes([orientation]) + bytes(6)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0),
        b"eXIf": exif,
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks.items())
