"""From a source's categories to those wanted: choose by name, renumber, leave out what is too small or too much."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from difflib import get_close_matches

from pipeline.data.coco import Category, CocoDataset, Image
from pipeline.errors import DataError, UsageError

logger = logging.getLogger(__name__)


def select(
    dataset: CocoDataset,
    *,
    classes: Sequence[str] = (),
    min_box_side: float = 0.0,
    keep_empty: bool = False,
    max_images: int = 0,
    seed: int = 0,
    reserved: Collection[str] = (),
) -> CocoDataset:
    """Take the part of a data set that a detector is to know.

    Args:
        dataset: What to take it from.
        classes: Category names in the order wanted, which become 1..K; empty for all, in the source's order.
        min_box_side: Boxes whose shorter side is below so many pixels are left out; crowd regions stay.
        keep_empty: Keep images that have no annotation left.
        max_images: Keep at most so many images; 0 for all. The choice depends on the seed and the file names alone.
        seed: What `max_images` draws from.
        reserved: File names that `max_images` takes first, such as those of a fixed test set.

    Returns:
        The selection. Image ids stay the source's; annotations are renumbered from 1 by image.

    Raises:
        UsageError: A class is unknown, named twice, or a limit is negative.
        DataError: Nothing is left.
    """
    if min_box_side < 0 or max_images < 0:
        raise UsageError("min_box_side and max_images cannot be negative", expected="0 or more")
    chosen = _chosen(dataset, classes)
    number = {category.id: i for i, category in enumerate(chosen, 1)}
    kept = [
        replace(each, category_id=number[each.category_id])
        for each in dataset.annotations
        if each.category_id in number and (each.iscrowd or min(each.bbox[2:]) >= min_box_side)
    ]
    used = {each.image_id for each in kept}
    images = [image for image in dataset.images if keep_empty or image.id in used]
    images = _at_most(images, max_images, seed, frozenset(reserved))
    if not images:
        names = ", ".join(category.name for category in chosen)
        raise DataError(f"No image is left of {len(dataset.images)}", expected=f"objects of {names}", remedy=_REMEDY)
    ids = {image.id for image in images}
    ordered = sorted((each for each in kept if each.image_id in ids), key=lambda each: (each.image_id, each.id))
    logger.info("selected %d of %d images, %d boxes", len(images), len(dataset.images), len(ordered))
    return replace(
        dataset,
        images=tuple(sorted(images, key=lambda image: image.id)),
        annotations=tuple(replace(each, id=i) for i, each in enumerate(ordered, 1)),
        categories=tuple(replace(category, id=number[category.id]) for category in chosen),
    )


_REMEDY = "name other classes, lower min_box_side, or set keep_empty"


def draw_order(name: str, seed: int) -> bytes:
    """A key to sort file names by that looks random, and does not depend on which other names there are."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _chosen(dataset: CocoDataset, classes: Sequence[str]) -> list[Category]:
    if not classes:
        return list(dataset.categories)
    named = {category.name: category for category in dataset.categories}
    unknown = [name for name in classes if name not in named]
    if unknown:
        near = get_close_matches(unknown[0], named, 3, 0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(named)}"
        raise UsageError(f"The data set has no class '{unknown[0]}'", remedy=remedy)
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise UsageError(f"The class '{twice[0]}' is asked for twice", remedy="name it once")
    return [named[name] for name in classes]


def _at_most(images: list[Image], limit: int, seed: int, reserved: frozenset[str]) -> list[Image]:
    if not limit or len(images) <= limit:
        return images
    first = sorted(images, key=lambda image: (image.file_name not in reserved, draw_order(image.file_name, seed)))
    return first[:limit]
