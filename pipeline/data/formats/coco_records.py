"""The records of COCO files as tools write them: ids as texts or names, boxes missing beside outlines, and the like.

A single record of a box that cannot be read is a fault of its own, which `Faults` counts; anything else ends the file.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from pycocotools.mask import frPyObjects, toBbox

from pipeline.data.boxes import hull
from pipeline.data.coco import Annotation, Box, Category, Image
from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.data.formats.scalars import RecordError, declared_size, flag, number, shown, unexpected
from pipeline.errors import DataError

STUFF = "stuff, which is no object"
_UNNUMBERED = -(1 << 62)  # the id of a record without one
_FORMAT = "a COCO instances file: https://cocodataset.org/#format-data"


@dataclass(frozen=True)
class CocoFile:
    """The records of a file. Images have the names that are written, and sizes of 0 where none is."""

    name: str
    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    left_out: Mapping[int | None, Counter[str]]  # boxes that were left out, by image id and reason
    info: Mapping[str, Any]
    licenses: tuple[Mapping[str, Any], ...]


class _Ids:
    """The ids of records as whole numbers: those of the file, or positions where one of them is none."""

    def __init__(self, raw: Sequence[Any]) -> None:
        found = [_as_whole(each) for each in raw]
        written = {repr(each) for each, own in zip(raw, found, strict=True) if own is not None}
        alike = len(written) > len({*found} - {None})  # "1" and "01" are two records
        self._key: Callable[[Any], str] = repr if alike else _key
        self.are_kept = None not in found and not alike
        self.of_row = tuple(i if each is None or not self.are_kept else each for i, each in enumerate(found, 1))
        self._of = {self._key(each): own for each, own in zip(reversed(raw), reversed(self.of_row), strict=True)}

    def find(self, value: Any) -> int | None:
        """The number of an id; of one that no record has, itself if it is a number and ids are kept, else None."""
        return self._of.get(self._key(value), _as_whole(value) if self.are_kept else None)


class _Reader:
    """Reads the records of a file in turn: categories and images, then annotations."""

    def __init__(self, files: AnnotationFiles, name: str) -> None:
        self._files, self._name = files, name
        raw = files.json(name)
        records = [_records(raw, key, name) for key in ("images", "annotations", "categories")]
        self._raw_images, self._raw_annotations, self._raw_categories = records
        self._image_ids = _Ids([each.get("id") for each in self._raw_images])
        self._category_ids = _Ids([each.get("id") for each in self._raw_categories])
        self.info = raw["info"] if isinstance(raw.get("info"), dict) else {}
        self.licenses = tuple(each for each in raw.get("licenses") or () if isinstance(each, dict))
        if not (self._image_ids.are_kept and self._category_ids.are_kept):
            files.notes.append(f"{name}: ids that are no whole numbers are replaced by numbers")

    def read(self) -> CocoFile:
        categories, stuff = self._categories()
        images = tuple(self._images())
        own_images = {image.id for image in images}
        by_file = {image.file_name: image.id for image in reversed(images)}
        by_name = {each.name: each.id for each in reversed(categories)}
        found, left_out = list[Annotation](), dict[int | None, Counter[str]]()
        unnumbered, ignored = 0, 0
        for i, each in enumerate(self._raw_annotations):
            where, counter = f"{self._name}: annotations[{i}]", Counter[str]()
            image_id = self._owner(self._image_ids, each.get("image_id"), by_file)
            with self._files.faults.of(counter):
                if image_id is None:
                    raise unexpected(each.get("image_id"), "image_id", "the id of an image", where)
                kind = self._owner(self._category_ids, each.get("category_id"), by_name)
                if kind is None:
                    raise unexpected(each.get("category_id"), "category_id", "the id of a category", where)
                if kind in stuff:
                    counter[STUFF] += 1
                else:
                    found.append(_annotation(each, image_id, kind, where))
                    unnumbered += found[-1].id == _UNNUMBERED
                    ignored += bool(found[-1].iscrowd and not flag(each.get("iscrowd"), "iscrowd", where))
            if counter:
                place = left_out.setdefault(image_id, Counter()) if image_id in own_images else self._files.left_out
                place.update(counter)
        if unnumbered:
            self._files.notes.append(f"{self._name}: {unnumbered} annotations without an id of their own are numbered")
            found = _numbered(found)
        if ignored:
            text = f"{ignored} boxes marked 'ignore' became crowd regions, which evaluation does not judge"
            self._files.notes.append(f"{self._name}: {text}")
        return CocoFile(self._name, images, tuple(found), categories, left_out, self.info, self.licenses)

    def _categories(self) -> tuple[tuple[Category, ...], set[int]]:
        """The categories of things, and the ids of those of stuff."""
        found, stuff = list[Category](), set[int]()
        for i, (raw, number_) in enumerate(zip(self._raw_categories, self._category_ids.of_row, strict=True)):
            where = f"{self._name}: categories[{i}]"
            with self._files.faults.of():
                name, parent = raw.get("name"), raw.get("supercategory")
                if not isinstance(name, str) or not name:
                    raise unexpected(name, "the class", "a name", where)
                if "isthing" in raw and not flag(raw["isthing"], "isthing", where):
                    stuff.add(number_)
                else:
                    found.append(Category(number_, name, parent if isinstance(parent, str) else ""))
        return tuple(found), stuff

    def _images(self) -> Iterator[Image]:
        """The images, with names as they are written, and sizes of 0 where none is declared."""
        for i, (raw, number_) in enumerate(zip(self._raw_images, self._image_ids.of_row, strict=True)):
            where = f"{self._name}: images[{i}]"
            with self._files.faults.of():
                name, sides = raw.get("file_name"), ("width", "height")
                if not isinstance(name, str) or not name:
                    raise unexpected(name, "file_name", "a path", where)
                size = declared_size(raw.get("width"), raw.get("height"), where)
                extra = {key: value for key, value in raw.items() if key not in {"id", "file_name", *sides}}
                yield Image(number_, name, *size, extra)

    @staticmethod
    def _owner(ids: _Ids, value: Any, by_name: Mapping[str, int]) -> int | None:
        found = ids.find(value)
        return by_name.get(value) if found is None and isinstance(value, str) else found


def read_file(files: AnnotationFiles, name: str) -> CocoFile:
    """Read an instances file, checking all types; see the module.

    Objects marked `ignore` become crowd regions, which both pycocotools and mmdet ignore: pycocotools does not know
    `ignore`, and mmdet would learn such a place as background. Categories with `isthing` 0 are left out.
    """
    return _Reader(files, name).read()


def _records(raw: Any, key: str, name: str) -> list[dict[str, Any]]:
    if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
        raise DataError(f"the annotation file has no list '{key}'", where=name, expected=_FORMAT)
    for i, each in enumerate(raw[key]):
        if not isinstance(each, dict):
            raise DataError(f"{key}[{i}] is not an object", where=name, expected=_FORMAT)
    return list(raw[key])


def _annotation(raw: Mapping[str, Any], image_id: int, category_id: int, where: str) -> Annotation:
    segmentation, source = raw.get("segmentation"), raw.get("source")
    box = _box(raw.get("bbox"), segmentation, where)
    area = box[2] * box[3] if raw.get("area") is None else number(raw["area"], "area", where)
    crowd = flag(raw.get("iscrowd"), "iscrowd", where) or flag(raw.get("ignore"), "ignore", where)
    own, place = _as_whole(raw.get("id")), source if isinstance(source, str) and source else where
    return Annotation(_UNNUMBERED if own is None else own, image_id, category_id, box, area, crowd, segmentation, place)


def _box(raw: Any, segmentation: Any, where: str) -> Box:
    """The box of a record, or else that around its outlines or mask."""
    if isinstance(raw, list) and len(raw) == 4:
        x, y, width, height = (number(each, "a coordinate of the bbox", where) for each in raw)
        return x, y, width, height
    if (
        not raw
        and isinstance(segmentation, list)
        and segmentation
        and all(isinstance(each, list) for each in segmentation)
    ):
        values = [[number(value, "a coordinate", where) for value in outline] for outline in segmentation]
        return hull([point for each in values for point in zip(each[::2], each[1::2], strict=False)])
    if not raw and isinstance(segmentation, dict):
        return _box_of_mask(segmentation, where)
    raise RecordError(
        f"bbox is {shown(raw)}, not four numbers",
        where=where,
        expected="[x, y, width, height]",
        remedy="correct the file",
    )


def _box_of_mask(mask: dict[str, Any], where: str) -> Box:
    try:
        height, width = mask["size"]
        packed = frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask
        x, y, across, down = map(float, toBbox(packed))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError("there is no bbox, and the mask cannot be read", where=where, expected=_FORMAT) from error
    return x, y, across, down


def _numbered(found: Sequence[Annotation]) -> list[Annotation]:
    numbers = count(max((each.id for each in found if each.id != _UNNUMBERED), default=0) + 1)
    return [replace(each, id=next(numbers)) if each.id == _UNNUMBERED else each for each in found]


def _as_whole(value: Any) -> int | None:
    """A whole number, given as one or as text; None for anything else."""
    if value.__class__ is int:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value.strip(), re.ASCII) else None


def _key(value: Any) -> str:
    """An id in comparable form: 7, 7.0 and "7" are the same."""
    found = _as_whole(value)
    return str(found) if found is not None else f"{value.__class__.__name__} {value}"
