"""COCO instances files: one as it is, several put together."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, read_coco
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.subset_names import subset_named

logger = logging.getLogger(__name__)

LOOKS_FOR = "a JSON file with images, annotations that have a bbox, and categories"


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether one of the files is an instances file."""
    why_not = ""
    for name in files.ending(".json"):
        reason = _why_not(files, name)
        if not reason:
            return Recognition(name)
        why_not = why_not or reason
    return Recognition(why_not=why_not)


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the instances files: of several, those that have images here, and person keypoints only if alone.

    One file keeps its ids. Of several, images are numbered by name, objects as they come, categories put together by
    name; the folder or file name says the subset. An object of an image or a category that its file does not have
    gets an id that nothing has, for validation to find.

    Raises:
        DataError: A file is broken; says at which record.
    """
    names = [name for name in files.ending(".json") if not _why_not(files, name)]
    if len(names) > 1:
        plain = [name for name in names if not files.has_json_keys(name, "num_keypoints")]
        names = _left_out(names, plain, "they are keypoints, and there are instances beside them")
    sets = {name: _resolved(read_coco(files.folder / name, unsized=True), name, images) for name in names}
    if len(sets) > 1:
        here = [name for name, each in sets.items() if any(image.file_name in images.names for image in each.images)]
        sets = {name: sets[name] for name in _left_out(names, here, "none of their images is here")}
    if len(sets) == 1:
        (dataset,) = sets.values()
        return dataset
    return _merged(list(sets.values()))


def _why_not(files: AnnotationFiles, name: str) -> str:
    """Why a JSON file is no instances file; empty where it is one. The file is searched for keys, not parsed."""
    head = files.head(name)
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"[":
        return f"{name} is a list, as of detection results"
    if b'"shapes"' in head and not any(key in head for key in (b'"images"', b'"annotations"', b'"categories"')):
        return f"{name} has shapes, as of LabelMe"  # not searched on: the picture may be in it
    missing = [key for key in ("images", "annotations") if not files.has_json_keys(name, key)]
    if missing:
        return f"{name} has no '{missing[0]}'"
    if not files.has_json_keys(name, "bbox") and files.has_json_keys(name, "image_id"):
        return f"{name} has annotations, but no 'bbox' in them, as of captions"
    return "" if files.has_json_keys(name, "categories") else f"{name} has no 'categories'"


def _left_out(names: list[str], kept: list[str], why: str) -> list[str]:
    if not kept or len(kept) == len(names):
        return names
    logger.info("left out, as %s: %s", why, ", ".join(name for name in names if name not in kept))
    return kept


def _resolved(dataset: CocoDataset, name: str, images: ImageIndex) -> CocoDataset:
    beside, subset = PurePosixPath(name).parent.as_posix(), images.subset_of(name)
    found = []
    for i, image in enumerate(dataset.images):
        file_name = images.name_of(image.file_name, f"{name}: images[{i}]", beside)
        size = (image.width, image.height) if image.width and image.height else images.size(file_name)
        extra = _with_subset(image, subset)
        found.append(replace(image, file_name=file_name, width=size[0], height=size[1], extra=extra))
    return replace(dataset, images=tuple(found))


def _with_subset(image: Image, subset: str) -> Mapping[str, Any]:
    """What else the source says of an image, its subset being its own, or that of the file."""
    own = image.extra.get("subset")
    subset = (subset_named(own) if isinstance(own, str) else "") or subset
    rest = {key: value for key, value in image.extra.items() if key != "subset"}
    return rest | {"subset": subset} if subset else rest


def _merged(sets: Sequence[CocoDataset]) -> CocoDataset:
    first: dict[str, Image] = {}
    categories: dict[str, Category] = {}
    for dataset in sets:
        for image in dataset.images:
            first.setdefault(image.file_name, image)
        for category in dataset.categories:
            categories.setdefault(category.name, replace(category, id=len(categories) + 1))
    images = [replace(first[name], id=i) for i, name in enumerate(sorted(first), 1)]
    numbers = {image.file_name: image.id for image in images}
    unknown_image, unknown_category = count(len(images) + 1), count(len(categories) + 1)
    annotations: list[Annotation] = []
    for dataset in sets:
        image_ids = {image.id: numbers[image.file_name] for image in reversed(dataset.images)}
        category_ids = {each.id: categories[each.name].id for each in reversed(dataset.categories)}
        for each in dataset.annotations:
            if each.image_id not in image_ids:
                image_ids[each.image_id] = next(unknown_image)
            if each.category_id not in category_ids:
                category_ids[each.category_id] = next(unknown_category)
            image_id, category_id = image_ids[each.image_id], category_ids[each.category_id]
            annotations.append(replace(each, id=len(annotations) + 1, image_id=image_id, category_id=category_id))
    categories_found = tuple(categories.values())
    return CocoDataset(tuple(images), tuple(annotations), categories_found, sets[0].info, _licenses(sets))


def _licenses(sets: Sequence[CocoDataset]) -> tuple[Mapping[str, Any], ...]:
    """Those of all, each once, in the order they come."""
    once = {json.dumps(each, sort_keys=True): each for dataset in sets for each in dataset.licenses}
    return tuple(once.values())
