"""Letters of all scripts are drawn with a font that has them, or a number stands for the name, and that is said."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib import resources
from itertools import combinations
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from pipeline.data import fonts
from pipeline.data.coco import Category
from pipeline.data.figures import Chart, Pixels, draw_labelled
from pipeline.data.fonts import FONT, find_fonts, labels, missing_fonts, needs_shaping, unwritten, written

SCRIPTS = {
    "chinese": ("红色的自行车", "蓝色的自行车"),
    "traditional-chinese": ("貓與龜", "狗與龜"),
    "japanese": ("ネコと日本語", "イヌと日本語"),
    "korean": ("빨간 자동차", "파란 자동차"),
    "cyrillic": ("Красный велосипед", "Їжак ґанок"),
    "arabic": ("سيارة حمراء", "گربه پژمرده ٹماٹر"),
    "devanagari": ("क्षत्रिय हिन्दी", "कुत्ता श्रृंखला ज्ञान"),
    "hebrew": ("חתול", "כלב"),
    "thai": ("แมวน้ำ", "หมา"),
    "bengali": ("বিড়াল", "কুকুর"),
    "emoji": ("😀", "🚗"),
}


@pytest.fixture
def no_fonts_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_installed", dict)


@cases("names", SCRIPTS)
def test_packages_have_every_letter(names: tuple[str, str], no_fonts_installed: None) -> None:
    for name in names:
        known = set().union(*(FT2Font(file).get_charmap() for file in find_fonts(name)))
        assert known.issuperset(map(ord, name))
        assert written(name) == name
    categories = [Category(number, name) for number, name in enumerate(names)]
    assert (labels(categories), unwritten(categories), missing_fonts(categories)) == ([*names], {}, "")


def on_a_chart(name: str) -> Pixels:
    chart = Chart(3, 1)
    axes = chart.add_subplot()
    axes.set_yticks([0.5], [name])
    axes.plot([0, 1], label=name)
    axes.legend()
    chart.canvas.draw()
    return np.asarray(chart.canvas.buffer_rgba())


def on_an_image(name: str) -> Pixels:
    return draw_labelled(np.zeros((60, 200, 3), np.uint8), np.array([[10.0, 30, 50, 20]]), ["#0072B2"], [name])


@pytest.mark.filterwarnings("error")
@cases("draw", {"chart": on_a_chart, "image": on_an_image})
def test_names_are_drawn_and_differ(draw: object, no_fonts_installed: None) -> None:
    """Boxes for missing letters would make names of one length alike, and matplotlib would warn."""
    assert callable(draw)
    drawn = [draw(name) for names in SCRIPTS.values() for name in names]
    assert all(one.shape != other.shape or (one != other).any() for one, other in combinations(drawn, 2))


def ink(text: str) -> Pixels:
    return fonts.ShapedFont(40)._draw(text)


def test_text_is_shaped(no_fonts_installed: None) -> None:
    """Arabic letters join and run to the left, and Devanagari's short i comes before its consonant."""
    assert ink("بيت").shape[1] < sum(ink(letter).shape[1] for letter in "بيت")
    alif, both = ink("\u0627"), ink("\u0627بب")
    assert both[:, -alif.shape[1] :].any(axis=1).sum() == alif.any(axis=1).sum(), "the first letter is the last column"
    assert ink("क्ष").shape[1] < ink("क").shape[1] + ink("ष").shape[1]
    assert ink("कि").shape == ink("कि").shape != ink("क").shape
    consonant = ink("क")
    assert not np.array_equal(ink("कि")[-consonant.shape[0] :, : consonant.shape[1]], consonant)


@cases(
    "text, needed",
    {
        "latin": ("Ünï — cat…", False),
        "greek-and-cyrillic": ("Ελλάδα Їжак", False),
        "arabic": ("قط", True),
        "hebrew": ("חתול", True),
        "han": ("cat 猫", True),
    },
)
def test_only_other_scripts_leave_the_first_font(text: str, needed: bool) -> None:
    assert find_fonts(text)[0] == FONT
    assert needs_shaping(text) == needed


@cases(
    "name, label",
    {
        "plain": ("cat", "cat"),
        "greek-and-cyrillic": ("Ελλάδα, Москва", "Ελλάδα, Москва"),
        "a-script-no-font-has": ("བོད", "#7"),
        "half-of-it": ("ཀ person", "#7 person"),
        "lines": (" two\nlines\t", "two lines"),
        "control": ("bell\x07", "#7 bell"),
        "half-a-letter": ("a\ud800", "#7 a"),
        "blank": (" ", "#7"),
        "long": ("a valve of the pump house (left)", "a valve of the …e (left)"),
    },
)
def test_labels(name: str, label: str, no_fonts_installed: None) -> None:
    assert labels([Category(7, name)]) == [label]
    assert unwritten([Category(7, name)]) == ({label: name} if label.startswith("#") else {})


@given(st.text(max_size=60))
def test_a_label_has_no_letter_without_a_font(name: str) -> None:
    (label,) = labels([Category(7, name)])
    assert 0 < len(label) <= 24
    assert all(len(find_fonts(letter)) == 2 or ord(letter) in FT2Font(FONT).get_charmap() for letter in label)


@cases(
    "names, said",
    {
        "none": (["cat", "猫"], ""),
        "scripts": (
            ["ka", "ཀ", "ꀀ", "ꀀ cat"],
            "class names shown as numbers: 3; no font here has Tibetan, Yi (on Debian: apt install fonts-noto)",
        ),
        "no-script": (["\x07", "cat"], "class names shown as numbers: 1"),
    },
)
def test_what_no_font_has_is_said(names: list[str], said: str, no_fonts_installed: None) -> None:
    assert missing_fonts([Category(number, name) for number, name in enumerate(names, 1)]) == said


@pytest.fixture
def only_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A machine with one font for Devanagari, beside files that are no help, and no package of fonts."""
    font = Path(str(resources.files("manimgx_fonts"))) / "NotoSansDevanagari[wght].ttf"
    shutil.copy(font, tmp_path / "Some-Regular.ttf")
    shutil.copy(Path(mpl.get_data_path()) / "fonts" / "ttf" / "LastResortHE-Regular.ttf", tmp_path / "A-Regular.ttf")
    (tmp_path / "broken-Regular.ttf").write_bytes(b"no font")
    found = font_manager.findSystemFonts([str(tmp_path)])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: found)
    monkeypatch.setattr(fonts, "_packaged", lambda: dict.fromkeys(FT2Font(FONT).get_charmap(), FONT))
    fonts._installed.cache_clear()
    yield str(tmp_path / "Some-Regular.ttf")
    fonts._installed.cache_clear()


def test_fonts_of_the_machine_are_used(only_installed: str) -> None:
    assert find_fonts("कुत्ता cat") == (FONT, only_installed)
    assert labels([Category(1, "कुत्ता"), Category(2, "猫")]) == ["कुत्ता", "#2"]
    assert "no font here has Cjk" in missing_fonts([Category(1, "कुत्ता"), Category(2, "猫")])
