"""The style of a dataset's figures, and names from outside in figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from matplotlib.axes import Axes
from matplotlib.ft2font import FT2Font

from pipeline.data.coco import Category
from pipeline.data.figures import FONT, Chart

WIDTH = 9.0  # inches; 900 pixels at 100 dpi, a notebook's column
COLOUR_MAP = "cividis"  # even in lightness, and the same for every kind of colour vision
_LONGEST = 24  # letters of a class name beside a bar


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Give a figure its title at the left, its axis titles, and no frame."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def note(title: str, text: str) -> Chart:
    """A figure with a text, where there is nothing to draw."""
    chart = Chart(WIDTH, 1.1)
    axes: Axes = chart.add_subplot()
    axes.axis("off")
    axes.set_title(title, loc="left", fontsize=11)
    axes.text(0, 0.5, text, transform=axes.transAxes, color="0.35", va="center")
    return chart


def written(text: str, longest: int = 1000) -> str:
    """A text in one line, without letters that the font lacks, shortened in its middle where it is too long.

    The end stays: names such as `valve (left)` and `valve (right)` differ there. Draw it with `parse_math=False`, so
    that a dollar sign stays one.
    """
    known = "".join(letter for letter in " ".join(text.split()) if ord(letter) in _letters())
    known = " ".join(known.split())
    end = longest // 3
    return known if len(known) <= longest else f"{known[: longest - end - 1]}…{known[-end:]}"


def labels(categories: Sequence[Category]) -> list[str]:
    """Class names for figures; a name that the font cannot write in full starts with its number, as `#17`."""
    return [_label(each) for each in categories]


def unwritten(categories: Sequence[Category]) -> Mapping[str, str]:
    """Names of the classes that figures cannot write in full, by their labels."""
    return {_label(each): each.name for each in categories if not _whole(each.name)}


def _label(category: Category) -> str:
    number = "" if _whole(category.name) else f"#{category.id} "
    return (number + written(category.name, _LONGEST - len(number))).strip()


def _whole(name: str) -> bool:
    return bool(name.split()) and all(ord(letter) in _letters() for letter in "".join(name.split()))


@cache
def _letters() -> frozenset[int]:
    return frozenset(FT2Font(FONT).get_charmap())
