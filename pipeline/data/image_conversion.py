"""Image formats: JPEG, PNG, WebP and BMP stay as they are; whatever else Pillow reads becomes PNG or JPEG.

Converted is what the service would not take. A lossless format becomes PNG; a lossy one, and what would be too large
for the service as a PNG, becomes JPEG. The EXIF orientation is applied to the pixels then, and no tag of it is left.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.data.image_facts import MAX_BYTES
from pipeline.data.pixel_modes import to_rgb
from pipeline.serving.decoding import MAX_PIXELS

_KEPT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_KEPT_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"})
_LOSSY = frozenset({"JPEG2000", "AVIF"})
_CERTAIN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "AVIF", "QOI", "DDS", "PSD", "ICNS")
_BY_SUFFIX = (*_CERTAIN, "PPM", "TGA", "ICO", "PCX", "SGI", "DIB")  # their first bytes alone prove little
_SEQUENCES = frozenset({"GIF", "TIFF", "AVIF"})
_BOMB = 178_956_970  # pixels: where Pillow refuses, 512 MiB of RGB
_LONGEST_JPEG = 65_500  # pixels a side, libjpeg's limit
_QUALITY = 95
_LEVEL = 3  # of 9: a photograph gets hardly smaller with more, and takes three times as long
_ORIENTATION_TAG = 0x0112  # EXIF 2.32, 4.6.4 A
_BROKEN = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a file is, by its header.

    Attributes:
        format: Pillow's name of the format; empty where it is no image that can be read.
        problem: Why the image is not to be decoded; empty where it is.
    """

    format: str = ""
    problem: str = ""

    @property
    def stays(self) -> bool:
        """Whether the file is taken byte for byte."""
        return self.format in _KEPT or not self.format

    def suffix_for(self, name: str) -> str:
        """What is added to the name of a file that stays, so that it ends as such files do; mostly nothing."""
        return "" if not self.format or Path(name).suffix.lower() in _KEPT_SUFFIXES else _KEPT[self.format]


@dataclass(frozen=True, slots=True)
class Converted:
    """A picture as a PNG or JPEG file.

    Attributes:
        data: The file.
        suffix: `.png` or `.jpg`.
        orientation: EXIF orientation of the original, 1 to 8, which has been applied.
        first_of_many: Whether the original had more frames, which were left.
        brightness: What there is to say of how its greys were scaled; mostly nothing.
    """

    data: bytes
    suffix: str
    orientation: int
    first_of_many: bool
    brightness: str = ""


class UnreadableError(Exception):
    """Why a picture cannot be converted."""


def look(path: Path, *, named_as_image: bool) -> Look:
    """Tell an image by its header, decoding nothing. The content decides, not the name.

    Args:
        path: The file.
        named_as_image: Whether its name says that it is an image: then formats with weak marks count too.
    """
    try:
        with Image.open(path, formats=_BY_SUFFIX if named_as_image else _CERTAIN) as image:
            form, width, height = image.format or "", *image.size
    except Image.DecompressionBombError as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        return Look("", f"{int(found[1]) / 1e6:.0f} megapixels are too many" if found else "it has too many pixels")
    except _BROKEN:
        return Look()
    limit = _BOMB if form in _KEPT else MAX_PIXELS
    if width * height > limit:
        return Look(form, f"{width} x {height} pixels are more than {limit / 1e6:.0f} megapixels")
    return Look(form)


def convert(path: Path) -> Converted:
    """Decode a picture and encode it anew, upright, as 8 bit RGB. The same file gives the same bytes.

    Raises:
        UnreadableError: It is broken, or larger than its header said.
    """
    try:
        # Opened by its path, Pillow maps an uncompressed TIFF into memory by the size that it has upright: wrong rows.
        with path.open("rb") as file, Image.open(file, formats=_BY_SUFFIX) as image:
            form = image.format or ""
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            image.load()
            rgb, said = to_rgb(image)
            upright = _turned_like(rgb, image)
            many = form in _SEQUENCES and _has_second_frame(image)
    except _BROKEN as error:
        raise UnreadableError(f"it cannot be decoded: {_first_line(error)}") from error
    if upright.width * upright.height > MAX_PIXELS:
        raise UnreadableError(
            f"{upright.width} x {upright.height} pixels are more than {MAX_PIXELS / 1e6:.0f} megapixels"
        )
    data, suffix = _encoded(upright, lossy=form in _LOSSY)
    return Converted(data, suffix, orientation if orientation in range(1, 9) else 1, many, said)


def _turned_like(rgb: Image.Image, image: Image.Image) -> Image.Image:
    """The picture upright, where loading has not turned it already, as Pillow does with TIFF."""
    exif = image.getexif()
    rgb.info = {}  # dates, profiles and comments: of no use here
    if _ORIENTATION_TAG in exif:
        own = rgb.getexif()
        own[_ORIENTATION_TAG] = exif[_ORIENTATION_TAG]
        rgb = ImageOps.exif_transpose(rgb)
    return rgb


def _has_second_frame(image: Image.Image) -> bool:
    try:
        image.seek(1)
    except (EOFError, OSError, ValueError, SyntaxError, LookupError, struct.error):
        return False
    return True


def _encoded(rgb: Image.Image, *, lossy: bool) -> tuple[bytes, str]:
    if not lossy:
        data = _saved(rgb, "PNG", compress_level=_LEVEL)
        if len(data) <= MAX_BYTES or max(rgb.size) > _LONGEST_JPEG:
            return data, ".png"
    if max(rgb.size) > _LONGEST_JPEG:
        return _saved(rgb, "PNG", compress_level=_LEVEL), ".png"
    return _saved(rgb, "JPEG", quality=_QUALITY, subsampling=0), ".jpg"


def _saved(rgb: Image.Image, form: str, **options: int) -> bytes:
    file = io.BytesIO()
    rgb.save(file, form, **options)
    return file.getvalue()


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]
