"""Rules on records: each category, image and object once, each object in an image and of a category that exist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath

from pipeline.data.checks.findings import DID, Action
from pipeline.data.checks.rules import (
    Facts,
    Problem,
    Result,
    annotation_problem,
    drop_images,
    image_problem,
    image_problems,
    judge_annotations,
    map_annotations,
)
from pipeline.data.coco import Annotation, Category, CocoDataset, Image


def duplicate_category_ids(dataset: CocoDataset, _: Facts, __: Action) -> Result:
    """Find categories that share an id; the first keeps it, and objects with the id belong to the first."""
    first: dict[int, Category] = {}
    found = [
        _category_problem(category, "drop", f"the id is that of '{first[category.id].name}'")
        for category in dataset.categories
        if first.setdefault(category.id, category) is not category
    ]
    return (replace(dataset, categories=tuple(first.values())) if found else dataset), found


def duplicate_category_names(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find categories that share a name; a repair moves the objects to the first."""
    return _merge_categories(dataset, {each.id: each.name for each in dataset.categories}, action)


def similar_category_names(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find categories whose names differ only in case or spaces; a repair moves the objects to the first."""
    keys = {each.id: "".join(each.name.split()).casefold() for each in dataset.categories}
    return _merge_categories(dataset, keys, action)


def rare_categories(dataset: CocoDataset, _: Facts, action: Action, *, fewest: int) -> Result:
    """Find categories with objects in fewer than `fewest` images, too few for every subset of a split to have one."""
    images: defaultdict[int, set[int]] = defaultdict(set)
    for each in dataset.annotations:
        known = images[each.category_id]
        if not each.iscrowd:
            known.add(each.image_id)
    problems = {
        category.id: f"objects in {len(images[category.id])} images, fewer than {fewest}"
        for category in dataset.categories
        if category.id in images and len(images[category.id]) < fewest
    }
    return _judge_categories(dataset, problems, action)


def unused_categories(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find categories without an object."""
    used = {each.category_id for each in dataset.annotations}
    problems = {category.id: "no object is of it" for category in dataset.categories if category.id not in used}
    return _judge_categories(dataset, problems, action)


def duplicate_image_ids(dataset: CocoDataset, _: Facts, __: Action) -> Result:
    """Find images that share an id; the first keeps it, and objects with the id belong to the first."""
    first: dict[int, Image] = {}
    found = [
        image_problem(image, "drop", f"the id is that of {first[image.id].file_name}")
        for image in dataset.images
        if first.setdefault(image.id, image) is not image
    ]
    return (replace(dataset, images=tuple(first.values())) if found else dataset), found


def duplicate_image_files(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find images that share a file; a repair moves the objects to the first."""
    found: list[Problem] = []
    first: dict[str, Image] = {}
    moved: dict[int, int] = {}
    for image in dataset.images:
        name = image.file_name
        same = PurePosixPath(name).as_posix() if "//" in name or "./" in name else name  # a//b and ./a/b are a/b
        into = first.setdefault(same, image)
        if into is not image:
            moved[image.id] = into.id
            detail = f"the file of image {into.id} ({into.file_name})"
            detail += "; its boxes moved there" if action == "repair" else ""
            found.append(image_problem(image, action, detail))
    if not moved:
        return dataset, found
    if action == "drop":
        return dataset.subset(first.values()), found
    dataset = map_annotations(
        dataset, lambda each: replace(each, image_id=moved[each.image_id]) if each.image_id in moved else each
    )
    return replace(dataset, images=tuple(first.values())), found


def duplicate_annotation_ids(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find annotations that share an id; the first keeps it, and a repair gives the others new ones."""
    found: list[Problem] = []
    kept: list[Annotation] = []
    names = {image.id: image.file_name for image in dataset.images}
    fresh = _fresh_ids(dataset)
    seen: set[int] = set()
    for each in dataset.annotations:
        if each.id in seen:
            new = next(fresh)
            detail = "the id is another's" + (f": became {new}" if action == "repair" else "")
            found.append(annotation_problem(each, action, detail, names.get(each.image_id, "")))
            if action == "drop":
                continue
            each = replace(each, id=new)
        seen.add(each.id)
        kept.append(each)
    return (replace(dataset, annotations=tuple(kept)) if found else dataset), found


def annotation_ids_below_one(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find annotation ids that are not above 0: pycocotools counts an object of id 0 as never found."""
    fresh = _fresh_ids(dataset)
    return judge_annotations(
        dataset,
        action,
        lambda each: "the id is below 1" if each.id < 1 else "",
        lambda each: replace(each, id=next(fresh)),
    )


def unknown_images(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find objects of an image that does not exist."""
    known = {image.id for image in dataset.images}
    return judge_annotations(
        dataset, action, lambda each: "" if each.image_id in known else f"there is no image {each.image_id}"
    )


def unknown_categories(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find objects of a category that does not exist."""
    known = {category.id for category in dataset.categories}
    return judge_annotations(
        dataset, action, lambda each: "" if each.category_id in known else f"there is no category {each.category_id}"
    )


def images_without_box(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find images without an annotation, which are background in training."""
    problems = {image.id: "no annotation is in it" for image in dataset.background_images}
    if action == "drop":
        return drop_images(dataset, problems)
    return dataset, image_problems(dataset.images, "report", problems)


def _merge_categories(dataset: CocoDataset, keys: Mapping[int, str], action: Action) -> Result:
    """Apply the action to categories with the same key as an earlier one; `keys` by id, which are unique here."""
    found: list[Problem] = []
    first: dict[str, Category] = {}
    moved: dict[int, int] = {}
    for category in dataset.categories:
        into = first.setdefault(keys[category.id], category)
        if into is not category:
            moved[category.id] = into.id
            detail = f"as {_category_item(into)}" + ("; its objects moved there" if action == "repair" else "")
            found.append(_category_problem(category, action, detail))
    if not moved or action == "report":
        return dataset, found
    if action == "drop":
        return _without_categories(dataset, moved), found
    dataset = map_annotations(
        dataset, lambda each: replace(each, category_id=moved[each.category_id]) if each.category_id in moved else each
    )
    return replace(dataset, categories=tuple(first.values())), found


def _judge_categories(dataset: CocoDataset, problems: Mapping[int, str], action: Action) -> Result:
    wrong = [category for category in dataset.categories if category.id in problems]
    found = [_category_problem(category, action, problems[category.id]) for category in wrong]
    return (_without_categories(dataset, problems) if wrong and action == "drop" else dataset), found


def _without_categories(dataset: CocoDataset, ids: Mapping[int, object]) -> CocoDataset:
    kept = tuple(category for category in dataset.categories if category.id not in ids)
    annotations = tuple(each for each in dataset.annotations if each.category_id not in ids)
    return replace(dataset, annotations=annotations, categories=kept)


def _category_problem(category: Category, action: Action, detail: str) -> Problem:
    return Problem(_category_item(category), DID[action], detail)


def _category_item(category: Category) -> str:
    return f"category {category.id} ({category.name})"


def _fresh_ids(dataset: CocoDataset) -> count[int]:
    return count(max(0, max((each.id for each in dataset.annotations), default=0)) + 1)
