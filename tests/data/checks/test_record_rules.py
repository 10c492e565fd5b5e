from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.checks import record_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image

A, B = Image(1, "a.png", 60, 40), Image(2, "b.png", 60, 40)
BOX = Annotation(1, 1, 1, (5.0, 5.0, 9.0, 9.0), 81.0)


def dataset(*annotations: Annotation, images: tuple[Image, ...] = (A, B)) -> CocoDataset:
    return CocoDataset(images, annotations, (Category(1, "cat"),))


def test_of_two_images_with_one_id_the_first_stays() -> None:
    found, (finding,) = record_rules.duplicate_image_ids(dataset(BOX, images=(A, replace(B, id=1))), {}, "drop")
    assert found == dataset(BOX, images=(A,))
    assert (finding.item, finding.detail, finding.file_name) == ("image 1 (b.png)", "the id is that of a.png", "b.png")


@pytest.mark.parametrize("name", ["f/a.png", "f//a.png", "./f/a.png", "f/./a.png"])
def test_two_images_of_one_file(name: str) -> None:
    first, second = Image(1, "f/a.png", 60, 40), Image(2, name, 60, 40)
    given = dataset(BOX, replace(BOX, id=2, image_id=2), images=(first, second))
    repaired, (finding,) = record_rules.duplicate_image_files(given, {}, "repair")
    assert repaired.images == (first,)
    assert [each.image_id for each in repaired.annotations] == [1, 1]
    assert finding.detail == "the file of image 1 (f/a.png); its boxes moved there"
    dropped, _ = record_rules.duplicate_image_files(given, {}, "drop")
    assert dropped == dataset(BOX, images=(first,))


def test_files_in_other_folders_are_others() -> None:
    given = dataset(images=(Image(1, "e/a.png", 60, 40), Image(2, "f/a.png", 60, 40), Image(3, "a.png", 60, 40)))
    assert record_rules.duplicate_image_files(given, {}, "drop") == (given, [])


def test_new_ids_are_nobodys() -> None:
    given = dataset(*(replace(BOX, id=number) for number in (7, 7, 3, 7)))
    found, findings = record_rules.duplicate_annotation_ids(given, {}, "repair")
    assert [each.id for each in found.annotations] == [7, 8, 3, 9]
    assert [each.detail for each in findings] == ["the id is another's: became 8", "the id is another's: became 9"]
    dropped, _ = record_rules.duplicate_annotation_ids(given, {}, "drop")
    assert [each.id for each in dropped.annotations] == [7, 3]


@pytest.mark.parametrize(("ids", "new"), [([0, 5], [6, 5]), ([-3, 0], [1, 2]), ([-3, -2], [1, 2])], ids=str)
def test_ids_below_one(ids: list[int], new: list[int]) -> None:
    given = dataset(*(replace(BOX, id=number) for number in ids))
    found, findings = record_rules.annotation_ids_below_one(given, {}, "repair")
    assert [each.id for each in found.annotations] == new
    assert findings[0].item == f"annotation {ids[0]} in image 1"


def test_objects_of_nothing() -> None:
    astray, nameless = replace(BOX, id=2, image_id=8), replace(BOX, id=3, category_id=8)
    found, (finding,) = record_rules.unknown_images(dataset(BOX, astray), {}, "drop")
    assert found == dataset(BOX)
    assert (finding.detail, finding.file_name) == ("there is no image 8", "")
    found, (finding,) = record_rules.unknown_categories(dataset(BOX, nameless), {}, "drop")
    assert found == dataset(BOX)
    assert (finding.detail, finding.file_name) == ("there is no category 8", "a.png")


def test_images_without_a_box() -> None:
    reported, (finding,) = record_rules.images_without_box(dataset(BOX), {}, "report")
    assert reported == dataset(BOX)
    assert (finding.item, finding.action, finding.severity) == ("image 2 (b.png)", "reported", "info")
    dropped, (finding,) = record_rules.images_without_box(dataset(BOX), {}, "drop")
    assert dropped == dataset(BOX, images=(A,))
    assert finding.detail == "no annotation is in it"
