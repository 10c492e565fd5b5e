"""Image formats: JPEG, PNG, WebP and BMP stay as they are; other formats that Pillow reads become PNG or JPEG.

The service would refuse these others. A lossless format becomes PNG; a lossy one, and an image that would be too large
for the service as a PNG, becomes JPEG. The EXIF orientation is applied to the pixels, and its tag removed. A PNG of
16 bits a channel becomes one of 8, with the pixels that the service makes of it.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.data.images import MAX_BYTES, ORIENTATION_TAG, UNREADABLE, orientation_of
from pipeline.serving.decoding import MAX_PIXELS, bits_in_use, decode_with_bits, to_8_bits

_KEPT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_KEPT_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"})
_LOSSY = frozenset({"JPEG2000", "AVIF"})
_CERTAIN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF", "QOI", "DDS", "PSD", "ICNS")
_BY_SUFFIX = (*_CERTAIN, "PPM", "TGA", "ICO", "PCX", "SGI", "DIB")  # their first bytes alone prove little
_SEQUENCES = frozenset({"GIF", "TIFF", "AVIF"})
_LONGEST_JPEG = 65_500  # pixels a side, libjpeg's limit
_DAMAGE = (AttributeError, ArithmeticError, MemoryError, RuntimeError, zlib.error)
_BROKEN = (*UNREADABLE, *_DAMAGE, Image.DecompressionBombError)
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, sections 8 and 19
_J2K_START, _J2K_BITS = b"\xff\x4f\xff\x51", 42  # ITU-T T.800, A.4.1 and A.5.1: SOC, SIZ and its Ssiz
_WHITE_IS_ZERO, _SIGNED = 0, 2


@dataclass(frozen=True, slots=True)
class DetectedFormat:
    """The format of a file, by its header."""

    name: str = ""  # Pillow's; empty if Pillow cannot read the file
    problem: str = ""  # why the image must not be decoded; empty if it may
    is_deep: bool = False  # whether it is a PNG of 16 bits a channel

    @property
    def stays(self) -> bool:
        """Whether the file is taken byte for byte."""
        return not self.is_deep and (self.name in _KEPT or not self.name)

    def suffix_for(self, name: str) -> str:
        """The suffix to add to the name of a file that stays; empty if it has a fitting one."""
        return "" if not self.name or Path(name).suffix.lower() in _KEPT_SUFFIXES else _KEPT[self.name]


@dataclass(frozen=True, slots=True)
class ConvertedImage:
    """An image as a PNG or JPEG file, with its suffix."""

    data: bytes
    suffix: str
    orientation: int  # of EXIF in the original, 1 to 8, which has been applied
    notes: tuple[str, ...]  # what the conversion left out or changed


class UnreadableError(Exception):
    """Why an image cannot be converted."""


def detect_format(content: Path | bytes, *, named_as_image: bool) -> DetectedFormat:
    """Detect an image's format by its header; formats with weak signatures only where the name says it is an image."""
    try:
        formats = _BY_SUFFIX if named_as_image else _CERTAIN
        with _opened(content) as file, Image.open(file, formats=formats) as image:
            name, (width, height) = image.format or "", image.size
            is_deep = _is_deep_png(file)
    except Image.DecompressionBombError as error:
        pixels = re.findall(r"\d+", str(error))[0]
        return DetectedFormat("", f"{int(pixels) / 1e6:.0f} megapixels are too many")
    except _BROKEN:
        return DetectedFormat()
    if name not in _KEPT and width * height > MAX_PIXELS:
        return DetectedFormat(name, f"{width} x {height} pixels are more than {MAX_PIXELS / 1e6:.0f} megapixels")
    return DetectedFormat(name, is_deep=is_deep and width * height <= MAX_PIXELS)


def convert(content: Path | bytes) -> ConvertedImage:
    """Decode an image and encode it anew, upright, as 8 bit RGB; an `UnreadableError` if it is broken."""
    try:
        # Opened by its path, Pillow maps an uncompressed TIFF into memory by the size that it has upright: wrong rows.
        with _opened(content) as file, Image.open(file, formats=_BY_SUFFIX) as image:
            name = image.format or ""
            if _is_deep_png(file):
                orientation = orientation_of(image)
                rgb, notes = _deep_png(file)
            else:
                orientation = image.getexif().get(ORIENTATION_TAG, 1)
                image.load()  # which turns a TIFF, and takes its tag away
                rgb, notes = _to_rgb(ImageOps.exif_transpose(image), image, file)
            rgb.info = {}  # dates, profiles and comments
            if name in _SEQUENCES:
                with suppress(*UNREADABLE):
                    image.seek(1)
                    notes = ("only the first of its frames is taken", *notes)
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).partition("\n")[0][:200]
        raise UnreadableError(f"it cannot be decoded: {reason}") from error
    data, suffix = b"", ".png"
    fits_jpeg = max(rgb.size) <= _LONGEST_JPEG
    if name not in _LOSSY or not fits_jpeg:
        data = _saved(rgb, "PNG", compress_level=3)  # more takes three times as long, and saves hardly anything
    if fits_jpeg and not 0 < len(data) <= MAX_BYTES:
        data, suffix = _saved(rgb, "JPEG", quality=95, subsampling=0), ".jpg"
    return ConvertedImage(data, suffix, orientation if orientation in range(1, 9) else 1, notes)


