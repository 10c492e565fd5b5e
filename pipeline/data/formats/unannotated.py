"""Images that nobody annotated, told apart from background: images of which somebody said that nothing is in them.

An image that the annotations name is background where they give it no box: a COCO image without annotations, an empty
label file, a row without box. What nobody annotated is an image that they do not name, or one that a reader has marked,
because the source lists it and says nothing about what is in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.on_disk import fields_of
from pipeline.data.sources.raw import Raw
from pipeline.errors import UsageError

FIELD = "unannotated"  # the mark: a field of an image that is true
MARK: Mapping[str, Any] = {FIELD: True}
TREATMENTS = ("exclude", "background")


def check_treatment(word: str) -> None:
    """See that a word says what to do about images that nobody annotated.

    Raises:
        UsageError: It does not.
    """
    if word not in TREATMENTS:
        raise UsageError(f"unannotated cannot be '{word}'", expected=" or ".join(TREATMENTS))


def settle_unannotated(
    dataset: CocoDataset, files: Collection[str], index: ImageIndex, raw: Raw, *, unannotated: str
) -> tuple[CocoDataset, int]:
    """Leave images out that nobody annotated, or take them as background.

    Args:
        dataset: All images that the annotations name, some marked; names as in the folder.
        files: The images in the folder.
        index: The same images by their names in the source.
        raw: What the source gave.
        unannotated: `exclude` or `background`.

    Returns:
        The data set without marks, and how many images nobody annotated.
    """
    with_boxes = {each.image_id for each in dataset.annotations}
    marked = {image.id for image in dataset.images if image.id not in with_boxes and _is_marked(image)}
    unnamed = sorted(set(files) - {image.file_name for image in dataset.images})
    images = [_without_mark(image) for image in dataset.images]
    if unannotated == "exclude":
        images = [image for image in images if image.id not in marked]
    else:
        has_split = any("subset" in image.extra for image in images)
        first = max((image.id for image in images), default=0) + 1
        in_source = {new: old for old, new in raw.renamed.items()}
        for i, name in enumerate(unnamed, first):
            own = in_source.get(name, name)
            subset = index.subset_of(PurePosixPath(own).parent.as_posix()) if has_split else ""
            extra = fields_of(name, raw) | ({"subset": subset} if subset else {})
            images.append(Image(i, name, *index.size(own), extra))
    return replace(dataset, images=tuple(images)), len(marked) + len(unnamed)


def _is_marked(image: Image) -> bool:
    return image.extra.get(FIELD) in (True, 1)


def _without_mark(image: Image) -> Image:
    if FIELD not in image.extra:
        return image
    return replace(image, extra={key: value for key, value in image.extra.items() if key != FIELD})
