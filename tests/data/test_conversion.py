from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import cases
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


@cases(
    "options, found",
    {
        "all as they are": ({}, ["cat a", "dog"]),
        "in another order": ({"classes": ["dog", "cat"]}, ["dog", "cat a"]),
        "one": ({"classes": ["dog"]}, ["dog"]),
        "one dropped": ({"drop": ["cat"]}, ["dog"]),
        "into one that is there": ({"rename": {"dog": "cat"}}, ["cat a"]),
        "into a later one, which keeps its supercategory": ({"rename": {"cat": "dog"}}, ["dog"]),
        "two into a new one": ({"rename": {"cat": "pet", "dog": "pet"}}, ["pet a"]),
        "two change names": ({"rename": {"cat": "dog", "dog": "cat"}}, ["dog a", "cat"]),
        "chains are not followed": ({"rename": {"cat": "dog", "dog": "x"}}, ["dog a", "x"]),
        "its own name": ({"rename": {"cat": "cat"}}, ["cat a", "dog"]),
        "all three": ({"rename": {"cat": "x"}, "drop": ["dog"], "classes": ["x"]}, ["x a"]),
    },
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
    assert found.background == 2
    assert list(map(str, exclusions)) == ["2 of 3 boxes excluded: their class is dropped or not chosen"]


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
    boxes = len(selected(many, max_images=10).annotations)
    assert list(map(str, select(many, max_images=10)[1])) == [
        "90 of 100 images excluded: more than max_images",
        f"{50 - boxes} of 50 boxes excluded: more than max_images",
    ]


def relabelled(tiny: Any, *labels: Any) -> Any:
    """The data set with boxes of these `(id, image, category)`, all in the same place, and more categories."""
    dataset, _ = tiny
    more = (*dataset.categories, Category(20, "puppy"), Category(21, "kitten"))
    boxes = tuple(Annotation(id_, image, category, (5, 5, 20, 20), 400) for id_, image, category in labels)
    return replace(dataset, annotations=boxes, categories=more)


def test_boxes_that_merging_makes_the_same_are_one_and_that_is_said(
    tiny: tuple[CocoDataset, Path],
) -> None:
    """But not those that were the same before, which are for validation to judge."""
    merge = {"rename": {"puppy": "young", "kitten": "young"}}
    before = relabelled(tiny, (5, 1, 20), (4, 1, 20))
    found, exclusions = select(before, **merge)
    assert (len(found.annotations), exclusions) == (2, ())
    dataset = relabelled(tiny, (5, 1, 20), (4, 1, 21), (6, 2, 21), (7, 1, 3))
    dataset = replace(dataset, annotations=tuple(replace(each, area=float(each.id)) for each in dataset.annotations))
    found, exclusions = select(dataset, **merge)
    assert sorted(each.area for each in found.annotations) == [4, 6, 7], "the lowest id stays"
    assert list(map(str, exclusions)) == ["1 of 4 boxes excluded: merging classes made them the same as another"]
    assert selected(replace(dataset, annotations=dataset.annotations[::-1]), **merge) == found
    assert len(selected(dataset).annotations) == 4


def test_crowd_regions_in_one_box_are_not_the_same(tiny: tuple[CocoDataset, Path]) -> None:
    dataset = relabelled(tiny, (4, 1, 20), (5, 1, 21), (6, 1, 21), (7, 1, 3))
    masks = [{"counts": [i, 9], "size": [40, 60]} for i in (1, 2, 1, 1)]
    crowds = tuple(
        replace(each, iscrowd=1, segmentation=mask) for each, mask in zip(dataset.annotations, masks, strict=True)
    )
    boxes = (*crowds, Annotation(8, 2, 3, (5, 5, 20, 20), 400))
    found = selected(replace(dataset, annotations=boxes), rename={"puppy": "young", "kitten": "young"})
    young = [each for each in found.annotations if found.classes[each.category_id - 1] == "young"]
    assert [each.segmentation for each in young] == masks[:2]


def test_the_place_in_the_source_is_not_kept(tiny: tuple[CocoDataset, Path]) -> None:
    placed = tuple(replace(each, source=f"a.csv:{each.id}") for each in tiny[0].annotations)
    assert selected(replace(tiny[0], annotations=placed)) == selected(tiny[0])


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


@cases(
    "options, kind, problem",
    {
        "unknown to rename": ({"rename": {"cta": "x"}}, UsageError, "no class 'cta'.*did you mean 'cat'"),
        "unknown to drop": ({"drop": ["Dog"]}, UsageError, "did you mean 'dog'"),
        "all dropped": ({"drop": ["dog", "cat"]}, DataError, "every class is dropped"),
        "both": ({"drop": ["dog"], "rename": {"dog": "cat"}}, UsageError, "both renamed and dropped"),
        "no new name": ({"rename": {"dog": ""}}, UsageError, "new name of a class is empty"),
        "unknown": (
            {"classes": ["cats", "zebra"]},
            UsageError,
            "no class 'cats', 'zebra'.*did you mean 'cat'.*there are: cat, dog",
        ),
        "old name": ({"classes": ["cat"], "rename": {"cat": "x"}}, UsageError, "no class 'cat'.*x, dog"),
        "wanted and dropped": ({"classes": ["dog"], "drop": ["dog"]}, UsageError, "no class 'dog'"),
        "twice": ({"classes": ["cat", "cat"]}, UsageError, "twice"),
    },
)
def test_refused(tiny: tuple[CocoDataset, Path], options: dict[Any, Any], kind: Any, problem: str) -> None:
    with pytest.raises(kind, match=f"(?s){problem}"):
        selected(tiny[0], **options)


@cases(
    "annotations, crowds, options, says",
    {
        "none": (0, 0, {}, "no object in 3 images(?s:.*)objects of cat, dog(?s:.*)load annotations with boxes$"),
        "none of a class": (1, 0, {"classes": ["dog"]}, "objects of dog(?s:.*)choose classes with objects: cat$"),
        "all of one dropped": (1, 0, {"drop": ["cat"]}, "objects of dog(?s:.*)choose classes with objects: cat$"),
        "in those drawn": (1, 0, {"max_images": 1, "reserved": ["3.png"]}, "take more than 1 images: see max_images$"),
        "nothing but crowds": (3, 3, {}, "all 3 boxes are regions that are not judged(?s:.*)clear the flag"),
        "only crowds of a class": (
            3,
            2,
            {"classes": ["cat"]},
            "objects of cat(?s:.*)choose classes with objects: dog$",
        ),
    },
)
def test_nothing_left(
    tiny: tuple[CocoDataset, Path], annotations: int, crowds: int, options: dict[Any, Any], says: str
) -> None:
    boxes = tuple(replace(each, iscrowd=int(each.id <= crowds)) for each in tiny[0].annotations[:annotations])
    with pytest.raises(DataError, match=says):
        select(replace(tiny[0], annotations=boxes), **options)
