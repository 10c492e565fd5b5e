from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.conversion import select
from pipeline.errors import DataError, UsageError


def selected(*arguments: Any, **options: Any) -> Any:
    return select(*arguments, **options)[0]


def drawn(dataset: Any) -> Any:
    """What is to be seen: class name, image and box of every object."""
    names = {category.id: category.name for category in dataset.categories}
    return sorted((names[each.category_id], each.image_id, each.bbox) for each in dataset.annotations)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        pytest.param({}, ["cat a", "dog"], id="all as they are"),
        pytest.param({"classes": ["dog", "cat"]}, ["dog", "cat a"], id="in another order"),
        pytest.param({"classes": ["dog"]}, ["dog"], id="one"),
        pytest.param({"drop": ["cat"]}, ["dog"], id="one dropped"),
        pytest.param({"rename": {"dog": "cat"}}, ["cat a"], id="into one that is there"),
        pytest.param({"rename": {"cat": "dog"}}, ["dog"], id="into a later one, which keeps its supercategory"),
        pytest.param({"rename": {"cat": "pet", "dog": "pet"}}, ["pet a"], id="two into a new one"),
        pytest.param({"rename": {"cat": "dog", "dog": "cat"}}, ["dog a", "cat"], id="two change names"),
        pytest.param({"rename": {"cat": "dog", "dog": "x"}}, ["dog a", "x"], id="chains are not followed"),
        pytest.param({"rename": {"cat": "cat"}}, ["cat a", "dog"], id="its own name"),
        pytest.param({"rename": {"cat": "x"}, "drop": ["dog"], "classes": ["x"]}, ["x a"], id="all three"),
    ],
)
def test_classes(tiny: tuple[CocoDataset, Path], options: dict[str, Any], found: list[str]) -> None:
    dataset = replace(tiny[0], categories=(Category(7, "cat", "a"), Category(3, "dog")))
    categories = selected(dataset, **options).categories
    assert [f"{category.name} {category.supercategory}".strip() for category in categories] == found
    assert [category.id for category in categories] == list(range(1, len(found) + 1))


def test_what_is_not_chosen_is_background(tiny: tuple[CocoDataset, Path]) -> None:
    """Images keep their ids and annotations are numbered; an image that shows only another class is no exclusion."""
    found, exclusions = select(tiny[0], classes=["dog"])
    assert [image.id for image in found.images] == [1, 2, 3]
    assert [(each.id, each.category_id, each.bbox) for each in found.annotations] == [(1, 1, (30, 10, 30, 30))]
    assert (found.background, exclusions) == (2, ())


def test_max_images_is_a_part_that_the_seed_decides(tiny: tuple[CocoDataset, Path]) -> None:
    image = tiny[0].images[0]
    boxes = tuple(Annotation(i + 1, i, 7, (1, 1, 9, 9), 81) for i in range(0, 100, 2))
    images = tuple(replace(image, id=i, file_name=f"{i}.png") for i in range(100))
    many = replace(tiny[0], images=images, annotations=boxes)
    first = {image.id for image in selected(many, max_images=10).images}
    again = replace(many, images=many.images[::-1])
    assert {image.id for image in selected(again, max_images=10).images} == first
    assert first < {image.id for image in selected(many, max_images=20).images}
    assert {image.id for image in selected(many, max_images=10, seed=1).images} != first
    reserved = {f"{i}.png" for i in range(90, 98)}
    kept = selected(many, max_images=10, reserved=reserved).images
    assert len(kept) == 10
    assert reserved <= {image.file_name for image in kept}
    (excluded,) = select(many, max_images=10)[1]
    assert str(excluded) == "90 of 100 images excluded: more than max_images"


def relabelled(tiny: Any, *labels: Any) -> Any:
    """The data set with boxes of these `(id, image, category)`, all in the same place, and more categories."""
    dataset, _ = tiny
    more = (*dataset.categories, Category(20, "puppy"), Category(21, "kitten"))
    boxes = tuple(Annotation(id_, image, category, (5, 5, 20, 20), 400) for id_, image, category in labels)
    return replace(dataset, annotations=boxes, categories=more)


