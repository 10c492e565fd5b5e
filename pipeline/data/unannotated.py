"""Images that nobody annotated, told apart from background: images of which somebody said that nothing is in them.

An image that the annotations name is background where they give it no box: a COCO image without annotations, an empty
label file, a row without box. What nobody annotated is an image that they do not name, or one that a reader has marked,
because the source lists it and says nothing about what is in it.

A third kind is neither: an image on which something is drawn that cannot be used as a box, such as a line. Readers mark
it too. Where it has no other box it is excluded, whatever is to be done about images that nobody annotated.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.converted_images import fields_of
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import UNANNOTATED_FIELD, UNUSABLE_FIELD
from pipeline.data.sources.loaded_source import Raw
from pipeline.errors import UsageError

TREATMENTS = ("exclude", "background")


@dataclass(frozen=True)
class Settled:
    """A data set whose images without a box are background, and the names of those that were in question.

    Attributes:
        dataset: What is left, without marks.
        unannotated: Images that nobody annotated: excluded, or taken as background.
        unusable: Images that were excluded because nothing drawn on them can be used as a box.
    """

    dataset: CocoDataset
    unannotated: frozenset[str]
    unusable: frozenset[str]


def check_treatment(word: str) -> None:
    """See that a word says what to do about images that nobody annotated.

    Raises:
        UsageError: It does not.
    """
    if word not in TREATMENTS:
        raise UsageError(f"unannotated cannot be '{word}'", expected=" or ".join(TREATMENTS))


def settle_unannotated(
    dataset: CocoDataset, files: Collection[str], index: ImageIndex, raw: Raw, *, unannotated: str
) -> Settled:
    """Leave images out that nobody annotated, or take them as background; leave out those that lost all their shapes.

    Args:
        dataset: All images that the annotations name, some marked; names as in the folder.
        files: The images in the folder.
        index: The same images by their names in the source.
        raw: What the source gave.
        unannotated: `exclude` or `background`.
    """
    annotated = {each.image_id for each in dataset.annotations}
    with_boxes = {image.file_name for image in dataset.images if image.id in annotated}
    unusable = frozenset(_marked(dataset, UNUSABLE_FIELD) - with_boxes)
    marked = frozenset(_marked(dataset, UNANNOTATED_FIELD) - with_boxes - unusable)
    unnamed = sorted(set(files) - {image.file_name for image in dataset.images})
    left_out = unusable | (marked if unannotated == "exclude" else frozenset())
    images = [_without_marks(image) for image in dataset.images if image.file_name not in left_out]
    if unannotated == "background":
        has_split = any("subset" in image.extra for image in images)
        first = max((image.id for image in images), default=0) + 1
        in_source = {new: old for old, new in raw.renamed.items()}
        for i, name in enumerate(unnamed, first):
            own = in_source.get(name, name)
            subset = index.subset_of(PurePosixPath(own).parent.as_posix()) if has_split else ""
            extra = fields_of(name, raw) | ({"subset": subset} if subset else {})
            images.append(Image(i, name, *index.size(own), extra))
    return Settled(replace(dataset, images=tuple(images)), marked.union(unnamed), unusable)


def _marked(dataset: CocoDataset, field: str) -> set[str]:
    return {image.file_name for image in dataset.images if image.extra.get(field) in (True, 1)}


def _without_marks(image: Image) -> Image:
    marks = {UNANNOTATED_FIELD, UNUSABLE_FIELD}
    if marks.isdisjoint(image.extra):
        return image
    return replace(image, extra={key: value for key, value in image.extra.items() if key not in marks})
