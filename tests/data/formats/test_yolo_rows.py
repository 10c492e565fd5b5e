from __future__ import annotations

from typing import Any

import pytest
from cases import cases

from pipeline.data.formats.scalars import Faults
from pipeline.data.formats.yolo_rows import Row, read_row, row_shapes
from pipeline.errors import DataError

BOX = (0.5, 0.5, 0.2, 0.4)
TRIANGLE = (0.1, 0.2, 0.3, 0.2, 0.2, 0.6)
SQUARE = (0.1, 0.2, 0.3, 0.2, 0.3, 0.6, 0.1, 0.6)
SMALL = (0.4, 0.3, 0.1, 0.1)
CROSSED = (0.45, 0.4, 0.55, 0.6, 0.55, 0.4, 0.45, 0.6)
VISIBLE = (*BOX, 0.4, 0.5, 2.0, 0.3, 0.3, 1.0)


def rows(*values: tuple[float, ...]) -> list[Row]:
    return [Row("cat", each, f"a.txt:{i}") for i, each in enumerate(values, 1)]


def shapes(*values: tuple[float, ...], keypoint_values: int = 0) -> dict[int, Any]:
    faults = Faults()
    found = row_shapes(rows(*values), keypoint_values, faults)
    faults.settle(1000)
    return found


@cases(
    "values, keypoint_values, expected",
    {
        "boxes": ([BOX], 0, {4: "box"}),
        "confidence": ([(*BOX, 0.9), (*BOX, 1.0)], 0, {5: "box"}),
        "track": ([(*BOX, 0.0), (*BOX, 7.0)], 0, {5: "box"}),
        "confidence and track": ([(*BOX, 0.9, 1.0), (*BOX, 0.9, 2.0)], 0, {6: "box"}),
        "triangles": ([TRIANGLE, (*BOX, 0.9, 0.5)], 0, {6: "polygon"}),
        "polygons": ([SQUARE], 0, {8: "polygon"}),
        "a polygon a little outside": ([(-0.004, 0.2, 1.003, 0.2, 0.3, 0.6, 0.1, 0.6)], 0, {8: "polygon"}),
        "boxes and polygons": ([BOX, SQUARE], 0, {4: "box", 8: "polygon"}),
        "the whole image": ([(0, 0, 1, 0, 1, 1, 0, 1, 0, 0)], 0, {10: "polygon"}),
        "key points": ([VISIBLE], 6, {10: "box"}),
        "key points of two values": ([(*BOX, 0.4, 0.5, 0.3, 0.3)], 4, {8: "box"}),
        "key points beside plain boxes": ([VISIBLE, BOX], 6, {4: "box", 10: "box"}),
        "outlines beside key points": ([VISIBLE, SQUARE], 6, {8: "polygon", 10: "box"}),
        "key points and confidence": ([(*VISIBLE, 0.8)], 6, {11: "box"}),
        "turned boxes in the middle": ([(0.5, 0.5, 0.6, 0.5, 0.6, 0.6, 0.5, 0.6)], 0, {8: "polygon"}),
        "few boxes that leave the image": ([(0.1, 0.2, 0.4, 0.6), *[SMALL] * 3], 0, {4: "box"}),
        "boxes that leave all edges": ([(0.1, 0.2, 0.4, 0.6), (0.9, 0.9, 0.4, 0.4)], 0, {4: "box"}),
        "a box beside the image: for validation": ([(1.5, 0.5, 0.2, 0.4)], 0, {4: "box"}),
        "no number: for validation": ([(float("nan"), 0.5, 0.2, 0.4)], 0, {4: "box"}),
    },
)
def test_lines_of_one_length_have_one_shape(
    values: list[tuple[float, ...]], keypoint_values: int, expected: dict[int, str]
) -> None:
    assert shapes(*values, keypoint_values=keypoint_values) == expected


PIXELS = (47.5, 76.5, 37.0, 23.0)


