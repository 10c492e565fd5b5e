from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.checks import category_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image

CAT, DOG = Category(1, "cat"), Category(2, "dog")


def dataset(*names: str | Category, objects: tuple[int, ...] = ()) -> CocoDataset:
    """Categories, and one image with one object for each of these category ids."""
    listed = tuple(name if isinstance(name, Category) else Category(i, name) for i, name in enumerate(names, 1))
    images = tuple(Image(i, f"{i}.png", 60, 40) for i in range(1, len(objects) + 1))
    annotations = tuple(Annotation(i, i, kind, (5.0, 5.0, 9.0, 9.0), 81.0) for i, kind in enumerate(objects, 1))
    return CocoDataset(images, annotations, listed)


def test_of_two_with_one_id_the_first_stays() -> None:
    given = dataset(CAT, Category(1, "cow"), DOG, Category(1, "ox"), objects=(1, 2))
    found, findings = category_rules.duplicate_category_ids(given, {}, "drop")
    assert found == replace(given, categories=(CAT, DOG))
    assert [(each.item, each.detail) for each in findings] == [
        ("category 1 (cow)", "the id is that of 'cat'"),
        ("category 1 (ox)", "the id is that of 'cat'"),
    ]


@pytest.mark.parametrize(
    ("action", "kinds", "left", "detail"),
    [
        pytest.param("repair", [1, 2, 1], (CAT, DOG), "as category 1 (cat); its objects moved there", id="repair"),
        pytest.param("drop", [1, 2], (CAT, DOG), "as category 1 (cat)", id="drop"),
    ],
)
def test_two_of_one_name(action: str, kinds: list[int], left: tuple[Category, ...], detail: str) -> None:
    given = dataset("cat", "dog", "cat", objects=(1, 2, 3))
    found, (finding,) = category_rules.duplicate_category_names(given, {}, action)
    assert [each.category_id for each in found.annotations] == kinds
    assert found.categories == left
    assert (finding.item, finding.detail) == ("category 3 (cat)", detail)


@pytest.mark.parametrize("name", ["Cat", " cat", "c a t", "CAT\u00a0"])
def test_names_that_differ_in_case_or_spaces(name: str) -> None:
    given = dataset("cat", name, objects=(1, 2))
    found, (finding,) = category_rules.similar_category_names(given, {}, "report")
    assert found is given
    assert finding.detail == "as category 1 (cat)"
    repaired, _ = category_rules.similar_category_names(given, {}, "repair")
    assert [each.category_id for each in repaired.annotations] == [1, 1]


def test_other_names_are_others() -> None:
    assert category_rules.similar_category_names(dataset("cat", "cats", "ca-t"), {}, "drop")[1] == []


def test_rare_ones_are_those_in_few_images() -> None:
    given = dataset("cat", "dog", "cow", objects=(1, 1, 1, 2, 2))
    again = replace(given.annotations[3], id=9, bbox=(1.0, 1.0, 5.0, 5.0))  # two objects, one image
    given = replace(given, annotations=(*given.annotations, again))
    found, (finding,) = category_rules.rare_categories(given, {}, "report", fewest=3)
    assert found is given
    assert finding.detail == "objects in 2 images, fewer than 3"
    assert finding.item == "category 2 (dog)"  # that nothing is a cow is another rule's business
    dropped, _ = category_rules.rare_categories(given, {}, "drop", fewest=3)
    assert dropped.classes == ("cat", "cow")
    assert {each.category_id for each in dropped.annotations} == {1}
    assert dropped.images == given.images


def test_regions_not_judged_are_no_objects() -> None:
    given = dataset("cat", objects=(1, 1, 1))
    given = replace(given, annotations=tuple(replace(each, iscrowd=1) for each in given.annotations))
    _, (finding,) = category_rules.rare_categories(given, {}, "report", fewest=3)
    assert finding.detail == "objects in 0 images, fewer than 3"
    assert category_rules.unused_categories(given, {}, "report")[1] == []


def test_unused_ones() -> None:
    given = dataset("cat", "dog", objects=(1,))
    found, (finding,) = category_rules.unused_categories(given, {}, "drop")
    assert found.classes == ("cat",)
    assert (finding.item, finding.severity) == ("category 2 (dog)", "info")
