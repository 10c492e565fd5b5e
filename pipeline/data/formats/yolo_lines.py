"""The lines of a YOLO label file: a class's index, then a box, a polygon, or a box and key points.

Reference: https://docs.ultralytics.com/datasets/detect/ and /segment/, /pose/, /obb/. Coordinates are parts of the
upright picture's width and height, a box being its centre and size.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.data.boxes import flat, hull, polygon_area
from pipeline.data.formats.field_values import number, shown
from pipeline.data.parsed import ParsedBox
from pipeline.errors import DataError

EXPECTED = "class x-centre y-centre width height, or class x1 y1 x2 y2 x3 y3 …, as parts of the image"


def looks_like_labels(text: str) -> bool:
    """Whether the first line that is not empty could be one of a label file."""
    words = next((line.split() for line in text.splitlines() if line.strip()), [])
    return len(words) >= 5 and all(_is_number(word) for word in words) and _is_index(words[0])


def read_lines(
    text: str, where: str, classes: Sequence[str], size: tuple[int, int], keypoint_values: int = 0
) -> list[ParsedBox]:
    """The objects in a label file.

    Args:
        text: Its lines. Five values are a box, six one with its confidence, more of an odd count a polygon.
        where: The file's name.
        classes: Names by index.
        size: The upright picture's width and height; of `(0, 0)` lines are checked, and boxes come out without area.
        keypoint_values: How many values of key points follow a box.

    Raises:
        DataError: A line is none of these, or of a class that has no name; says which.
    """
    marks = []
    for i, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words:
            marks.append(_mark(words, f"{where}:{i}", classes, size, keypoint_values))
    return marks


def _mark(
    words: list[str], where: str, classes: Sequence[str], size: tuple[int, int], keypoint_values: int
) -> ParsedBox:
    name = _class(words[0], where, classes)
    is_box = len(words) in {5, 6} or (keypoint_values and len(words) == 5 + keypoint_values)
    if not is_box and (len(words) < 7 or len(words) % 2 == 0):
        problem = f"A line has {len(words)} values"
        raise DataError(problem, where=where, expected=EXPECTED, remedy="correct it there, or remove it")
    values = [number(word, "A coordinate", where) for word in words[1:]]
    width, height = size
    if is_box:
        x, y, across, down = values[:4]
        return ParsedBox(name, ((x - across / 2) * width, (y - down / 2) * height, across * width, down * height))
    points = [(x * width, y * height) for x, y in zip(values[::2], values[1::2], strict=True)]
    return ParsedBox(name, hull(points), 0, [flat(points)], polygon_area(points))


def _class(word: str, where: str, classes: Sequence[str]) -> str:
    index = number(word, "The class", where)
    if not index.is_integer():
        raise DataError(f"The class is {shown(word)} where an index was expected", where=where, expected=EXPECTED)
    if not 0 <= index < len(classes):
        raise DataError(
            f"A line is of class {int(index)}, which has no name",
            where=where,
            expected=f"0 to {len(classes) - 1}: there are {len(classes)} names",
            remedy="add the name to data.yaml or classes.txt, or correct the line",
        )
    return classes[int(index)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_index(word: str) -> bool:
    return float(word).is_integer() and float(word) >= 0
