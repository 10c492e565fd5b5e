"""From what a format says of its pictures to a COCO data set, for all formats that have no ids of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image
from pipeline.data.image_marks import UNANNOTATED, UNUSABLE
from pipeline.errors import DataError


@dataclass(frozen=True, slots=True)
class Mark:
    """One object: its class, its box in pixels, and whether it is a region that is not judged."""

    label: str
    bbox: Box
    iscrowd: int = 0
    segmentation: Any = None
    area: float | None = None  # of the outline; the box's where there is none


@dataclass(frozen=True, slots=True)
class Picture:
    """What one annotation file, or one part of it, says of an image; sizes in pixels, 0 where unknown."""

    name: str
    width: int
    height: int
    marks: Sequence[Mark] = ()
    subset: str = ""
    annotated: bool = True  # whether it says what is in the image, if only that nothing is
    lost: bool = False  # whether something is drawn on it that cannot be used as a box


def assemble(pictures: Iterable[Picture], classes: Sequence[str] = ()) -> CocoDataset:
    """Number images by name, objects by image and then as they came, and classes in the given order.

    What several pictures say of one image is put together. Classes that are met but not given follow by name.
    """
    by_name: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_name.setdefault(picture.name, []).append(picture)
    met = {mark.label for same in by_name.values() for picture in same for mark in picture.marks}
    names = [*dict.fromkeys(classes), *sorted(met.difference(classes))]
    categories = {name: i for i, name in enumerate(names, 1)}
    images: list[Image] = []
    annotations: list[Annotation] = []
    for i, name in enumerate(sorted(by_name), 1):
        same = by_name[name]
        images.append(_image(i, same))
        for mark in (mark for picture in same for mark in picture.marks):
            annotations.append(_annotation(len(annotations) + 1, i, categories[mark.label], mark))
    return CocoDataset(
        with_split(images), tuple(annotations), tuple(Category(i, name) for name, i in categories.items())
    )


def claim(claims: dict[str, str], image: str, file: str) -> None:
    """Note that an annotation file is of an image, of which no other one may be.

    Raises:
        DataError: Another one is.
    """
    other = claims.setdefault(image, file)
    if other != file:
        raise DataError(
            f"Two annotation files are of one image, {image}: {other} and {file}",
            expected="one for each image",
            remedy="remove the one that is out of date, or the one whose own image is absent",
        )


def with_split(images: Sequence[Image]) -> tuple[Image, ...]:
    """The images as they are, less a subset that all of them are of: one part alone is no split."""
    subsets = {image.extra.get("subset", "") for image in images}
    if len(subsets) != 1 or subsets == {""}:
        return tuple(images)
    without = ({key: value for key, value in image.extra.items() if key != "subset"} for image in images)
    return tuple(replace(image, extra=extra) for image, extra in zip(images, without, strict=True))


def _image(number: int, same: Sequence[Picture]) -> Image:
    sized = next((each for each in same if each.width > 0 and each.height > 0), same[0])
    subset = next((each.subset for each in same if each.subset), "")
    mark = {} if any(each.annotated for each in same) else UNANNOTATED
    mark = {**mark, **(UNUSABLE if any(each.lost for each in same) else {})}
    return Image(number, sized.name, sized.width, sized.height, {**({"subset": subset} if subset else {}), **mark})


def _annotation(number: int, image: int, category: int, mark: Mark) -> Annotation:
    area = mark.bbox[2] * mark.bbox[3] if mark.area is None else mark.area
    return Annotation(number, image, category, mark.bbox, area, mark.iscrowd, mark.segmentation)
