"""The shapes of YOLO's label lines: how many values follow the class, and what they are.

| values | shape |
|---|---|
| 4 | a box: its centre, width and height |
| 5 | a box and a confidence from 0 to 1, or a box and the number of a track |
| 6 | a box, a confidence and the number of a track; or a polygon of three points |
| 4 + k, 5 + k | a box and key points of k values in all, as `kpt_shape` says; then a confidence |
| 6, 8, 10, … | a polygon |

Reference: https://docs.ultralytics.com/datasets/detect/ and /segment/, /pose/, /obb/. All lines of one length have the
same shape, which is decided by all of them. Coordinates are fractions of the image's width and height.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.data.formats.scalars import Faults, shown
from pipeline.data.parsed import ParsedBox
from pipeline.errors import DataError

EXPECTED = "class x-centre y-centre width height, or class x1 y1 x2 y2 x3 y3 …, as fractions of the image's size"
_OVER = 0.01  # by which a polygon's tool may have left the image
_FARTHEST = 2.0  # validation clips or drops boxes outside their image; larger numbers are no fractions

Shape = Literal["box", "polygon"]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of labels: its class, and the values after that."""

    label: str
    values: tuple[float, ...]
    where: str


def row_shapes(rows: Sequence[Row], keypoint_values: int, faults: Faults) -> dict[int, Shape]:
    """The shape of the lines by their number of values; lines without a known shape are faults."""
    by_count: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_count[len(row.values)].append(row)
    shapes: dict[int, Shape] = {}
    for count, alike in sorted(by_count.items()):
        shape = _shape(count, alike, keypoint_values)
        if shape == "box":
            shapes[count] = shape
            _check_fractions(alike, faults)
        elif shape == "polygon":
            shapes[count] = shape
            for row in alike:
                if not _are_parts(row.values):
                    faults.add(_no_part(row, keypoint_values))
        else:
            for row in alike:
                problem = f"a line has {count + 1} values{shape.problem}"
                faults.add(DataError(problem, where=row.where, expected=EXPECTED, remedy=shape.remedy))
    return shapes


def read_row(row: Row, shape: Shape) -> ParsedBox:
    """The object of a line, in fractions of the image's size."""
    if shape == "polygon":
        points = list(zip(row.values[::2], row.values[1::2], strict=True))
        return ParsedBox.around(row.label, points, source=row.where)
    x, y, across, down = row.values[:4]
    return ParsedBox(row.label, (x - across / 2, y - down / 2, across, down), source=row.where)


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Why a line has no known shape, and what to do."""

    problem: str = ""
    remedy: str = "correct the line, or remove it"


_NEITHER = _Doubt(", and the last is neither a confidence nor the number of a track")
_TRACK_OR_POLYGON = _Doubt(
    ", which may be a box with a confidence and a track, or a polygon", "remove the last two values if it is a box"
)
_MAY_HAVE_KEY_POINTS = _Doubt(
    ", which may be a polygon, or a box and key points",
    "if they are key points, add kpt_shape: [number, 2 or 3] to a data.yaml, and name that in annotations_url",
)


def _shape(count: int, rows: Sequence[Row], keypoint_values: int) -> Shape | _Doubt:
    if count == 4 or (keypoint_values and count in {4 + keypoint_values, 5 + keypoint_values}):
        return "box"
    if count == 5:
        last = [row.values[4] for row in rows]
        return "box" if all(0 <= each <= 1 for each in last) or all(map(_is_number_of_track, last)) else _NEITHER
    if count == 6:
        tracked = all(0 <= row.values[4] <= 1 and _is_number_of_track(row.values[5]) for row in rows)
        polygons = all(_are_parts(row.values) for row in rows)
        return "polygon" if not tracked else _TRACK_OR_POLYGON if polygons else "box"
    if count < 6 or count % 2:
        return _Doubt()
    return _MAY_HAVE_KEY_POINTS if all(_may_have_key_points(row.values) for row in rows) else "polygon"


def _is_number_of_track(value: float) -> bool:
    return value >= 0 and float(value).is_integer()


def _may_have_key_points(values: Sequence[float]) -> bool:
    """Whether a box could be followed by points that are each marked as absent, hidden or visible."""
    return len(values) % 3 == 1 and values[2] > 0 and values[3] > 0 and {0, 1, 2}.issuperset(values[6::3])


def _are_parts(values: Sequence[float]) -> bool:
    return not any(value < -_OVER or value > 1 + _OVER for value in values)


def _check_fractions(rows: Sequence[Row], faults: Faults) -> None:
    wrong = [row for row in rows if any(abs(value) > _FARTHEST for value in row.values[:4])]
    if len(wrong) > len(rows) / 2:
        values = " ".join(f"{value:g}" for value in wrong[0].values[:4])
        raise DataError(
            f"the labels are in pixels: {len(wrong)} of {len(rows)} boxes have values such as {values}",
            where=wrong[0].where,
            expected=EXPECTED,
            remedy="divide x and width by the image's width, y and height by its height",
        )
    for row in wrong:
        value = next(value for value in row.values[:4] if abs(value) > _FARTHEST)
        problem = f"a box has {value:g}, which is no fraction of an image"
        faults.add(DataError(problem, where=row.where, expected=EXPECTED, remedy="correct the line, or remove it"))


def _no_part(row: Row, keypoint_values: int) -> DataError:
    value = next(value for value in row.values if not _are_parts([value]))
    problem = f"a line of {len(row.values) + 1} values is no polygon: {shown(value)} is no part of an image"
    remedy = "correct the line, or remove it"
    if not keypoint_values:
        remedy = _MAY_HAVE_KEY_POINTS.remedy
    return DataError(problem, where=row.where, expected="values from 0 to 1", remedy=remedy)
