"""Selection of classes and images: categories are chosen, renamed, merged and dropped; images are limited."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from pipeline.data.class_selection import Recoding, recode
from pipeline.data.coco import Annotation, CocoDataset, Image
from pipeline.data.exclusions import Exclusion, exclude
from pipeline.errors import DataError, UsageError

log = logging.getLogger(__name__)

_NOTHING: Mapping[str, str | None] = MappingProxyType({})


@dataclass(frozen=True)
class Selection:
    """The selected part of a dataset, and the images excluded."""

    dataset: CocoDataset
    exclusions: tuple[Exclusion, ...] = ()


def select(
    dataset: CocoDataset,
    *,
    classes: Sequence[str] = (),
    rename: Mapping[str, str | None] = _NOTHING,
    drop: Collection[str] = (),
    max_images: int = 0,
    seed: int = 0,
    reserved: Collection[str] = (),
) -> Selection:
    """Select the part of a dataset that a detector shall learn.

    Objects of a dropped category stay on the images without a box: a detector learns them as background. Images left
    without an annotation stay, and are background as a whole.

    Args:
        dataset: The dataset.
        classes: Category names in the order wanted, which become 1..K, as they are called after renaming; empty for
            all, in the source's order.
        rename: New names by old ones, None to drop, as `read_class_map` gives them. All are renamed at once, so
            that two can swap names. Categories with the same new name are merged.
        drop: Names to drop, as they are called in the source.
        max_images: Keep at most so many images; 0 for all. The choice depends on the seed and the file names alone,
            image by image: it keeps no groups together.
        seed: Seed of that choice.
        reserved: File names that `max_images` takes first, such as those of a fixed test set.

    Returns:
        The selection. Image ids stay the source's; annotations are renumbered from 1 by image. Of boxes that merging
        made the same in image, class and place, the one with the lowest id stays.

    Raises:
        UsageError: A class is unknown, named twice, or both renamed and dropped; or a limit is negative.
        DataError: No object is left.
    """
    if max_images < 0:
        raise UsageError("max_images cannot be negative", expected="0 or more")
    recoding = recode(dataset.categories, classes, rename, drop)
    kept = _recoded([each for each in dataset.annotations if each.category_id in recoding.number], recoding)
    images = _at_most(list(dataset.images), max_images, seed, frozenset(reserved))
    ids = {image.id for image in images}
    ordered = sorted((each for each in kept if each.image_id in ids), key=lambda each: (each.image_id, each.id))
    if not ordered:
        names = ", ".join(category.name for category in recoding.categories)
        remedy = "name other classes" + (
            f", or take more than {max_images} images" if len(ids) < len(dataset.images) else ""
        )
        raise DataError(f"there is no object in {len(images)} images", expected=f"objects of {names}", remedy=remedy)
    selected = replace(
        dataset,
        images=tuple(sorted(images, key=lambda image: image.id)),
        annotations=tuple(replace(each, id=i) for i, each in enumerate(ordered, 1)),
        categories=recoding.categories,
    )
    log.info(
        "selected %d images, %d of them without a box, and %d boxes", len(images), selected.background, len(ordered)
    )
    counts = {"more than max_images": len(dataset.images) - len(images)}
    return Selection(selected, exclude(counts, len(dataset.images)))


def draw_order(name: str, seed: int) -> bytes:
    """A pseudo-random sort key for file names, independent of all other names."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _recoded(annotations: list[Annotation], recoding: Recoding) -> list[Annotation]:
    """The annotations with their new classes; of annotations that only differed in their old class one is kept."""
    taken: dict[object, int] = {}
    kept = []
    for each in sorted(annotations, key=lambda each: each.id):
        number = recoding.number[each.category_id]
        if number in recoding.merged:
            # Two crowd regions can share a box and differ in their masks; of objects a detector sees only the box.
            region = repr(each.segmentation) if each.iscrowd else None
            key = (each.image_id, number, each.bbox, each.iscrowd, region)
            if taken.setdefault(key, each.category_id) != each.category_id:
                continue
        kept.append(replace(each, category_id=number))
    if len(kept) < len(annotations):
        log.info("merging classes made %d boxes the same as another: dropped", len(annotations) - len(kept))
    return kept


def _at_most(images: list[Image], limit: int, seed: int, reserved: frozenset[str]) -> list[Image]:
    if not limit or len(images) <= limit:
        return images
    first = sorted(images, key=lambda image: (image.file_name not in reserved, draw_order(image.file_name, seed)))
    return first[:limit]
