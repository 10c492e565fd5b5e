from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import cases
from hypothesis import given, settings
from hypothesis import strategies as st
from one_rule import apply
from pycocotools import mask
from pycocotools.coco import COCO

from pipeline.data.boxes import overlap
from pipeline.data.checks import box_rules
from pipeline.data.checks.box_rules import (
    _decoded,
    boxes_of_two_categories,
    duplicate_boxes,
    malformed_segmentations,
    overlapping_boxes,
    segmentations_outside,
)
from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image, write_coco

SQUARE = [5.0, 5.0, 25.0, 5.0, 25.0, 25.0, 5.0, 25.0]
TEXT = mask.encode(np.asfortranarray(np.eye(40, 60, dtype=np.uint8)))["counts"].decode()


def dataset(bbox: Box, area: float | None = None, iscrowd: int = 0, segmentation: Any = None) -> CocoDataset:
    annotation = Annotation(1, 1, 1, bbox, bbox[2] * bbox[3] if area is None else area, iscrowd, segmentation)
    return CocoDataset((Image(1, "a.png", 60, 40),), (annotation,), (Category(1, "cat"),))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 1e9, -1e300])
def test_numbers_that_are_none(place: int, number: float) -> None:
    bbox = tuple(number if i == place else 5.0 for i in range(4))
    found, (finding,) = apply(box_rules.boxes_not_finite, dataset(bbox), "drop")
    assert found.annotations == ()
    assert str(number) in finding.detail
    assert apply(box_rules.boxes_not_finite, dataset((-9e8, 9e8, 9e8, -9e8)), "drop")[1] == []


@pytest.mark.parametrize(
    ("rule", "bbox", "area", "detail", "repaired"),
    [
        pytest.param(box_rules.negative_sides, (25.0, 5.0, -20.0, 10.0), None,
                     "the corners are swapped: -20 x 10 at (25, 5)", ((5.0, 5.0, 20.0, 10.0), 200.0), id="swapped"),
        pytest.param(box_rules.negative_sides, (25.0, 15.0, -20.0, -10.0), None,
                     "the corners are swapped: -20 x -10 at (25, 15)", ((5.0, 5.0, 20.0, 10.0), 200.0), id="both"),
        pytest.param(box_rules.boxes_partly_outside, (-5.0, 5.0, 20.0, 10.0), 200.0,
                     "20 x 10 at (-5, 5) in 60x40", ((0.0, 5.0, 15.0, 10.0), 150.0), id="clipped, the area with it"),
        pytest.param(box_rules.boxes_partly_outside, (-5.0, 5.0, 20.0, 10.0), 120.0,
                     "20 x 10 at (-5, 5) in 60x40", ((0.0, 5.0, 15.0, 10.0), 120.0), id="clipped, a mask's area stays"),
        *(pytest.param(box_rules.wrong_areas, (5.0, 5.0, 10.0, 10.0), area,
                       f"the area is {area:g}, the box's 100", ((5.0, 5.0, 10.0, 10.0), 100.0), id=f"an area of {area}")
          for area in (0.0, -1.0, 102.0, float("nan"), float("inf"))),
    ],
)  # fmt: skip
def test_repaired(rule: Any, bbox: Box, area: float | None, detail: str, repaired: tuple[Box, float]) -> None:
    found, (finding,) = apply(rule, dataset(bbox, area), "repair")
    assert found == dataset(*repaired)
    assert (finding.detail, finding.bbox) == (detail, bbox)


@cases(
    "rule, bbox, found",
    {
        "over the edge": (box_rules.boxes_outside, (50.0, 5.0, 20.0, 10.0), False),
        "outside at the left": (box_rules.boxes_outside, (-20.0, 5.0, 20.0, 10.0), True),
        "outside at the right": (box_rules.boxes_outside, (60.0, 5.0, 2.0, 9.0), True),
        "outside below": (box_rules.boxes_outside, (5.0, 99.0, 9.0, 9.0), True),
        "over the right edge": (box_rules.boxes_partly_outside, (50.0, 5.0, 20.0, 10.0), True),
        "over the lower edge": (box_rules.boxes_partly_outside, (5.0, 35.0, 20.0, 10.0), True),
        "covers more than all": (box_rules.covering_boxes, (-99.0, -99.0, 300.0, 300.0), True),
        "covers just the share": (box_rules.covering_boxes, (0.0, 0.0, 60.0, 39.2), True),
        "covers less": (box_rules.covering_boxes, (0.0, 0.0, 60.0, 39.0), False),
        "large, most of it outside": (box_rules.covering_boxes, (30.0, 20.0, 300.0, 300.0), False),
        "narrow": (box_rules.tiny_boxes, (5.0, 5.0, 1.9, 9.0), True),
        "low": (box_rules.tiny_boxes, (5.0, 5.0, 9.0, 1.9), True),
        "just large enough": (box_rules.tiny_boxes, (5.0, 5.0, 2.0, 2.0), False),
    },
)
def test_found(rule: Any, bbox: Box, found: bool) -> None:
    left, findings = apply(rule, dataset(bbox), "drop", min_box_side=2)
    assert len(findings) == 1 - len(left.annotations) == found
    assert all(each.bbox == bbox for each in findings)
    if rule in (box_rules.covering_boxes, box_rules.tiny_boxes):
        assert apply(rule, dataset(bbox, iscrowd=1), "drop", min_box_side=2)[1] == []


