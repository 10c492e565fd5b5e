"""Fonts of figures: which font has a letter, how class names are written, and text as pixels.

DejaVu Sans comes with matplotlib, Noto Sans for other scripts with two packages. For a letter that none of them has,
the fonts of the machine are searched.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font, LoadFlags
from PIL import Image

FONT = str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
_LONGEST = 24  # letters of a class name beside a bar


class Named(Protocol):
    """A class of objects."""

    @property
    def id(self) -> int:
        """Its number in the dataset."""

    @property
    def name(self) -> str:
        """Its name in the dataset, in any script."""


def find_fonts(text: str) -> tuple[str, ...]:
    """Files of the fonts that together draw a text: DejaVu Sans, and what it needs besides."""
    return tuple(dict.fromkeys([FONT, *filter(None, map(_font_of, sorted(set(text))))]))


def add_families(files: Iterable[str]) -> list[str]:
    """Make fonts known to matplotlib.

    Returns:
        The names of their families, for `Text.set_fontfamily`.
    """
    known = {entry.fname for entry in font_manager.fontManager.ttflist}
    names = []
    for file in files:
        if file not in known:
            font_manager.fontManager.addfont(file)
        names.append(FT2Font(file).family_name)
    return names


class ShapedFont:
    """A font for Pillow in any script; unlike Pillow's own it needs no library of the system for right-to-left text."""

    def __init__(self, size: float) -> None:
        self._size = size  # pixels

    def getbbox(self, text: str, *_: Any, **__: Any) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of the drawn text, in pixels."""
        height, width = self._draw(text).shape
        return 0, 0, width, height

    def getmask(self, text: str, *_: Any, **__: Any) -> Any:
        """The drawn text, in shades of grey."""
        return Image.fromarray(self._draw(text)).im

    def _draw(self, text: str) -> npt.NDArray[np.uint8]:
        font = font_manager.get_font(find_fonts(text))
        font.clear()
        font.set_size(self._size, 72)
        font.set_text(text, 0, flags=LoadFlags.DEFAULT)
        font.draw_glyphs_to_bitmap(antialiased=True)
        return np.array(font.get_image(), np.uint8)


def needs_shaping(text: str) -> bool:
    """Whether a text needs more than letters of DejaVu Sans from left to right."""
    return find_fonts(text) != (FONT,) or any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in text)


def written(text: str, longest: int = 1000) -> str:
    """A text in one line, without letters that no font has, shortened in its middle where it is too long.

    The end stays: names such as `valve (left)` and `valve (right)` differ there.
    """
    known = " ".join("".join(letter for letter in " ".join(text.split()) if _font_of(letter)).split())
    end = longest // 3
    return known if len(known) <= longest else f"{known[: longest - end - 1]}…{known[-end:]}"


def labels(classes: Sequence[Named]) -> list[str]:
    """Class names for figures; a name that no font can write in full starts with its number, as `#17`."""
    numbers = ["" if _whole(each.name) else f"#{each.id} " for each in classes]
    names = (written(each.name, _LONGEST - len(number)) for number, each in zip(numbers, classes, strict=True))
    return [(number + name).strip() for number, name in zip(numbers, names, strict=True)]


def unwritten(classes: Sequence[Named]) -> Mapping[str, str]:
    """Names of the classes that figures cannot write in full, by their labels."""
    return {label: each.name for label, each in zip(labels(classes), classes, strict=True) if not _whole(each.name)}


def missing_fonts(classes: Sequence[Named]) -> str:
    """A sentence that says which names figures cannot write, and what to do; empty where there is none."""
    names = unwritten(classes)
    if not names:
        return ""
    letters = {letter for name in names.values() for letter in name if letter.isprintable() and not _font_of(letter)}
    scripts = sorted({unicodedata.name(letter, "unknown").split()[0].title() for letter in letters})
    said = f"class names shown as numbers: {len(names)}"
    return f"{said}; no font here has {', '.join(scripts)} (on Debian: apt install fonts-noto)" if scripts else said


def _whole(name: str) -> bool:
    return bool(name.strip()) and all(map(_font_of, "".join(name.split())))


def _font_of(letter: str) -> str | None:
    file = _packaged().get(ord(letter))
    return _installed().get(ord(letter)) if file is None and letter.isprintable() else file


@cache
def _packaged() -> Mapping[int, str]:
    noto = sorted(str(each) for each in resources.files("manimgx_fonts").iterdir() if each.name.endswith(".ttf"))
    cjk = str(resources.files("noto_cjk_sans_otc").joinpath("NotoSansCJK-Regular.ttc"))
    return _by_letter([FONT, *(each for each in noto if "Italic" not in each), cjk])


@cache
def _installed() -> Mapping[int, str]:
    return _by_letter(sorted(font_manager.findSystemFonts(), key=lambda file: ("Regular" not in file, file)))


def _by_letter(files: Iterable[str]) -> dict[int, str]:
    """The first font that has a letter, by letter; a font of bitmaps, or of a box for every letter, does not count."""
    found: dict[int, str] = {}
    for file in files:
        try:
            font = FT2Font(file)
        except (OSError, RuntimeError):  # no font that FreeType can read
            continue
        if font.scalable and "lastresort" not in font.family_name.lower().replace(" ", ""):
            for letter, glyph in font.get_charmap().items():
                if glyph:
                    found.setdefault(letter, file)
    return found
