from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from cases import cases
from one_rule import BOX, apply, dataset

from pipeline.data.checks import record_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image

SIMILAR = partial(record_rules.duplicate_names, key=record_rules.without_case_and_spaces)


@pytest.mark.parametrize("name", ["f/a.png", "f//a.png", "./f/a.png", "f/./a.png"])
def test_two_images_of_one_file(name: str) -> None:
    first, second, other = Image(1, "f/a.png", 60, 40), Image(2, name, 60, 40), Image(3, "a.png", 60, 40)
    given = dataset(BOX, replace(BOX, id=2, image_id=2), images=(first, second, other))
    repaired, (finding,) = apply(record_rules.duplicate_files, given, "repair")
    assert repaired.images == (first, other)
    assert [each.image_id for each in repaired.annotations] == [1, 1]
    assert finding.detail == "the file of image 1 (f/a.png); its boxes moved there"
    astray = replace(BOX, id=3, image_id=9)  # of no image: another rule's business, and not to be lost in silence
    dropped, _ = apply(record_rules.duplicate_files, replace(given, annotations=(*given.annotations, astray)), "drop")
    assert dropped == dataset(BOX, astray, images=(first, other))


def test_new_ids_are_nobodys() -> None:
    given = dataset(*(replace(BOX, id=number) for number in (7, 7, 3, 7)))
    found, findings = apply(record_rules.duplicate_annotation_ids, given, "repair")
    assert [each.id for each in found.annotations] == [7, 8, 3, 9]
    assert [each.detail for each in findings] == ["the id is another's"] * 2
    dropped, _ = apply(record_rules.duplicate_annotation_ids, given, "drop")
    assert [each.id for each in dropped.annotations] == [7, 3]


@pytest.mark.parametrize(("ids", "new"), [([0, 5], [6, 5]), ([-3, 0], [1, 2]), ([-3, -2], [1, 2])], ids=str)
def test_ids_below_one(ids: list[int], new: list[int]) -> None:
    given = dataset(*(replace(BOX, id=number) for number in ids))
    found, findings = apply(record_rules.annotation_ids_below_one, given, "repair")
    assert [each.id for each in found.annotations] == new
    assert findings[0].item == f"annotation {ids[0]} in image 1"


CAT, DOG = Category(1, "cat"), Category(2, "dog")


def categories_of(*names: str | Category, objects: tuple[int, ...] = ()) -> CocoDataset:
    """Categories, and one image with one object for each of these category ids."""
    listed = tuple(name if isinstance(name, Category) else Category(i, name) for i, name in enumerate(names, 1))
    images = tuple(Image(i, f"{i}.png", 60, 40) for i in range(1, len(objects) + 1))
    annotations = tuple(Annotation(i, i, kind, (5.0, 5.0, 9.0, 9.0), 81.0) for i, kind in enumerate(objects, 1))
    return CocoDataset(images, annotations, listed)


def test_of_two_with_one_id_the_first_stays() -> None:
    given = categories_of(CAT, Category(1, "cow"), DOG, Category(1, "ox"), objects=(1, 2))
    found, findings = apply(partial(record_rules.duplicate_ids, kind="categories"), given, "drop")
    assert found == replace(given, categories=(CAT, DOG))
    assert [(each.item, each.detail) for each in findings] == [
        ("category 1 (cow)", "the id is that of 'cat'"),
        ("category 1 (ox)", "the id is that of 'cat'"),
    ]


@cases(
    "action, kinds, left, detail",
    {
        "repair": ("repair", [1, 2, 1], (CAT, DOG), "as category 1 (cat); its boxes moved there"),
        "drop": ("drop", [1, 2], (CAT, DOG), "as category 1 (cat)"),
    },
)
def test_two_of_one_name(action: str, kinds: list[int], left: tuple[Category, ...], detail: str) -> None:
    given = categories_of("cat", "dog", "cat", objects=(1, 2, 3))
    found, (finding,) = apply(record_rules.duplicate_names, given, action)
    assert [each.category_id for each in found.annotations] == kinds
    assert found.categories == left
    assert (finding.item, finding.detail) == ("category 3 (cat)", detail)


@pytest.mark.parametrize("name", ["Cat", " cat", "c a t", "CAT\u00a0"])
def test_names_that_differ_in_case_or_spaces(name: str) -> None:
    given = categories_of("cat", name, "ca-t", "cats", objects=(1, 2))
    found, (finding,) = apply(SIMILAR, given, "report")
    assert found is given
    assert finding.detail == "as category 1 (cat)"
    repaired, _ = apply(SIMILAR, given, "repair")
    assert [each.category_id for each in repaired.annotations] == [1, 1]


def test_rare_ones_are_those_in_few_images() -> None:
    given = categories_of("cat", "dog", "cow", objects=(1, 1, 1, 2, 2))
    again = replace(given.annotations[3], id=9, bbox=(1.0, 1.0, 5.0, 5.0))  # two objects, one image
    given = replace(given, annotations=(*given.annotations, again))
    found, (finding,) = apply(record_rules.rare_categories, given, "report")
    assert found is given
    assert finding.detail == "objects in 2 images, fewer than 3"
    assert finding.item == "category 2 (dog)"  # that nothing is a cow is another rule's business
    dropped, _ = apply(record_rules.rare_categories, given, "drop")
    assert dropped.classes == ("cat", "cow")
    assert {each.category_id for each in dropped.annotations} == {1}
    assert dropped.images == given.images


def test_regions_not_judged_are_no_objects() -> None:
    given = categories_of("cat", objects=(1, 1, 1))
    given = replace(given, annotations=tuple(replace(each, iscrowd=1) for each in given.annotations))
    _, (finding,) = apply(record_rules.rare_categories, given, "report")
    assert finding.detail == "objects in 0 images, fewer than 3"
    unused = partial(record_rules.without_annotation, kind="categories", detail="no object is of it")
    assert apply(unused, given, "report")[1] == []
