"""Selection of classes and images: categories are chosen, renamed, merged and dropped; images are limited."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from pipeline.data.coco import Annotation, Category, CocoDataset, only_crowds
from pipeline.data.tables import Exclusion, exclude
from pipeline.errors import DataError, UsageError, did_you_mean

log = logging.getLogger(__name__)

_SHOWN = 20  # names in an error
_TOO_MANY = "more than max_images"


def select(
    dataset: CocoDataset,
    *,
    classes: Sequence[str] = (),
    rename: Mapping[str, str] = {},
    drop: Collection[str] = (),
    max_images: int = 0,
    seed: int = 0,
    reserved: Collection[str] = (),
) -> tuple[CocoDataset, tuple[Exclusion, ...]]:
    """Select the part of a dataset that a detector shall learn, and tell the images and boxes excluded.

    Objects of a dropped category stay on the images without a box: a detector learns them as background. Images left
    without an annotation stay, and are background as a whole.

    Image ids stay the source's; annotations are renumbered from 1 by image, and lose their places in the source. Of
    boxes that merging made the same in image, class and place, the one with the lowest id stays.

    `classes`, as they are called after renaming and dropping, become 1..K; empty for all, in the source's order. All
    are renamed at once, so that two can swap names. Categories with the same new name are merged; a class has the
    supercategory of the category with its name, or else of its first one. `drop` has names of the source.

    Which of the images `max_images` keeps depends on the seed and the file names alone, image by image: it keeps no
    groups together. It takes those in `reserved` first, such as a fixed test set.

    Raises:
        UsageError: A class is unknown, named twice, or both renamed and dropped.
        DataError: No object is left.
    """
    check_classes(classes, rename, drop)
    members = _members(dataset.categories, classes, rename, drop)
    images = list(dataset.images)
    if 0 < max_images < len(images):
        images.sort(key=lambda image: (image.file_name not in reserved, draw_order(image.file_name, seed)))
        images = images[:max_images]
    images.sort(key=lambda image: image.id)
    ids = {image.id for image in images}
    here = [each for each in dataset.annotations if each.image_id in ids]
    kept, same = _recoded(here, members)
    if all(each.iscrowd for each in kept):
        raise _nothing_to_learn(dataset, members, rename, len(images))
    kept.sort(key=lambda each: (each.image_id, each.id))
    categories = []
    for number, (name, sources) in enumerate(members.items(), 1):
        like = next((category for category in sources if category.name == name), sources[0])
        categories.append(replace(like, id=number, name=name))
    selected = replace(
        dataset,
        images=tuple(images),
        annotations=tuple(replace(each, id=i, source="") for i, each in enumerate(kept, 1)),
        categories=tuple(categories),
    )
    log.info("selected %d images, %d of them without a box, and %d boxes", len(images), selected.background, len(kept))
    boxes = {
        _TOO_MANY: len(dataset.annotations) - len(here),
        "their class is dropped or not chosen": len(here) - len(kept) - same,
        "merging classes made them the same as another": same,
    }
    return selected, (
        *exclude({_TOO_MANY: len(dataset.images) - len(images)}, len(dataset.images)),
        *exclude(boxes, len(dataset.annotations), what="boxes"),
    )


def check_classes(classes: Sequence[str], rename: Mapping[str, str], drop: Collection[str]) -> None:
    """Check the classes that `select` is given before there is a dataset that has them.

    Raises:
        UsageError: A class is named twice, both renamed and dropped, or renamed to nothing.
    """
    if both := sorted(set(drop) & rename.keys()):
        raise UsageError(f"the class '{both[0]}' is both renamed and dropped", remedy="rename it or drop it")
    if "" in rename.values():
        raise UsageError("the new name of a class is empty", where="rename", remedy="name the class in drop_classes")
    if twice := [name for name in classes if classes.count(name) > 1]:
        raise UsageError(f"the class '{twice[0]}' is asked for twice", remedy="name it once")


def draw_order(name: str, seed: int) -> bytes:
    """A pseudo-random sort key for file names, independent of all other names."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _members(
    categories: Sequence[Category], classes: Sequence[str], rename: Mapping[str, str], drop: Collection[str]
) -> dict[str, list[Category]]:
    _check_known([*rename, *drop], [category.name for category in categories])
    members: dict[str, list[Category]] = {}
    for category in categories:
        if category.name not in drop:
            members.setdefault(rename.get(category.name, category.name), []).append(category)
    if categories and not members:
        raise DataError("every class is dropped", remedy="drop fewer: see drop_classes")
    if not classes:
        return members
    _check_known(classes, members)
    return {name: members[name] for name in classes}


def _nothing_to_learn(
    dataset: CocoDataset, members: Mapping[str, Sequence[Category]], rename: Mapping[str, str], images: int
) -> DataError:
    """The error of a selection without an object, with what would bring one."""
    shown = {each.category_id for each in dataset.annotations if not each.iscrowd}
    names = list(dict.fromkeys(rename.get(each.name, each.name) for each in dataset.categories if each.id in shown))
    if dataset.annotations and not names:
        return only_crowds(len(dataset.annotations))
    remedy = f"choose classes with objects: {_listed(names)}" if names else "load annotations with boxes"
    if any(category.id in shown for sources in members.values() for category in sources):
        remedy = f"take more than {images} images: see max_images"
    problem = f"there is no object in {images} images"
    return DataError(problem, expected=f"objects of {_listed(list(members))}", remedy=remedy)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _check_known(asked: Iterable[str], known: Collection[str]) -> None:
    if unknown := [name for name in dict.fromkeys(asked) if name not in known]:
        remedy = f"{did_you_mean(unknown[0], known, most=3)} there are: {_listed(list(known))}".strip()
        raise UsageError(f"the dataset has no class {', '.join(map(repr, unknown))}", remedy=remedy)


def _recoded(
    annotations: Iterable[Annotation], members: Mapping[str, Sequence[Category]]
) -> tuple[list[Annotation], int]:
    """The annotations with their new classes; of those that only differed in their old class one, and how many more."""
    number = {category.id: i for i, sources in enumerate(members.values(), 1) for category in sources}
    is_merged = any(len(sources) > 1 for sources in members.values())  # else no two become the same
    taken: dict[object, int] = {}
    kept, same = [], 0
    for each in sorted(annotations, key=lambda each: each.id):
        if each.category_id not in number:
            continue
        new = number[each.category_id]
        # Two crowd regions can share a box and differ in their masks; of objects a detector sees only the box.
        region = repr(each.segmentation) if each.iscrowd else None
        key = (each.image_id, new, each.bbox, each.iscrowd, region)
        if not is_merged or taken.setdefault(key, each.category_id) == each.category_id:
            kept.append(each if each.category_id == new else replace(each, category_id=new))
        else:
            same += 1
    return kept, same