masked = partial(dataset, (5.0, 5.0, 20.0, 20.0), 400.0, 0)


@cases(
    "segmentation",
    {
        "none": None,
        "an empty list": [],
        "polygon": [SQUARE],
        "two, one of whole numbers": [SQUARE, [1, 1, 2, 2, 1, 2]],
        "a part of a pixel outside": [[-0.5, 0.0, 60.5, 0.0, 60.5, 40.9]],
        "run lengths": {"size": [40, 60], "counts": [0, 2400]},
        "run lengths as text": {"size": [40, 60], "counts": TEXT},
    },
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


@cases(
    "segmentation, problem",
    {
        "text": ("text", "neither"),
        "number": (3, "neither"),
        "numbers without a list around": ([1.0, 2.0, 3.0], "not a list of numbers"),
        "two points": ([[1.0, 1.0, 2.0, 2.0]], "4 numbers"),
        "an empty outline": ([SQUARE, []], "0 numbers"),
        "an odd number": ([SQUARE[:-1]], "7 numbers"),
        "a text in it": ([[1, 1, 2, 2, 3, "3"]], "not a list of numbers"),
        "a truth value in it": ([[1, 1, 2, 2, 3, True]], "not a list of numbers"),
        "NaN": ([[1, 1, 2, 2, 3, float("nan")]], "no coordinates"),
        "beyond any float": ([[1, 1, 2, 2, 3, 10**400]], "no coordinates"),
        "too far to walk": ([[1, 1, 2, 2, 3, 1e9]], "no coordinates"),
        "an empty object": ({}, "not of the image's size"),
        "size swapped": ({"size": [60, 40], "counts": [0, 2400]}, "not of the image's size"),
        "no counts": ({"size": [40, 60]}, "cannot be read"),
        "negative": ({"size": [40, 60], "counts": [-1, 2401]}, "cannot be read"),
        "not whole": ({"size": [40, 60], "counts": [0, 2400.0]}, "cannot be read"),
        "too many": ({"size": [40, 60], "counts": [0, 9999]}, "cover 9999 of 2400"),
        "text cut": ({"size": [40, 60], "counts": TEXT[:-4]}, "cover"),
        "text that ends in a number": ({"size": [40, 60], "counts": "o"}, "cannot be read"),
        "text of other characters": ({"size": [40, 60], "counts": "é"}, "cannot be read"),
        "a number without end": ({"size": [40, 60], "counts": "o" * 99}, "cannot be read"),
    },
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


CATEGORIES = (Category(1, "cat"), Category(2, "dog"))


def boxes_of(*annotations: Annotation) -> CocoDataset:
    images = tuple(Image(i, f"{i}.png", 100, 100) for i in (1, 2))
    numbered = tuple(replace(each, id=i) for i, each in enumerate(annotations, 1))
    return CocoDataset(images, numbered, CATEGORIES)


def box(bbox: Box, category: int = 1, image: int = 1, iscrowd: int = 0) -> Annotation:
    return Annotation(0, image, category, bbox, bbox[2] * bbox[3], iscrowd)


SQUARE_BOX = (0.0, 0.0, 10.0, 10.0)


@pytest.mark.parametrize(
    ("other", "expected"),
    [(SQUARE_BOX, 1), ((5, 0, 10, 10), 1 / 3), ((2, 2, 5, 5), 0.25), ((10, 0, 10, 10), 0), ((0, 30, 10, 10), 0)],
)
def test_overlap(other: Box, expected: float) -> None:
    assert overlap(SQUARE_BOX, other) == overlap(other, SQUARE_BOX) == pytest.approx(expected)


# Boxes in clusters: a few places and sizes, each moved and stretched by about as much as still overlaps enough.
stretch = st.integers(-15, 15).map(lambda percent: 1 + percent / 100)
mostly_one = st.sampled_from([1, 1, 1, 2])
clustered = st.builds(
    lambda place, size, moves: (
        place[0] * moves[0],
        place[1] * moves[1],
        size[0] * moves[2],
        size[1] * moves[3],
    ),
    st.tuples(st.sampled_from([-40.0, 30.0]), st.sampled_from([0.0, 8.0])),
    st.tuples(st.sampled_from([0.5, 20.0]), st.just(25.0)),
    st.tuples(stretch, stretch, stretch, stretch),
)
crowds = st.sampled_from([0, 0, 0, 1])
annotations_ = st.lists(st.builds(box, clustered, mostly_one, mostly_one, crowds), min_size=5, max_size=25)


@settings(max_examples=120, deadline=None)
@given(annotations_, st.sampled_from([0.5, 0.7, 0.9, 0.97]), st.sampled_from([1, 2, 5, 64]))
def test_what_is_found_is_what_comparing_all_finds(annotations: list[Annotation], most: float, window: int) -> None:
    given_ = boxes_of(*annotations)
    kept: list[Annotation] = []
    later = []
    for each in given_.annotations:
        if each.iscrowd:  # a region not judged may lie anywhere
            continue
        rivals = [other for other in kept if (other.image_id, other.category_id) == (each.image_id, each.category_id)]
        near = [other for other in rivals if overlap(other.bbox, each.bbox) > most]
        if not near:
            kept.append(each)
        elif all(other.bbox != each.bbox for other in near):
            later.append(each)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_rules, "_OVERLAP", most)
        patch.setattr(box_rules, "_WINDOW", window)
        dropped, findings = apply(overlapping_boxes, given_, "drop")
        assert apply(overlapping_boxes, dropped, "drop") == (dropped, [])
    assert [each.item for each in findings] == [f"annotation {each.id} in image {each.image_id}" for each in later]


def test_ids_beyond_64_bits_are_ids() -> None:
    far = replace(box((5.0, 5.0, 20.0, 20.0)), image_id=10**30)
    given_ = replace(boxes_of(far, replace(far, bbox=(5.5, 5.0, 20.0, 20.0))), images=(Image(10**30, "a.png", 99, 99),))
    assert len(apply(overlapping_boxes, given_, "report")[1]) == 1


def test_the_same_box_is_another_rules_business() -> None:
    nearly = boxes_of(box((5.0, 5.0, 20.0, 10.0)), box((5.0, 5.0, 20.0, 9.5)))
    (said,) = apply(overlapping_boxes, nearly, "report")[1]
    assert said.detail == "20 x 9.5 at (5, 5) overlaps annotation 1 by 95%"
    given_ = boxes_of(box((5.0, 5.0, 20.0, 10.0)), box((5.0, 5.0, 20.0, 10.0)))
    assert apply(overlapping_boxes, given_, "report")[1] == []
    dropped, (finding,) = apply(duplicate_boxes, given_, "drop")
    assert finding.detail == "20 x 10 at (5, 5) is there already, as annotation 1"
    assert [each.id for each in dropped.annotations] == [1]
    assert apply(duplicate_boxes, given_, "report")[0] is given_


def test_two_categories_and_a_region_not_judged() -> None:
    given_ = boxes_of(*(box((5.0, 5.0, 20.0, 10.0), category) for category in (1, 2, 1, 2)))
    reported, findings = apply(boxes_of_two_categories, given_, "report")
    assert reported is given_
    assert [each.detail for each in findings] == ["20 x 10 at (5, 5) is 'dog' here and 'cat' as annotation 1"] * 2
    dropped, _ = apply(boxes_of_two_categories, given_, "drop")
    assert [each.id for each in dropped.annotations] == [1, 3]
    crowd = replace(given_, annotations=(given_.annotations[0], replace(given_.annotations[1], iscrowd=1)))
    assert apply(boxes_of_two_categories, crowd, "drop") == apply(duplicate_boxes, crowd, "drop") == (crowd, [])


def test_thousands_of_boxes_on_top_of_each_other_take_no_time() -> None:
    """A square of them would be two hundred million comparisons."""
    boxes = [box((5.0 + i % 100 / 1e3, 5.0 + i // 100 / 1e3, 20.0, 20.0)) for i in range(20_000)]
    assert len(apply(overlapping_boxes, boxes_of(*boxes), "report")[1]) == 19_999


@pytest.mark.parametrize(("left", "found"), [(9.9, 1), (10.1, 0)])
def test_a_box_may_start_as_far_to_the_right_as_the_overlap_allows(left: float, found: int) -> None:
    given_ = boxes_of(box((0.0, 0.0, 100.0, 10.0)), box((left, 0.0, 100.0 - left, 10.0)))
    assert len(apply(overlapping_boxes, given_, "report")[1]) == found
