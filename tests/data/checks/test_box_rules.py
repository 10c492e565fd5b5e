from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_rule import apply
from pycocotools import mask
from pycocotools.coco import COCO

from pipeline.data.boxes import normalise, shown
from pipeline.data.checks import box_rules
from pipeline.data.checks.box_rules import _decoded, malformed_segmentations, segmentations_outside
from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image, write_coco

SQUARE = [5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]
TEXT = mask.encode(np.asfortranarray(np.eye(40, 60, dtype=np.uint8)))["counts"].decode()


def dataset(bbox: Box, area: float | None = None, iscrowd: int = 0) -> CocoDataset:
    annotation = Annotation(1, 1, 1, bbox, bbox[2] * bbox[3] if area is None else area, iscrowd)
    return CocoDataset((Image(1, "a.png", 60, 40),), (annotation,), (Category(1, "cat"),))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e9, -1e300])
def test_numbers_that_are_none(place: int, number: float) -> None:
    bbox = tuple(number if i == place else 5.0 for i in range(4))
    found, (finding,) = apply(box_rules.boxes_not_finite, dataset(bbox), "drop")
    assert found.annotations == ()
    assert str(number) in finding.detail
    assert apply(box_rules.boxes_not_finite, dataset((-9e8, 9e8, 9e8, -9e8)), "drop")[1] == []


sides = st.floats(-1e6, 1e6)


@settings(deadline=None)
@given(sides, sides, sides, sides)
def test_swapped_corners_are_the_same_corners(x: float, y: float, across: float, down: float) -> None:
    left, top, width, height = normalise((x, y, across, down))
    assert min(width, height) >= 0
    assert [left, left + width] == pytest.approx(sorted([x, x + across]), abs=1e-6)
    assert [top, top + height] == pytest.approx(sorted([y, y + down]), abs=1e-6)
    assert normalise((left, top, width, height)) == (left, top, width, height)


@pytest.mark.parametrize(
    ("bbox", "area", "expected"),
    [
        pytest.param((-5.0, 5.0, 20.0, 10.0), 200.0, 150.0, id="the box's own"),
        pytest.param((-5.0, 5.0, 20.0, 10.0), 120.0, 120.0, id="a mask's"),
    ],
)
def test_the_area_follows_the_box_where_it_was_the_boxs(bbox: Box, area: float, expected: float) -> None:
    found, (finding,) = apply(box_rules.boxes_partly_outside, dataset(bbox, area), "repair")
    assert found == dataset((0.0, 5.0, 15.0, 10.0), expected)
    assert finding.detail == "20 x 10 at (-5, 5) in 60x40"
    assert finding.bbox == bbox


@pytest.mark.parametrize("bbox", [(-5.0, 5.0, 20.0, 10.0), (50.0, 5.0, 20.0, 10.0), (5.0, 35.0, 20.0, 10.0)], ids=str)
def test_over_the_edge(bbox: Box) -> None:
    assert apply(box_rules.boxes_outside, dataset(bbox), "drop")[1] == []
    reported, (finding,) = apply(box_rules.boxes_partly_outside, dataset(bbox), "report")
    assert reported == dataset(bbox)
    assert finding.detail == f"{shown(bbox)} in 60x40"
    assert apply(box_rules.boxes_partly_outside, dataset(bbox), "drop")[0].annotations == ()


@pytest.mark.parametrize("bbox", [(-20.0, 5.0, 20.0, 10.0), (60.0, 5.0, 2.0, 9.0), (5.0, 99.0, 9.0, 9.0)], ids=str)
def test_outside(bbox: Box) -> None:
    found, (finding,) = apply(box_rules.boxes_outside, dataset(bbox), "drop")
    assert found.annotations == ()
    assert finding.detail == f"nothing of {shown(bbox)} is in the image"


@pytest.mark.parametrize(
    ("bbox", "found"),
    [
        pytest.param((0.0, 0.0, 60.0, 40.0), True, id="all"),
        pytest.param((-99.0, -99.0, 300.0, 300.0), True, id="more than all"),
        pytest.param((0.0, 0.0, 60.0, 39.2), True, id="just the share"),
        pytest.param((0.0, 0.0, 60.0, 39.0), False, id="less"),
        pytest.param((30.0, 20.0, 300.0, 300.0), False, id="large, and most of it outside"),
    ],
)
def test_covering(bbox: Box, found: bool) -> None:
    assert len(apply(box_rules.covering_boxes, dataset(bbox), "report")[1]) == found
    assert apply(box_rules.covering_boxes, dataset(bbox, iscrowd=1), "report")[1] == []


@pytest.mark.parametrize(
    ("bbox", "found"), [((5.0, 5.0, 1.9, 9.0), 1), ((5.0, 5.0, 9.0, 1.9), 1), ((5.0, 5.0, 2.0, 2.0), 0)], ids=str
)
def test_tiny(bbox: Box, found: int) -> None:
    assert len(apply(box_rules.tiny_boxes, dataset(bbox), "drop", min_box_side=2)[1]) == found
    assert apply(box_rules.tiny_boxes, dataset(bbox, iscrowd=1), "drop", min_box_side=2)[1] == []


