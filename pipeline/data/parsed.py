"""Images and boxes as read from any annotation format or source, and the one way from these to a COCO dataset.

The split that comes with data is told by the usual names of folders and files.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.boxes import Point, hull, polygon_area, scale
from pipeline.data.coco import Annotation, Box, Category, CocoDataset, Image

# Fields of an image's COCO record, which loading reads and takes away again.
UNANNOTATED_FIELD = "unannotated"  # nobody annotated the image
LEFT_OUT_FIELD = "left_out"  # how many shapes on the image are not used as boxes, by reason

UNREADABLE = "their records cannot be read"  # reasons for which boxes are left out
NO_AREA = "shapes without an area, such as lines"
NOT_A_BOX = "regions without a label or a place"
NO_SIZE = "parts of an image whose size cannot be read"

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "eval", "dev"), "eval"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_PLACES = ("image", "img", "label", "annotation")  # in names of folders of datasets, also `JPEGImages` and `labelTxt`


@dataclass(frozen=True, slots=True)
class ParsedBox:
    """A labelled object."""

    label: str
    bbox: Box  # `(x, y, width, height)` in pixels of the upright image
    iscrowd: int = 0  # 1 for a region that evaluation does not judge
    segmentation: Any = None  # polygons or run lengths, as in COCO
    area: float | None = None  # of the outline in square pixels; None for that of the box
    source: str = ""  # the file and line that it comes from

    @classmethod
    def around(cls, label: str, outline: Sequence[Point], iscrowd: int = 0, source: str = "") -> ParsedBox:
        """The box around a polygon, which is kept."""
        return cls(label, hull(outline), iscrowd, [[*chain.from_iterable(outline)]], polygon_area(outline), source)

    def scaled(self, across: float, down: float) -> ParsedBox:
        """The box, its outline and its area in an image resized by these factors."""
        area = None if self.area is None else self.area * across * down
        outlines = [
            [value * (down if i % 2 else across) for i, value in enumerate(each)] for each in self.segmentation or ()
        ]
        box = scale(self.bbox, across, down)
        return ParsedBox(self.label, box, self.iscrowd, outlines or None, area, self.source)


@dataclass(frozen=True, slots=True)
class ParsedImage:
    """What one annotation file, or one record of a source, says of an image."""

    name: str  # its path
    width: int  # in pixels; 0 where unknown
    height: int
    boxes: Sequence[ParsedBox] = ()
    subset: str = ""  # `train`, `eval` or `test`; empty where not stated
    annotated: bool = True  # by somebody; without a box it is background then
    left_out: Mapping[str, int] = field(default_factory=dict)  # shapes that are not used as boxes, by reason
    extra: Mapping[str, Any] = field(default_factory=dict)  # other fields to keep


def to_coco(images: Iterable[ParsedImage], classes: Sequence[str] = ()) -> CocoDataset:
    """Build a COCO dataset from images in any order; several records of one image are merged.

    Images are numbered by name, objects by image and then in the order given, classes in the order given; those that
    only boxes name follow, sorted.
    """
    by_name: dict[str, list[ParsedImage]] = {}
    for each in images:
        by_name.setdefault(each.name, []).append(each)
    used = {box.label for records in by_name.values() for record in records for box in record.boxes}
    names = [*dict.fromkeys(classes), *sorted(used.difference(classes))]
    ids = {name: i for i, name in enumerate(names, 1)}
    found: list[Image] = []
    annotations: list[Annotation] = []
    for i, name in enumerate(sorted(by_name), 1):
        found.append(_image(i, by_name[name]))
        for box in (box for record in by_name[name] for box in record.boxes):
            area = box.bbox[2] * box.bbox[3] if box.area is None else box.area
            number = len(annotations) + 1
            label = ids[box.label]
            annotations.append(Annotation(number, i, label, box.bbox, area, box.iscrowd, box.segmentation, box.source))
    return CocoDataset(tuple(found), tuple(annotations), tuple(Category(i, name) for name, i in ids.items()))


def _image(number: int, records: Sequence[ParsedImage]) -> Image:
    sized = next((each for each in records if each.width > 0 and each.height > 0), records[0])
    subset = next((each.subset for each in records if each.subset), "")
    extra = {key: value for each in reversed(records) for key, value in each.extra.items()}
    extra |= {"subset": subset} if subset else {}
    extra |= {} if any(each.annotated for each in records) else {UNANNOTATED_FIELD: True}
    left_out = sum((Counter(each.left_out) for each in records), Counter[str]())
    extra |= {LEFT_OUT_FIELD: dict(sorted(left_out.items()))} if left_out else {}
    return Image(number, sized.name, sized.width, sized.height, extra)


def subset_named(word: str) -> str:
    """`train`, `eval` or `test` for a word such as `Validation`; empty for any other."""
    return _WORDS.get(word.strip().lower(), "")


def subset_of(path: str, classes: Collection[str] = ()) -> str:
    """The subset that a POSIX path names, such as `valid/_annotations.coco.json` or `instances_val2017.json`.

    The last folder or file name with such a word counts; with words for two subsets, as `train_val`, none is named.
    Folders named after classes, as found by `class_folders`, name no subset.
    """
    parts = PurePosixPath(path).parts
    for i in range(len(parts), 0, -1):
        found = _subsets(parts[i - 1])
        # Annotations may be in a folder of their own: `Annotations/train` belongs to the images' `train`.
        if found and not {"/".join(parts[:i]), "/".join(parts[1:i])}.intersection(classes):
            return found.pop() if len(found) == 1 else ""
    return ""


def class_folders(names: Iterable[str]) -> frozenset[str]:
    """The folders such as `train` that name classes, as they are beside others such as `bus` and `car`.

    Folders within or around a folder of images or labels name subsets in any case.
    """
    inside: dict[PurePosixPath, set[str]] = {}
    for folder in {folder for name in names for folder in PurePosixPath(name).parents if folder.name}:
        inside.setdefault(folder.parent, set()).add(folder.name)
    return frozenset(
        (parent / each).as_posix()
        for parent, folders in inside.items()
        if not any(map(_is_place, parent.parts)) and not all(_subsets(each) or _is_place(each) for each in folders)
        for each in folders
        if _subsets(each) and not any(map(_is_place, inside.get(parent / each, ())))
    )


def _subsets(part: str) -> set[str]:
    return {_WORDS[word] for word in re.findall("[a-z]+", part.lower()) if word in _WORDS}


def _is_place(folder: str) -> bool:
    return any(word in folder.lower() for word in _PLACES)
