"""Annotations matched with the images of their source: names on disk, absent images, and images without boxes.

An image that the annotations name is background if they give it no box: a COCO image without annotations, an empty
label file, a row without a box. An image that they do not name, or that a reader has marked because the source lists it
and says nothing about what is in it, is an image that nobody annotated.

An image with shapes that cannot be used as boxes, such as lines, is neither. Readers mark it too. Without other boxes
it is excluded, whatever is to be done about images that nobody annotated.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.checks.image_rules import exif_orientation
from pipeline.data.coco import CocoDataset, Image
from pipeline.data.formats.class_names import DESCRIBED
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.image_facts import ImageFacts
from pipeline.data.images import upright_size
from pipeline.data.parsed import UNANNOTATED_FIELD, UNUSABLE_FIELD
from pipeline.data.side_files import first_of
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.errors import DataError, UsageError

TREATMENTS = ("exclude", "background")
_ORIENTATION = "orientation"  # a field of converted images
_SHOWN = 3  # reasons in an error


@dataclass(frozen=True)
class SettledImages:
    """A data set in which images without a box are background.

    Attributes:
        dataset: The remaining images, without marks.
        unannotated: Names of images that nobody annotated: excluded, or taken as background.
        unusable: Names of images that were excluded because no shape on them can be used as a box.
    """

    dataset: CocoDataset
    unannotated: frozenset[str]
    unusable: frozenset[str]


def check_treatment(unannotated: str) -> None:
    """Check the treatment of images that nobody annotated.

    Raises:
        UsageError: There is no such treatment.
    """
    if unannotated not in TREATMENTS:
        raise UsageError(f"unannotated cannot be '{unannotated}'", expected=" or ".join(TREATMENTS))


def as_on_disk(dataset: CocoDataset, source: LoadedSource, folder: Path) -> CocoDataset:
    """The data set with file names as in the folder, and with the source's fields of each image.

    A converted image was turned upright; boxes drawn on it as stored turn with it.
    """
    dataset = replace(dataset, images=tuple(_image_on_disk(image, source) for image in dataset.images))
    turned = {name: own[_ORIENTATION] for name, own in source.fields.items() if _ORIENTATION in own}
    if not turned:
        return dataset
    facts = {image.file_name: ImageFacts() for image in dataset.images}
    facts |= {name: ImageFacts(*upright_size(folder / name), orientation) for name, orientation in turned.items()}
    return exif_orientation(dataset, facts, "repair")[0]


def check_described(annotation_format: str, where: str) -> None:
    """Check that files which only name classes go with annotations that need names.

    Raises:
        DataError: They do not.
    """
    if annotation_format not in DESCRIBED:
        raise DataError(
            f"the files only name classes, and the source's own annotations, {annotation_format}, do so too",
            where=where,
            expected=f"annotations, or names of classes for those in the formats {' and '.join(DESCRIBED)}",
            remedy="leave annotations_url empty to take the source's own annotations",
        )


def check_not_empty(dataset: CocoDataset, annotation_format: str, where: str) -> None:
    """Check that there is an image and a box.

    Raises:
        DataError: There is none.
    """
    if dataset.images and dataset.annotations:
        return
    count = len(dataset.images)
    found = f"the annotations hold no box in {count} images" if count else "there is no image"
    raise DataError(
        f"{found}, read as {annotation_format}",
        where=where,
        expected="images with boxes",
        remedy="check which files hold the boxes; if they lie apart from the images, name them in annotations_url",
    )


def absent_images(absent: list[str], known: int, where: str, source: LoadedSource) -> DataError:
    """The error for annotated images that are missing, with the reasons why the source's own were skipped."""
    reasons = {each.item: each.reason for each in source.skipped}
    lines = [f"{len(absent)} of the {known} images that the annotations name are absent: {first_of(absent)}"]
    for name in absent:
        item = next((item for item in reasons if item == name or item.endswith(f"/{name}")), "")
        if item and len(lines) <= _SHOWN:
            lines.append(f"{name} was skipped: {reasons[item]}")
    return DataError(
        "\n".join(lines),
        where=where,
        expected="every one of them among the images",
        remedy="check that images and annotations belong together, or set missing_images to drop",
    )


def settle_unannotated(
    dataset: CocoDataset, files: Collection[str], index: ImageIndex, source: LoadedSource, *, unannotated: str
) -> SettledImages:
    """Exclude images that nobody annotated, or take them as background; exclude those without a usable shape.

    Args:
        dataset: All images that the annotations name, some marked; names as in the folder.
        files: The images in the folder.
        index: The same images by their names in the source.
        source: What was loaded.
        unannotated: `exclude` or `background`.
    """
    annotated = {each.image_id for each in dataset.annotations}
    with_boxes = {image.file_name for image in dataset.images if image.id in annotated}
    unusable = frozenset(_marked(dataset, UNUSABLE_FIELD) - with_boxes)
    marked = frozenset(_marked(dataset, UNANNOTATED_FIELD) - with_boxes - unusable)
    unnamed = sorted(set(files) - {image.file_name for image in dataset.images})
    excluded = unusable | (marked if unannotated == "exclude" else frozenset())
    images = [_without_marks(image) for image in dataset.images if image.file_name not in excluded]
    if unannotated == "background":
        has_split = any("subset" in image.extra for image in images)
        first = max((image.id for image in images), default=0) + 1
        in_source = {new: old for old, new in source.renamed.items()}
        for number, name in enumerate(unnamed, first):
            own = in_source.get(name, name)
            subset = index.subset_of(PurePosixPath(own).parent.as_posix()) if has_split else ""
            extra = _fields(name, source) | ({"subset": subset} if subset else {})
            images.append(Image(number, name, *index.size(own), extra))
    return SettledImages(replace(dataset, images=tuple(images)), marked.union(unnamed), unusable)


def _image_on_disk(image: Image, source: LoadedSource) -> Image:
    name = source.renamed.get(image.file_name, image.file_name)
    return replace(image, file_name=name, extra={**image.extra, **_fields(name, source)})


def _fields(name: str, source: LoadedSource) -> dict[str, Any]:
    return {key: value for key, value in source.fields.get(name, {}).items() if key != _ORIENTATION}


def _marked(dataset: CocoDataset, mark: str) -> set[str]:
    return {image.file_name for image in dataset.images if image.extra.get(mark) in (True, 1)}


def _without_marks(image: Image) -> Image:
    marks = {UNANNOTATED_FIELD, UNUSABLE_FIELD}
    if marks.isdisjoint(image.extra):
        return image
    return replace(image, extra={key: value for key, value in image.extra.items() if key not in marks})