@cases(
    "values, said",
    {
        "pixels": ([PIXELS, PIXELS, BOX], "labels are in pixels: 2 of 3 boxes.*47.5 76.5 37 23.*a.txt:1.*divide x"),
        "pixels in one line": ([BOX, BOX, PIXELS], "a box has 47.5, which is no fraction.*a.txt:3"),
        "polygons in pixels": (
            [(*PIXELS, *PIXELS)],
            "9 values is no polygon: 47.5.*a.txt:1.*do: .*divide x by the image",
        ),
        "a value of a polygon in pixels": (
            [SQUARE, (*SQUARE[:7], 60.0)],
            "9 values is no polygon: 60.0 is no part.*a.txt:2",
        ),
        "key points without kpt_shape": ([VISIBLE], "may be a polygon, or a box and key points.*kpt_shape"),
        "hidden ones": ([(*BOX, 0.4, 0.5, 1, 0.3, 0.3, 0)], "may be a polygon, or a box and key points"),
        "track or triangle": ([(*BOX, 0.9, 1.0)], "7 values, which may be a box with a confidence and a track, or a"),
        "neither confidence nor track": ([(*BOX, 1.5)], "6 values, and the last is neither"),
        "too few": ([BOX, (0.1, 0.2)], "3 values.*a.txt:2"),
        "key points in pairs": (
            [(*BOX, *CROSSED), (*BOX, *CROSSED)],
            "13 values, which may be a polygon, or a box and key points",
        ),
        "a key point": ([(*BOX, 0.4, 0.5)], "7 values, which may be a polygon, or a box and key points"),
        "corners": (
            [(0.1, 0.2, 0.4, 0.6), (0.5, 0.5, 0.9, 0.9)],
            "1 of 2 boxes leave their images.*left, top, right and bottom: 0.1.*order",
        ),
        "a corner and sides": ([(0.1, 0.2, 0.3, 0.6), BOX, SMALL], "1 of 3 boxes leave.*left, top, width and height"),
        "confidence first": ([(0.9, *BOX), (0.3, *BOX)], "1 of 2 boxes leave.*a confidence before the box: 0.9 0.5"),
        "confidence first, then a track": ([(0.9, *BOX, 3.0), (0.8, *BOX, 1.0)], "a confidence before the box"),
        "half a point": ([(*SQUARE, 0.5)], "10 values"),
    },
)
def test_doubtful_lines_are_refused(values: list[tuple[float, ...]], said: str) -> None:
    with pytest.raises(DataError, match=f"(?s){said}"):
        shapes(*values)


@pytest.mark.parametrize(
    ("number", "remedy"), [(0, "add kpt_shape"), (8, "correct kpt_shape in data.yaml, which is for 8")]
)
@pytest.mark.parametrize("hidden", [0.0, 2.0])
def test_key_points_are_told_by_their_shape_alone(hidden: float, number: int, remedy: str) -> None:
    with pytest.raises(DataError, match=f"(?s)11 values.*a.txt:1.*{remedy}"):
        shapes((*VISIBLE[:6], hidden, *VISIBLE[7:]), keypoint_values=number)
    with pytest.raises(DataError, match=f"(?s)9 values is no polygon: 60.0.*a.txt:1.*{remedy}"):
        shapes((*SQUARE[:7], 60.0), keypoint_values=number)


def test_objects_are_fractions() -> None:
    box, polygon = read_row(rows((*BOX, 0.9))[0], "box"), read_row(rows(SQUARE)[0], "polygon")
    assert box.bbox == pytest.approx((0.4, 0.3, 0.2, 0.4))
    assert polygon.bbox == pytest.approx((0.1, 0.2, 0.2, 0.4))
    assert (polygon.segmentation, polygon.source) == ([list(SQUARE)], "a.txt:1")
    assert polygon.scaled(100, 50).area == pytest.approx(400)
