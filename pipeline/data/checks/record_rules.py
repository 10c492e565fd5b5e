"""Rules on records: each category, image and object once, each object in an image and of a category that exist."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath

from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import OWNER, Kind, Result, Subject, first_positions, merge, settle, settle_boxes
from pipeline.data.coco import Category

_RARE = 3  # images with objects of a category, at least: one each for train, eval and test


def duplicate_ids(subject: Subject, action: Action, *, kind: Kind) -> Result:
    """Find categories or images that share an id; the first keeps it, and objects with the id belong to the first."""
    records = getattr(subject.dataset, kind)
    names = [each.name if isinstance(each, Category) else each.file_name for each in records]
    firsts = first_positions([each.id for each in records])
    details = {row: f"the id is that of '{names[first]}'" for row, first in firsts.items()}
    return settle(subject, kind, details, action)


def duplicate_names(subject: Subject, action: Action, *, key: Callable[[str], str] = str) -> Result:
    """Find categories that share a name; a repair moves the objects to the first."""
    firsts = first_positions([key(name) for name in subject.dataset.classes])
    return merge(subject, "categories", firsts, action, lambda _, first: f"as category {first.id} ({first.name})")


def without_case_and_spaces(name: str) -> str:
    """What similar names have in common."""
    return "".join(name.split()).casefold()


def duplicate_files(subject: Subject, action: Action) -> Result:
    """Find images that share a file; a repair moves the objects to the first."""
    paths = [PurePosixPath(each.file_name).as_posix() for each in subject.dataset.images]  # a//b and ./a/b are a/b
    detail = "the file of image {0.id} ({0.file_name})".format
    return merge(subject, "images", first_positions(paths), action, lambda _, first: detail(first))


def duplicate_annotation_ids(subject: Subject, action: Action) -> Result:
    """Find annotations that share an id; the first keeps it, and a repair gives the others new ones."""
    firsts = first_positions([each.id for each in subject.dataset.annotations])
    return _with_new_ids(subject, action, [row in firsts for row in range(len(subject.objects))], "the id is another's")


def annotation_ids_below_one(subject: Subject, action: Action) -> Result:
    """Find annotation ids that are not above 0: pycocotools counts an object of id 0 as never found."""
    return _with_new_ids(subject, action, [each.id < 1 for each in subject.dataset.annotations], "the id is below 1")


def unknown_owners(subject: Subject, action: Action, *, kind: Kind) -> Result:
    """Find objects of an image or a category that does not exist."""
    known = {each.id for each in getattr(subject.dataset, kind)}
    owners = [getattr(each, OWNER[kind]) for each in subject.dataset.annotations]
    name = OWNER[kind].removesuffix("_id")
    details = {row: f"there is no {name} {owner}" for row, owner in enumerate(owners) if owner not in known}
    return settle(subject, "annotations", details, action)


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
    return settle(subject, "categories", details, action)


def without_annotation(subject: Subject, action: Action, *, kind: Kind, detail: str) -> Result:
    """Find categories without an object, or images, which are background in training."""
    used = {getattr(each, OWNER[kind]) for each in subject.dataset.annotations}
    details = {row: detail for row, each in enumerate(getattr(subject.dataset, kind)) if each.id not in used}
    return settle(subject, kind, details, action)


def _with_new_ids(subject: Subject, action: Action, wrong: list[bool], detail: str) -> Result:
    fresh = count(max(0, 0, *(each.id for each in subject.dataset.annotations)) + 1)
    return settle_boxes(subject, action, wrong, lambda _: detail, lambda each: replace(each, id=next(fresh)))
