from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.data.coco import Category
from pipeline.data.conversion import select
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
