from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pipeline.data.coco import Annotation, Category, read_coco, write_coco
from pipeline.data.conversion import select
from pipeline.data.split import split
from pipeline.data.subsets import write_subset
from pipeline.data.validation import validate
from pipeline.errors import DataError, UsageError


def drawn(dataset):
    """What is to be seen: class name, image and box of every object."""
    names = {category.id: category.name for category in dataset.categories}
    return sorted((names[each.category_id], each.image_id, each.bbox) for each in dataset.annotations)


def test_all_classes_keep_their_order(tiny):
    found = select(tiny[0])
    assert found.categories == (Category(1, "cat"), Category(2, "dog"))
    assert drawn(found) == drawn(tiny[0])


def test_classes_in_the_order_asked_for(tiny):
    found = select(tiny[0], classes=["dog", "cat"])
    assert found.categories == (Category(1, "dog"), Category(2, "cat"))
    assert drawn(found) == drawn(tiny[0])


def test_one_class(tiny):
    found = select(tiny[0], classes=["dog"])
    assert [image.id for image in found.images] == [2]
    assert [(each.id, each.category_id, each.bbox) for each in found.annotations] == [(1, 1, (30, 10, 30, 30))]


@pytest.mark.parametrize(("keep_empty", "images"), [(False, [1, 2]), (True, [1, 2, 3])])
def test_empty_images(tiny, keep_empty, images):
    assert [image.id for image in select(tiny[0], keep_empty=keep_empty).images] == images


@pytest.mark.parametrize(("side", "boxes"), [(0, 3), (10, 3), (10.5, 1), (30, 1)])
def test_small_boxes_go_by_their_shorter_side(tiny, side, boxes):
    assert len(select(tiny[0], min_box_side=side).annotations) == boxes


def test_crowds_stay_however_small(tiny):
    crowd = replace(tiny[0].annotations[0], iscrowd=1)
    dataset = replace(tiny[0], annotations=(crowd, *tiny[0].annotations[1:]))
    assert [each.iscrowd for each in select(dataset, min_box_side=25).annotations] == [1, 0]


@pytest.mark.parametrize(
    ("classes", "images", "crowds"),
    [
        pytest.param([], [1, 2, 3], ["cat", "dog"], id="all classes"),
        pytest.param(["cat"], [1, 2], ["cat"], id="a region of a class that is none goes"),
        pytest.param(["dog"], [2, 3], ["dog"], id="an image may have nothing but a region"),
    ],
)
def test_ignored_regions_are_of_their_class(tiny, classes, images, crowds):
    dataset, _ = tiny
    mask = {"counts": [3, 5, 2392], "size": [40, 60]}
    regions = tuple(
        Annotation(id_, image, category, (1.0, 1.0, 2.0, 2.0), 4.0, 1, mask)
        for id_, image, category in ((8, 1, 7), (9, 3, 3))
    )
    found = select(replace(dataset, annotations=dataset.annotations + regions), classes=classes, min_box_side=10)
    assert [image.id for image in found.images] == images
    kept = [each for each in found.annotations if each.iscrowd]
    assert [found.classes[each.category_id - 1] for each in kept] == crowds
    assert all(each.segmentation == mask for each in kept)


def test_ignored_regions_come_through_every_step(tiny, tmp_path):
    """From the file of a tool that writes `ignore`, through checks, choice and split, to the data sets' files."""
    dataset, pictures = tiny
    write_coco(dataset, tmp_path / "raw.json")
    raw = json.loads((tmp_path / "raw.json").read_text())
    marks = {"category_id": 7, "bbox": [30, 20, 3, 3], "area": 9, "iscrowd": 0, "ignore": 1}
    raw["annotations"] += [{"id": 10 + image, "image_id": image} | marks for image in (1, 2, 3)]
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    checked = validate(read_coco(tmp_path / "raw.json"), pictures)
    assert len(checked.findings) == 0
    parts = split(select(checked.dataset, classes=["cat"], min_box_side=10), train_share=0.34, eval_share=0.33)
    for name, part in (("train", parts.train), ("eval", parts.eval), ("test", parts.test)):
        write_subset(part, pictures, tmp_path / name)
        (written,) = [each for each in read_coco(tmp_path / name / "annotations.json").annotations if each.iscrowd]
        assert written.bbox == (30, 20, 3, 3)
        assert "ignore" not in (tmp_path / name / "annotations.json").read_text()


def test_max_images_is_a_part_that_the_seed_decides(tiny):
    image = tiny[0].images[0]
    many = replace(tiny[0], images=tuple(replace(image, id=i, file_name=f"{i}.png") for i in range(100)))
    first = {image.id for image in select(many, max_images=10, keep_empty=True).images}
    again = replace(many, images=many.images[::-1])
    assert {image.id for image in select(again, max_images=10, keep_empty=True).images} == first
    assert first < {image.id for image in select(many, max_images=20, keep_empty=True).images}
    assert {image.id for image in select(many, max_images=10, keep_empty=True, seed=1).images} != first
    reserved = {f"{i}.png" for i in range(90, 98)}
    kept = select(many, max_images=10, keep_empty=True, reserved=reserved).images
    assert len(kept) == 10
    assert reserved <= {image.file_name for image in kept}


@pytest.mark.parametrize(
    ("options", "kind", "problem"),
    [
        pytest.param({"classes": ["cats"]}, UsageError, "did you mean cat", id="near miss"),
        pytest.param({"classes": ["zebra"]}, UsageError, "there are: cat, dog", id="unknown"),
        pytest.param({"classes": ["cat", "cat"]}, UsageError, "twice", id="twice"),
        pytest.param({"min_box_side": -1}, UsageError, "negative", id="negative"),
        pytest.param({"min_box_side": 99}, DataError, "No image is left of 3", id="nothing left"),
    ],
)
def test_refused(tiny, options, kind, problem):
    with pytest.raises(kind, match=problem):
        select(tiny[0], **options)