def _is_deep_png(file: BinaryIO) -> bool:
    """Whether an opened file is a PNG of 16 bits a channel."""
    position = file.tell()  # from which Pillow may read on
    file.seek(0)
    start = file.read(25)
    file.seek(position)
    return start.startswith(b"\x89PNG") and start[24:] == b"\x10"  # PNG, third edition, 11.2.1


def _deep_png(file: BinaryIO) -> tuple[Image.Image, tuple[str, ...]]:
    """The pixels of a PNG of 16 bits a channel as the service has them, and a note that they were scaled."""
    file.seek(0)
    pixels, bits = decode_with_bits(file.read())
    notes = _note_of(bits, 16) or ("its 16 bits a channel are scaled to 8",)
    return Image.fromarray(np.ascontiguousarray(pixels[..., ::-1])), notes


def _deep_colours(opened: Image.Image, upright: Image.Image, file: BinaryIO) -> tuple[Image.Image, tuple[str, ...]]:
    """Colours of 16 bits scaled to 8, of which Pillow has taken the upper 8; others as they are."""
    if opened.format not in {"TIFF", "PPM", "JPEG2000"} or upright.mode not in {"RGB", "RGBA"}:
        return upright, ()
    file.seek(0)
    data = file.read()
    bits = max(getattr(opened, "tag_v2", {}).get(_BITS, (8,)))
    if opened.format == "JPEG2000":
        bits = (data[data.find(_J2K_START) + _J2K_BITS] & 0x7F) + 1
    if opened.format != "PPM" and bits <= 8:
        return upright, ()
    with suppress(cv2.error):
        # OpenCV turns a TIFF of 16 bits upright
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if values is not None and values.dtype == np.uint16 and values.shape[1::-1] == upright.size:
            pixels, bits = to_8_bits(np.asarray(values, np.uint16))
            bands = map(Image.fromarray, np.moveaxis(pixels[..., ::-1], 2, 0).copy())
            return Image.merge(upright.mode, (*bands, *upright.split()[3:])), _note_of(bits, 16)
    return upright, ()


def _opened(content: Path | bytes) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _saved(rgb: Image.Image, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    rgb.save(file, form, **options)
    return file.getvalue()


def _to_rgb(image: Image.Image, opened: Image.Image, file: BinaryIO) -> tuple[Image.Image, tuple[str, ...]]:
    """Convert an upright image to 8 bit RGB; also returns notes on its brightness.

    Transparent pixels become white. CMYK and the like are converted by Pillow's plain formulas, without profiles.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        grey, notes = _scaled_grey(image, getattr(opened, "tag_v2", {}))
        return Image.fromarray(grey).convert("RGB"), notes
    image, notes = _deep_colours(opened, image, file)
    if image.has_transparency_data:
        straight = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", straight.size, "white"), straight).convert("RGB"), notes
    return image.convert("RGB"), notes


def _scaled_grey(image: Image.Image, tags: Mapping[int, Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Grey of more than 8 bits in 8, and a note if not all of its bits are used.

    It is scaled by `bits_in_use`, as in the service. Negative values become black. Floating point is scaled by `0..1`
    if all values lie in it, otherwise by the image's own least and greatest.
    """
    notes: tuple[str, ...] = ()
    values, least = np.asarray(image), 0.0
    if image.mode == "F":
        finite = values[np.isfinite(values)]
        least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        if least >= 0 and most <= 1:
            least, most = 0.0, 1.0
    else:
        signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
        if tags and not signed and values.dtype == np.int32:
            values = values.view(np.uint32)
        of_bits = int(tags.get(_BITS, (16,))[0]) - signed
        bits = bits_in_use(int(values.max(initial=0)), of_bits)
        most = float((1 << bits) - 1)
        notes = _note_of(bits, of_bits)
    scaled = np.nan_to_num(values.astype(np.float32), nan=least, posinf=most, neginf=least)
    scaled = (scaled - np.float32(least)) * np.float32(255 / (most - least) if most > least else 0)
    grey = np.rint(scaled.clip(0, 255)).astype(np.uint8)
    return (255 - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey), notes


def _note_of(bits: int, of_bits: int) -> tuple[str, ...]:
    return (f"its values fill {bits} of {of_bits} bits: scaled by {bits}",) if bits < of_bits else ()