def test_area_of_zero_or_too_large() -> None:
    given_ = dataset((5.0, 5.0, 10.0, 10.0))
    for area in (0.0, -1.0, 102.0, float("nan"), float("inf")):
        wrong = replace(given_, annotations=(replace(given_.annotations[0], area=area),))
        repaired, (finding,) = apply(box_rules.wrong_areas, wrong, "repair")
        assert repaired == given_
        assert finding.detail == f"the area is {area:g}, the box's 100"


def masked(segmentation: Any) -> CocoDataset:
    annotation = Annotation(1, 1, 1, (5.0, 5.0, 20.0, 20.0), 400.0, 0, segmentation)
    return CocoDataset((Image(1, "a.png", 60, 40),), (annotation,), (Category(1, "cat"),))


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param(None, id="none"),
        pytest.param([], id="an empty list"),
        pytest.param([SQUARE], id="polygon"),
        pytest.param([SQUARE, [1, 1, 2, 2, 1, 2]], id="two, one of whole numbers"),
        pytest.param([[-0.5, 0.0, 60.5, 0.0, 60.5, 40.9]], id="a part of a pixel outside"),
        pytest.param({"size": [40, 60], "counts": [0, 2400]}, id="run lengths"),
        pytest.param({"size": [40, 60], "counts": TEXT}, id="run lengths as text"),
    ],
)
def test_sound(segmentation: Any, tmp_path: Path) -> None:
    given_ = masked(segmentation)
    for rule in (malformed_segmentations, segmentations_outside):
        found, findings = apply(rule, given_, "repair")
        assert found is given_
        assert findings == []
    if segmentation:
        write_coco(given_, tmp_path / "a.json")
        coco = COCO(str(tmp_path / "a.json"))
        assert coco.annToMask(coco.anns[1]).shape == (40, 60)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        pytest.param("text", "neither", id="text"),
        pytest.param(3, "neither", id="number"),
        pytest.param([1.0, 2.0, 3.0], "not a list of numbers", id="numbers without a list around"),
        pytest.param([[1.0, 1.0, 2.0, 2.0]], "4 numbers", id="two points"),
        pytest.param([SQUARE, []], "0 numbers", id="an empty outline"),
        pytest.param([SQUARE[:-1]], "7 numbers", id="an odd number"),
        pytest.param([[1, 1, 2, 2, 3, "3"]], "not a list of numbers", id="a text in it"),
        pytest.param([[1, 1, 2, 2, 3, True]], "not a list of numbers", id="a truth value in it"),
        pytest.param([[1, 1, 2, 2, 3, float("nan")]], "no coordinates", id="NaN"),
        pytest.param([[1, 1, 2, 2, 3, 10**400]], "no coordinates", id="beyond any float"),
        pytest.param([[1, 1, 2, 2, 3, 1e9]], "no coordinates", id="too far to walk"),
        pytest.param({}, "not of the image's size", id="an empty object"),
        pytest.param({"size": [60, 40], "counts": [0, 2400]}, "not of the image's size", id="size swapped"),
        pytest.param({"size": [40, 60]}, "cannot be read", id="no counts"),
        pytest.param({"size": [40, 60], "counts": [-1, 2401]}, "cannot be read", id="negative"),
        pytest.param({"size": [40, 60], "counts": [0, 2400.0]}, "cannot be read", id="not whole"),
        pytest.param({"size": [40, 60], "counts": [0, 9999]}, "cover 9999 of 2400", id="too many"),
        pytest.param({"size": [40, 60], "counts": TEXT[:-4]}, "cover", id="text cut"),
        pytest.param({"size": [40, 60], "counts": "o"}, "cannot be read", id="text that ends in a number"),
        pytest.param({"size": [40, 60], "counts": "é"}, "cannot be read", id="text of other characters"),
        pytest.param({"size": [40, 60], "counts": "o" * 99}, "cannot be read", id="a number without end"),
    ],
)
def test_malformed(segmentation: Any, problem: str) -> None:
    given_ = masked(segmentation)
    found, (finding,) = apply(malformed_segmentations, given_, "repair")
    assert problem in finding.detail
    assert found == masked(None)
    assert apply(malformed_segmentations, given_, "drop")[0].annotations == ()


@pytest.mark.parametrize("far", [[-2.0, 5.0], [62.0, 5.0], [5.0, -2.0], [5.0, 42.0]], ids=str)
def test_outlines_outside(far: list[float]) -> None:
    given_ = masked([SQUARE, [*far, 5.0, 5.0, 9.0, 9.0]])
    assert apply(malformed_segmentations, given_, "repair") == (given_, [])
    assert apply(segmentations_outside, given_, "repair")[0] == masked(None)
    reported, (finding,) = apply(segmentations_outside, given_, "report")
    assert reported is given_
    assert finding.detail == "the outline leaves the image of 60x40"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=12, max_size=12), st.integers(1, 200))
def test_text_is_read_as_pycocotools_writes_it(pixels: list[bool], times: int) -> None:
    area = np.asfortranarray(np.array(pixels, np.uint8).repeat(times).reshape(-1, 4))
    lengths = _decoded(mask.encode(area)["counts"].decode())
    flat = area.ravel(order="F")
    borders = np.flatnonzero(np.diff(flat)) + 1
    expected = np.diff(np.concatenate([[0], borders, [flat.size]])).tolist()
    assert lengths == ([0, *expected] if flat[0] else expected)
    assert json.dumps(lengths)
