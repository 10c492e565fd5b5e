"""COCO instances files as typed records: read with a schema check, written byte for byte the same every time.

Reference: https://cocodataset.org/#format-data. Boxes are `(x, y, width, height)` in pixels, `x` and `y` the top left
corner, the origin the top left of the image.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pipeline.errors import DataError, MissingError

log = logging.getLogger(__name__)

Box = tuple[float, float, float, float]

_FORMAT = "a COCO instances file: https://cocodataset.org/#format-data"


@dataclass(frozen=True, slots=True)
class Category:
    """An object class."""

    id: int
    name: str
    supercategory: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its file relative to the images folder, its declared size in pixels, and other fields of the source."""

    id: int
    file_name: str
    width: int
    height: int
    extra: Mapping[str, Any] = field(default_factory=dict)  # licence, origin and the like: kept, never interpreted


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object, or with `iscrowd` a region not judged; `area` is that of its mask, or of its box without one."""

    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float
    iscrowd: int = 0
    segmentation: Any = None


@dataclass(frozen=True, slots=True)
class CocoDataset:
    """The content of an instances file. Ids need not be unique: validation makes them so."""

    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: tuple[Category, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    licenses: tuple[Mapping[str, Any], ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Category names, in order."""
        return tuple(category.name for category in self.categories)

    @property
    def background_images(self) -> tuple[Image, ...]:
        """Images without an annotation.

        An image with crowd regions only is not one of them: it shows something, though nothing that is judged.
        """
        annotated = {each.image_id for each in self.annotations}
        return tuple(image for image in self.images if image.id not in annotated)

    @property
    def background(self) -> int:
        """How many images are background."""
        return len(self.background_images)

    def by_image(self) -> dict[int, list[Annotation]]:
        """Annotations per image id; an image without any has no key, or an empty list when asked for."""
        groups: defaultdict[int, list[Annotation]] = defaultdict(list)
        for annotation in self.annotations:
            groups[annotation.image_id].append(annotation)
        return groups

    def subset(self, images: Iterable[Image]) -> CocoDataset:
        """The dataset with only these images and their annotations, in this dataset's order."""
        ids = {image.id for image in images}
        kept = tuple(image for image in self.images if image.id in ids)
        return replace(self, images=kept, annotations=tuple(each for each in self.annotations if each.image_id in ids))


def read_coco(path: Path, *, unsized: bool = False) -> CocoDataset:
    """Read an instances file, checking all types.

    NaN and infinite numbers in boxes pass, for validation to report. File names that lead out of the images folder are
    refused. Objects marked `ignore` become crowd regions, which both pycocotools and mmdet ignore: pycocotools does
    not know `ignore`, and mmdet would learn such a place as background.

    Args:
        path: The file.
        unsized: Whether images may lack width and height, which are then 0, for the caller to measure.

    Raises:
        MissingError: There is no such file.
        DataError: The file is no JSON, or no COCO instances file; says at which record.
    """
    try:
        raw = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise MissingError("there is no annotation file", where=path, expected=_FORMAT) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"the annotation file is not JSON: {error}", where=path, expected=_FORMAT) from error
    try:
        images, annotations, categories = (_records(raw, key) for key in ("images", "annotations", "categories"))
        dataset = CocoDataset(
            tuple(_image(record, f"images[{i}]", unsized) for i, record in enumerate(images)),
            tuple(_annotation(record, i) for i, record in enumerate(annotations)),
            tuple(_category(record, f"categories[{i}]") for i, record in enumerate(categories)),
            raw["info"] if isinstance(raw.get("info"), dict) else {},
            tuple(each for each in raw.get("licenses") or () if isinstance(each, dict)),
        )
    except _SchemaError as error:
        raise DataError(str(error), where=path, expected=_FORMAT) from None
    ignored = sum(bool(each.get("ignore") and not each.get("iscrowd")) for each in raw["annotations"])
    if ignored:
        log.info("%d boxes marked 'ignore' became crowd regions, which evaluation does not judge", ignored)
    return dataset


