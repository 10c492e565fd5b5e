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

from pipeline.data.boxes import Point
from pipeline.data.formats.scalars import Faults, shown
from pipeline.data.parsed import ParsedBox
from pipeline.errors import DataError

EXPECTED = "class x-centre y-centre width height, or class x1 y1 x2 y2 x3 y3 …, as fractions of the image's size"
_OVER = 0.01  # by which a polygon's tool may have left the image
_FEW = 4  # one box of so many may leave its image
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
    uniform = len(by_count.keys() - {4}) == 1
    shapes: dict[int, Shape] = {}
    for count, alike in sorted(by_count.items()):
        shape = _shape(count, alike, keypoint_values, uniform=uniform)
        if shape == "box":
            shapes[count] = shape
            _check_fractions(alike, faults)
            _check_order(alike)
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


def _of_key_points(keypoint_values: int) -> str:
    if keypoint_values:
        return f"if they are key points, correct kpt_shape in data.yaml, which is for {keypoint_values} values"
    return "if they are key points, add kpt_shape: [number, 2 or 3] to a data.yaml, and name that in annotations_url"


def _shape(count: int, rows: Sequence[Row], keypoint_values: int, *, uniform: bool) -> Shape | _Doubt:
    if count == 4 or (keypoint_values and count in {4 + keypoint_values, 5 + keypoint_values}):
        return "box"
    if count == 5:
        last = [row.values[4] for row in rows]
        return "box" if all(0 <= each <= 1 for each in last) or all(map(_is_number_of_track, last)) else _NEITHER
    if count == 6:
        tracked = all(0 <= row.values[4] <= 1 and _is_number_of_track(row.values[5]) for row in rows)
        polygons = all(_are_parts(row.values) for row in rows)
        if tracked:
            return _TRACK_OR_POLYGON if polygons else "box"
    if count < 6 or count % 2:
        return _Doubt()
    pairs = uniform and all(_may_have_pairs(row.values) for row in rows)
    no_outlines = pairs and (count == 6 or any(_crosses(row.values) for row in rows))
    if no_outlines or all(_may_have_key_points(row.values) for row in rows):
        return _Doubt(", which may be a polygon, or a box and key points", _of_key_points(keypoint_values))
    return "polygon"


def _is_number_of_track(value: float) -> bool:
    return value >= 0 and float(value).is_integer()


def _may_have_key_points(values: Sequence[float]) -> bool:
    """Whether a box could be followed by points that are each marked as absent, hidden or visible."""
    return len(values) % 3 == 1 and values[2] > 0 and values[3] > 0 and {0, 1, 2}.issuperset(values[6::3])


def _may_have_pairs(values: Sequence[float]) -> bool:
    """Whether a box could be followed by points without marks, all of them in the box, or 0 where they are absent."""
    x, y, across, down = values[:4]
    points = [each for each in zip(values[4::2], values[5::2], strict=True) if any(each)]
    inside = all(abs(px - x) <= across / 2 + _OVER and abs(py - y) <= down / 2 + _OVER for px, py in points)
    return bool(points) and inside and _is_inside(values)


def _crosses(values: Sequence[float]) -> bool:
    """Whether two sides of a polygon cross, as in no outline that was drawn around an object."""
    points = list(zip(values[::2], values[1::2], strict=True))
    sides = list(zip(points, [*points[1:], points[0]], strict=True))
    return any(_cross(*sides[i], *other) for i in range(len(sides)) for other in sides[i + 2 :])


def _cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    def turn(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


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


def _check_order(rows: Sequence[Row]) -> None:
    """Refuse boxes of which many leave their images, and all would fit if the values were in another order."""
    leaving = [row for row in rows if not _is_inside(row.values)]
    if len(leaving) * _FEW <= len(rows):
        return
    for order, fits in _OTHER_ORDERS.items():
        if all(fits(row.values) for row in rows):
            values = " ".join(f"{value:g}" for value in leaving[0].values)
            raise DataError(
                f"{len(leaving)} of {len(rows)} boxes leave their images, so that the values may be {order}: {values}",
                where=leaving[0].where,
                expected=EXPECTED,
                remedy="convert the boxes to the expected order, or cut them off at the images' edges",
            )


def _is_inside(values: Sequence[float]) -> bool:
    x, y, across, down = values[:4]
    return _is_corner((x - across / 2, y - down / 2, across, down))


def _is_corner(values: Sequence[float]) -> bool:
    x, y, across, down = values[:4]
    return _are_parts((x, y, across, down, x + across, y + down))


def _are_corners(values: Sequence[float]) -> bool:
    left, top, right, bottom = values[:4]
    return _are_parts(values[:4]) and left <= right and top <= bottom


def _is_behind_confidence(values: Sequence[float]) -> bool:
    return len(values) in {5, 6} and 0 <= values[0] <= 1 and _is_inside(values[1:])


_OTHER_ORDERS = {
    "a confidence before the box": _is_behind_confidence,
    "left, top, right and bottom": _are_corners,
    "left, top, width and height": _is_corner,
}


def _no_part(row: Row, keypoint_values: int) -> DataError:
    value = next(value for value in row.values if not _are_parts([value]))
    problem = f"a line of {len(row.values) + 1} values is no polygon: {shown(value)} is no part of an image"
    in_pixels = max(row.values[:4]) > _FARTHEST
    remedy = "divide x by the image's width, y by its height" if in_pixels else _of_key_points(keypoint_values)
    return DataError(problem, where=row.where, expected="values from 0 to 1", remedy=remedy)
