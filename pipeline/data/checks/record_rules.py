"""Rules on records: each category, image and object once, each object in an image and of a category that exist."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath

from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import Result, Subject, first_positions, item_of, merge, settle, settle_boxes

_RARE = 3  # images with objects of a category, at least: one each for train, eval and test


def duplicate_category_ids(subject: Subject, action: Action) -> Result:
    """Find categories that share an id; the first keeps it, and objects with the id belong to the first."""
    categories = subject.dataset.categories
    firsts = first_positions([each.id for each in categories])
    details = {row: f"the id is that of '{categories[first].name}'" for row, first in firsts.items()}
    return settle(subject.dataset, "categories", details, action)


def duplicate_category_names(subject: Subject, action: Action) -> Result:
    """Find categories that share a name; a repair moves the objects to the first."""
    firsts = first_positions(subject.dataset.classes)
    return merge(subject.dataset, "categories", firsts, action, lambda _, first: f"as {item_of(first)}")


def similar_category_names(subject: Subject, action: Action) -> Result:
    """Find categories whose names differ only in case or spaces; a repair moves the objects to the first."""
    firsts = first_positions(["".join(name.split()).casefold() for name in subject.dataset.classes])
    return merge(subject.dataset, "categories", firsts, action, lambda _, first: f"as {item_of(first)}")


def duplicate_image_ids(subject: Subject, action: Action) -> Result:
    """Find images that share an id; the first keeps it, and objects with the id belong to the first."""
    images = subject.dataset.images
    firsts = first_positions([each.id for each in images])
    details = {row: f"the id is that of {images[first].file_name}" for row, first in firsts.items()}
    return settle(subject.dataset, "images", details, action)


def duplicate_image_files(subject: Subject, action: Action) -> Result:
    """Find images that share a file; a repair moves the objects to the first."""
    paths = [PurePosixPath(each.file_name).as_posix() for each in subject.dataset.images]  # a//b and ./a/b are a/b
    firsts = first_positions(paths)
    return merge(
        subject.dataset, "images", firsts, action, lambda _, first: f"the file of image {first.id} ({first.file_name})"
    )


def duplicate_annotation_ids(subject: Subject, action: Action) -> Result:
    """Find annotations that share an id; the first keeps it, and a repair gives the others new ones."""
    firsts = first_positions([each.id for each in subject.dataset.annotations])
    return _with_new_ids(subject, action, [row in firsts for row in range(len(subject.objects))], "the id is another's")


def annotation_ids_below_one(subject: Subject, action: Action) -> Result:
    """Find annotation ids that are not above 0: pycocotools counts an object of id 0 as never found."""
    wrong = [each.id < 1 for each in subject.dataset.annotations]
    return _with_new_ids(subject, action, wrong, "the id is below 1")


def unknown_images(subject: Subject, action: Action) -> Result:
    """Find objects of an image that does not exist."""
    known = {image.id for image in subject.dataset.images}
    wrong = [each.image_id not in known for each in subject.dataset.annotations]
    return settle_boxes(subject, action, wrong, lambda each: f"there is no image {each.image_id}")


def unknown_categories(subject: Subject, action: Action) -> Result:
    """Find objects of a category that does not exist."""
    known = {category.id for category in subject.dataset.categories}
    wrong = [each.category_id not in known for each in subject.dataset.annotations]
    return settle_boxes(subject, action, wrong, lambda each: f"there is no category {each.category_id}")


def rare_categories(subject: Subject, action: Action) -> Result:
    """Find categories with objects in too few images for every subset of a split to have one."""
    images: defaultdict[int, set[int]] = defaultdict(set)
    for each in subject.dataset.annotations:
        images[each.category_id].update(() if each.iscrowd else (each.image_id,))
    details = {
        row: f"objects in {len(images[each.id])} images, fewer than {_RARE}"
        for row, each in enumerate(subject.dataset.categories)
        if each.id in images and len(images[each.id]) < _RARE
    }
    return settle(subject.dataset, "categories", details, action)


def unused_categories(subject: Subject, action: Action) -> Result:
    """Find categories without an object."""
    used = {each.category_id for each in subject.dataset.annotations}
    categories = enumerate(subject.dataset.categories)
    details = {row: "no object is of it" for row, each in categories if each.id not in used}
    return settle(subject.dataset, "categories", details, action)


def images_without_box(subject: Subject, action: Action) -> Result:
    """Find images without an annotation, which are background in training."""
    used = {each.image_id for each in subject.dataset.annotations}
    details = {row: "no annotation is in it" for row, each in enumerate(subject.dataset.images) if each.id not in used}
    return settle(subject.dataset, "images", details, action)


def _with_new_ids(subject: Subject, action: Action, wrong: list[bool], detail: str) -> Result:
    fresh = count(max(0, 0, *(each.id for each in subject.dataset.annotations)) + 1)
    return settle_boxes(subject, action, wrong, lambda _: detail, lambda each: replace(each, id=next(fresh)))