def write_coco(dataset: CocoDataset, path: Path) -> None:
    """Write an instances file, one record a line: images and annotations by id, categories in their own order.

    The same dataset gives the same bytes, whatever the order of its records.
    """
    images = []
    for image in sorted(dataset.images, key=lambda image: (image.id, image.file_name)):
        own = {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
        images.append(own | dict(sorted(image.extra.items())))
    annotations = []
    for each in sorted(dataset.annotations, key=lambda annotation: (annotation.id, annotation.image_id)):
        record = {name: getattr(each, name) for name in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")}
        annotations.append(record if each.segmentation is None else record | {"segmentation": each.segmentation})
    sections = [
        f'"info": {_dump(dict(dataset.info))}',
        f'"licenses": {_dump_list(map(dict, dataset.licenses))}',
        f'"categories": {_dump_list(map(asdict, dataset.categories))}',
        f'"images": {_dump_list(images)}',
        f'"annotations": {_dump_list(annotations)}',
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("{\n" + ",\n".join(sections) + "\n}\n").encode())


def unsafe_name(name: str) -> bool:
    """Whether a file name from outside could lead out of the folder it is joined to, on any system."""
    parts = PurePosixPath(name).parts
    windows = PureWindowsPath(name)
    return not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or bool(windows.drive)


def _dump(value: Any) -> str:
    """JSON in UTF-8; escaped where a broken name has a lone surrogate."""
    text = json.dumps(value, ensure_ascii=False)
    is_whole = text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
    return text if is_whole else json.dumps(value)


def _dump_list(records: Iterable[Any]) -> str:
    lines = [_dump(record) for record in records]
    return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"


class _SchemaError(Exception):
    """The problem of the file, with the record."""


def _records(raw: Any, key: str) -> list[Any]:
    if not isinstance(raw, dict):
        raise _SchemaError(f"the annotation file holds {_kind(raw)} where an object was expected")
    if not isinstance(raw.get(key), list):
        raise _SchemaError(f"the annotation file has no list '{key}'")
    return list(raw[key])


def _category(raw: Any, where: str) -> Category:
    name, supercategory = _text(raw, "name", where), raw.get("supercategory")
    return Category(_integer(raw, "id", where), name, supercategory if isinstance(supercategory, str) else "")


def _image(raw: Any, where: str, unsized: bool) -> Image:
    name = _text(raw, "file_name", where)
    if unsafe_name(name):
        raise _SchemaError(f"{where}.file_name leads out of the images folder: {name!r}")
    sides = ("width", "height")
    width, height = (0 if unsized and raw.get(side) is None else _integer(raw, side, where) for side in sides)
    extra = {key: value for key, value in raw.items() if key not in {"id", "file_name", *sides}}
    return Image(_integer(raw, "id", where), name, width, height, extra)


def _annotation(raw: Any, index: int) -> Annotation:
    # Most records are valid: the place is only worded for an error, as files may have a million boxes.
    try:
        x, y, width, height = (float(value) for value in raw["bbox"] if value.__class__ in (int, float))
        area = raw.get("area")
        return Annotation(
            _integer(raw, "id", ""),
            _integer(raw, "image_id", ""),
            _integer(raw, "category_id", ""),
            (x, y, width, height),
            float(width * height if area is None else area),
            1 if raw.get("iscrowd") or raw.get("ignore") else 0,
            raw.get("segmentation"),
        )
    except (_SchemaError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        where = f"annotations[{index}]"
        for key in ("id", "image_id", "category_id"):
            _integer(raw, key, where)
        box = _value(raw, "bbox", where)
        is_box = isinstance(box, list) and len(box) == 4 and all(each.__class__ in (int, float) for each in box)
        problem = "area is not a number" if is_box else "bbox is not four numbers [x, y, width, height]"
        raise _SchemaError(f"{where}.{problem}") from None


def _integer(raw: Any, key: str, where: str) -> int:
    value = _value(raw, key, where)
    if value.__class__ is int or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise _SchemaError(f"{where}.{key} is {_kind(value)} where a whole number was expected")


def _text(raw: Any, key: str, where: str) -> str:
    value = _value(raw, key, where)
    if not isinstance(value, str) or not value:
        raise _SchemaError(f"{where}.{key} is {_kind(value)} where a text was expected")
    return value


def _value(raw: Any, key: str, where: str) -> Any:
    if not isinstance(raw, dict):
        raise _SchemaError(f"{where} is {_kind(raw)} where an object was expected")
    if key not in raw:
        raise _SchemaError(f"{where} has no '{key}'")
    return raw[key]


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return "an empty text" if value == "" else names.get(type(value), "a number")