@pytest.mark.parametrize(
    ("labels", "options", "kept"),
    [
        pytest.param([(5, 1, 20), (4, 1, 21)], {}, 1, id="the same by merging"),
        pytest.param([(5, 1, 20), (4, 2, 21)], {}, 2, id="of two images"),
        pytest.param([(5, 1, 20), (4, 1, 20)], {}, 2, id="the same before: for validation to judge"),
        pytest.param([(5, 1, 20), (4, 1, 20), (6, 1, 21)], {}, 2, id="one of them"),
        pytest.param([(5, 1, 20), (4, 1, 3)], {}, 2, id="of another class"),
        pytest.param([(5, 1, 20), (4, 1, 21)], {"rename": {}}, 2, id="not merged"),
    ],
)
def test_boxes_that_merging_makes_the_same(
    tiny: tuple[CocoDataset, Path],
    labels: list[Any],
    options: dict[Any, Any],
    kept: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    options = {"rename": {"puppy": "young", "kitten": "young"}} | options
    dataset = relabelled(tiny, *labels)
    dataset = replace(dataset, annotations=tuple(replace(each, area=float(each.id)) for each in dataset.annotations))
    found = selected(dataset, **options)
    assert len(found.annotations) == kept
    assert min(each.area for each in found.annotations) == 4, "the lowest id stays"
    assert ("the same as another" in caplog.text) == (kept < len(labels))
    assert selected(replace(dataset, annotations=dataset.annotations[::-1]), **options) == found


def test_crowd_regions_in_one_box_are_not_the_same(tiny: tuple[CocoDataset, Path]) -> None:
    dataset = relabelled(tiny, (4, 1, 20), (5, 1, 21), (6, 1, 21), (7, 1, 3))
    masks = [{"counts": [i, 9], "size": [40, 60]} for i in (1, 2, 1, 1)]
    crowds = tuple(
        replace(each, iscrowd=1, segmentation=mask) for each, mask in zip(dataset.annotations, masks, strict=True)
    )
    found = selected(replace(dataset, annotations=crowds), rename={"puppy": "young", "kitten": "young"})
    young = [each for each in found.annotations if found.classes[each.category_id - 1] == "young"]
    assert [each.segmentation for each in young] == masks[:2]


names_of_classes = st.sampled_from(["a", "b", "c", "d", "e"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=20),
    st.dictionaries(names_of_classes, st.sampled_from(["a", "b", "x", "y"])),
    st.sets(names_of_classes),
)
def test_what_a_box_becomes_depends_on_its_class_alone(boxes: Any, rename: Any, drop: Any) -> None:
    """Every box, under its new name, is there; nothing else is; and none occurs twice that was not before."""
    annotations = tuple(
        Annotation(i, image, label, (place, 0, 9, 9), 81) for i, (image, label, place) in enumerate(boxes, 1)
    )
    images = tuple(Image(i, f"{i}.jpg", 64, 64) for i in range(1, 5))
    dataset = CocoDataset(images, annotations, tuple(Category(i, "_abcde"[i]) for i in range(1, 6)))
    try:
        found = selected(dataset, rename=rename, drop=drop)
    except (UsageError, DataError):
        assert {"abcde"[label - 1] for _, label, _ in boxes} <= drop or drop & rename.keys()
        return
    target = {name: None if name in drop else rename.get(name, name) for name in "abcde"}
    expected = [(target[name], image, box) for name, image, box in drawn(dataset) if target[name]]
    assert set(drawn(found)) == set(expected)
    assert len(found.annotations) <= len(expected)
    assert [category.id for category in found.categories] == list(range(1, len(found.categories) + 1))
    assert set(found.classes) == {name for name in target.values() if name}


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        pytest.param(
            {"rename": {"cta": "x"}}, UsageError, "no class 'cta'.*did you mean 'cat'", id="unknown to rename"
        ),
        pytest.param({"drop": ["Dog"]}, UsageError, "did you mean 'dog'", id="unknown to drop"),
        pytest.param({"drop": ["dog", "cat"]}, DataError, "every class is dropped", id="all dropped"),
        pytest.param({"drop": ["dog"], "rename": {"dog": "cat"}}, UsageError, "both renamed and dropped", id="both"),
        pytest.param({"rename": {"dog": ""}}, UsageError, "new name of a class is empty", id="no new name"),
        pytest.param(
            {"classes": ["cats", "zebra"]},
            UsageError,
            "no class 'cats', 'zebra'.*did you mean 'cat'.*there are: cat, dog",
            id="unknown",
        ),
        pytest.param({"classes": ["cat"], "rename": {"cat": "x"}}, UsageError, "no class 'cat'.*x, dog", id="old name"),
        pytest.param({"classes": ["dog"], "drop": ["dog"]}, UsageError, "no class 'dog'", id="wanted and dropped"),
        pytest.param({"classes": ["cat", "cat"]}, UsageError, "twice", id="twice"),
    ],
)
def test_refused(tiny: tuple[CocoDataset, Path], options: dict[Any, Any], kind: Any, problem: str) -> None:
    with pytest.raises(kind, match=f"(?s){problem}"):
        selected(tiny[0], **options)


@pytest.mark.parametrize(
    ("annotations", "options", "says"),
    [
        pytest.param(0, {}, r"no object in 3 images(?s:.*)objects of cat, dog(?s:.*)name other classes$", id="none"),
        pytest.param(1, {"classes": ["dog"]}, r"objects of dog(?s:.*)name other classes$", id="none of a class"),
        pytest.param(1, {"max_images": 1, "reserved": ["3.png"]}, "take more than 1 images", id="in those drawn"),
    ],
)
def test_nothing_left(tiny: tuple[CocoDataset, Path], annotations: int, options: dict[Any, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        select(replace(tiny[0], annotations=tiny[0].annotations[:annotations]), **options)
