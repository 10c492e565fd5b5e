"""COCO instances files as typed records: read with a schema check, written byte for byte the same every time.

Reference: https://cocodataset.org/#format-data. Boxes are `(x, y, width, height)` in pixels, `x` and `y` the top left
corner, the origin the top left of the image.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from pipeline.data.json_records import RecordError, parse_records
from pipeline.errors import DataError, MissingError

Box = tuple[float, float, float, float]

_NUMBERS = (int, float)
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
    """One object, or with `iscrowd` a region not judged; `area` is that of its mask, or of its box without one.

    `source` is the place that it comes from, such as `labels/a.txt:3`; empty if it is not known.
    """

    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float
    iscrowd: int = 0
    segmentation: Any = None
    source: str = ""


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
        """Images without an annotation; one with crowd regions only shows something, though nothing that is judged."""
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


def read_coco(path: Path) -> CocoDataset:
    """Read an instances file of this project, checking all types; errors say at which record.

    Files from outside, which tools write in many ways, are read by `formats.coco_records`.

    NaN and infinite numbers in boxes pass, for validation to report. File names that lead out of the images folder are
    refused.
    """
    try:
        content = Path(path).read_bytes()
        text = content.decode(json.detect_encoding(content), "surrogatepass")
        del content
        raw = parse_records(text, {"images": _image, "annotations": _annotation, "categories": _category})
        for key in ("images", "annotations", "categories"):
            if not isinstance(raw, dict) or not isinstance(raw.get(key), list):
                raise RecordError(f"the annotation file has no list '{key}'")
    except FileNotFoundError:
        raise MissingError("there is no annotation file", where=path, expected=_FORMAT) from None
    except RecordError as error:
        raise DataError(str(error), where=path, expected=_FORMAT) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"the annotation file is not JSON: {error}", where=path, expected=_FORMAT) from error
    return CocoDataset(
        tuple(raw["images"]),
        tuple(raw["annotations"]),
        tuple(raw["categories"]),
        raw["info"] if isinstance(raw.get("info"), dict) else {},
        tuple(each for each in raw.get("licenses") or () if isinstance(each, dict)),
    )


def write_coco(dataset: CocoDataset, path: Path) -> None:
    """Write an instances file, one record a line: images and annotations by id, categories in their own order.

    The same dataset gives the same bytes, whatever the order of its records.
    """
    records: dict[str, Iterable[Any]] = {
        "licenses": dataset.licenses,
        "categories": map(asdict, dataset.categories),
        "images": map(_image_record, sorted(dataset.images, key=lambda image: (image.id, image.file_name))),
        "annotations": map(_annotation_record, sorted(dataset.annotations, key=lambda each: (each.id, each.image_id))),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # record by record: all as text would take more memory than the dataset
        file.write(f'{{\n"info": {_dump(dict(dataset.info))}'.encode())
        for key, each in records.items():
            file.write(f',\n"{key}": ['.encode())
            end = "]"
            for number, record in enumerate(each):
                file.write(f"{',' if number else ''}\n{_dump(record)}".encode())
                end = "\n]"
            file.write(end.encode())
        file.write(b"\n}\n")


def _image_record(image: Image) -> dict[str, Any]:
    own = {"id": image.id, "file_name": image.file_name, "width": image.width, "height": image.height}
    return own | dict(sorted(image.extra.items()))


def _annotation_record(each: Annotation) -> dict[str, Any]:
    record = {name: getattr(each, name) for name in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")}
    record |= {} if each.segmentation is None else {"segmentation": each.segmentation}
    return record | ({"source": each.source} if each.source else {})


def only_crowds(count: int, where: object = "") -> DataError:
    """The error of a dataset with nothing to learn."""
    return DataError(
        f"all {count} boxes are regions that are not judged (iscrowd, ignore or difficult): there is nothing to learn",
        where=where,
        expected="boxes of objects",
        remedy="clear the flag on the boxes that are objects, or load annotations that have some",
    )


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


def _category(raw: Any) -> Category:
    supercategory = raw.get("supercategory")
    return Category(_integer(raw, "id"), _text(raw, "name"), supercategory if isinstance(supercategory, str) else "")


def _image(raw: Any) -> Image:
    name, sides = _text(raw, "file_name"), ("width", "height")
    if unsafe_name(name):
        raise ValueError(f"file_name leads out of the images folder: {name!r}")
    width, height = (_integer(raw, side) for side in sides)
    extra = {key: value for key, value in raw.items() if key not in {"id", "file_name", *sides}}
    return Image(_integer(raw, "id"), name, width, height, extra)


def _annotation(raw: Any) -> Annotation:
    ids = _integer(raw, "id"), _integer(raw, "image_id"), _integer(raw, "category_id")
    box = raw["bbox"]
    if box.__class__ is not list or len(box) != 4 or not all(each.__class__ in _NUMBERS for each in box):
        raise ValueError(f"bbox is not four numbers [x, y, width, height]: {_shown(box)}")
    x, y, width, height = map(float, box)
    area = raw.get("area")
    if area is None:
        area = width * height
    elif area.__class__ not in _NUMBERS:
        raise ValueError(f"area is not a number: {_shown(area)}")
    iscrowd = 1 if raw.get("iscrowd") else 0
    source = raw.get("source")
    place = source if isinstance(source, str) else ""
    return Annotation(*ids, (x, y, width, height), float(area), iscrowd, raw.get("segmentation"), place)


def _integer(raw: Any, key: str) -> int:
    value = raw[key]
    if value.__class__ is int or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise ValueError(f"{key} is not a whole number: {_shown(value)}")


def _text(raw: Any, key: str) -> str:
    value = raw[key]
    if isinstance(value, str) and value:
        return value
    raise ValueError(f"{key} is not a text: {_shown(value)}")


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
