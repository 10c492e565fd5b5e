from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_rule import apply

from pipeline.data.boxes import overlap
from pipeline.data.checks import box_rules
from pipeline.data.checks.box_rules import boxes_of_two_categories, duplicate_boxes, overlapping_boxes
from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image

CATEGORIES = (Category(1, "cat"), Category(2, "dog"))


def dataset(*annotations: Annotation) -> CocoDataset:
    images = tuple(Image(i, f"{i}.png", 100, 100) for i in (1, 2))
    numbered = tuple(replace(each, id=i) for i, each in enumerate(annotations, 1))
    return CocoDataset(images, numbered, CATEGORIES)


def box(bbox: Box, category: int = 1, image: int = 1, iscrowd: int = 0) -> Annotation:
    return Annotation(0, image, category, bbox, bbox[2] * bbox[3], iscrowd)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param((0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 10.0), 1.0, id="the same"),
        pytest.param((0.0, 0.0, 10.0, 10.0), (5.0, 0.0, 10.0, 10.0), 1 / 3, id="half"),
        pytest.param((0.0, 0.0, 10.0, 10.0), (2.0, 2.0, 5.0, 5.0), 0.25, id="within"),
        pytest.param((0.0, 0.0, 10.0, 10.0), (10.0, 0.0, 10.0, 10.0), 0.0, id="side by side"),
        pytest.param((0.0, 0.0, 10.0, 10.0), (0.0, 30.0, 10.0, 10.0), 0.0, id="apart"),
    ],
)
def test_overlap(one: Box, other: Box, expected: float) -> None:
    assert overlap(one, other) == overlap(other, one) == pytest.approx(expected)


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
    given_ = dataset(*annotations)
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
    given_ = replace(dataset(far, replace(far, bbox=(5.5, 5.0, 20.0, 20.0))), images=(Image(10**30, "a.png", 99, 99),))
    assert len(apply(overlapping_boxes, given_, "report")[1]) == 1


def test_what_is_said() -> None:
    given_ = dataset(box((5.0, 5.0, 20.0, 10.0)), box((5.0, 5.0, 20.0, 9.5)))
    _, (finding,) = apply(overlapping_boxes, given_, "report")
    assert finding.detail == "20 x 9.5 at (5, 5) overlaps annotation 1 by 95%"
    assert (finding.file_name, finding.bbox, finding.action) == ("1.png", (5.0, 5.0, 20.0, 9.5), "reported")


def test_the_same_box_is_another_rules_business() -> None:
    given_ = dataset(box((5.0, 5.0, 20.0, 10.0)), box((5.0, 5.0, 20.0, 10.0)))
    assert apply(overlapping_boxes, given_, "report")[1] == []
    dropped, (finding,) = apply(duplicate_boxes, given_, "drop")
    assert finding.detail == "20 x 10 at (5, 5) is there already, as annotation 1"
    assert [each.id for each in dropped.annotations] == [1]
    assert apply(duplicate_boxes, given_, "report")[0] is given_


def test_two_categories() -> None:
    given_ = dataset(*(box((5.0, 5.0, 20.0, 10.0), category) for category in (1, 2, 1, 2)))
    reported, findings = apply(boxes_of_two_categories, given_, "report")
    assert reported is given_
    assert [each.detail for each in findings] == ["20 x 10 at (5, 5) is 'dog' here and 'cat' as annotation 1"] * 2
    dropped, _ = apply(boxes_of_two_categories, given_, "drop")
    assert [each.id for each in dropped.annotations] == [1, 3]


def test_a_region_not_judged_is_neither() -> None:
    given_ = dataset(*(box((5.0, 5.0, 20.0, 10.0), category, iscrowd=crowd) for category, crowd in ((1, 0), (2, 1))))
    assert apply(boxes_of_two_categories, given_, "drop") == (given_, [])
    assert apply(duplicate_boxes, given_, "drop") == (given_, [])


def test_thousands_of_boxes_on_top_of_each_other_take_no_time() -> None:
    """A square of them would be two hundred million comparisons."""
    boxes = [box((5.0 + i % 100 / 1e3, 5.0 + i // 100 / 1e3, 20.0, 20.0)) for i in range(20_000)]
    assert len(apply(overlapping_boxes, dataset(*boxes), "report")[1]) == 19_999


@pytest.mark.parametrize(("left", "found"), [(9.9, 1), (10.1, 0)])
def test_a_box_may_start_as_far_to_the_right_as_the_overlap_allows(left: float, found: int) -> None:
    given_ = dataset(box((0.0, 0.0, 100.0, 10.0)), box((left, 0.0, 100.0 - left, 10.0)))
    assert len(apply(overlapping_boxes, given_, "report")[1]) == found
