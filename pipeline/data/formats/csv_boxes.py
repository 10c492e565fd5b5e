"""CSV files with a box a row: Open Images, and the tables of pixels that many tools write.

- Open Images (https://storage.googleapis.com/openimages/web/download_v7.html): `ImageID, LabelName, XMin, XMax, YMin,
  YMax` as fractions of the image's size; `IsGroupOf` marks a region with many objects as a crowd. A file
  `class-descriptions*.csv` gives the names for machine ids such as `/m/01g317`.
- Pixels: `filename, width, height, class, xmin, ymin, xmax, ymax`, as TensorFlow's tools and Roboflow write, edges
  counted from 0; the sizes may be absent.
- RetinaNet's `path,x1,y1,x2,y2,class` without a header: only where the user names the format, as any table fits.

A row with an image and nothing else means that the image has no objects.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.data.coco import Box, CocoDataset
from pipeline.data.formats.annotation_files import (
    AnnotationFiles,
    Recognition,
    declared_size,
    is_number,
    label,
    number,
)
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

LOOKS_FOR = "a CSV file with columns for image, class, xmin, ymin, xmax, ymax"
_DESCRIPTIONS = "class-descriptions"
_SIDES = ("left", "top", "right", "bottom")
_NEEDED = ("image", "class", *_SIDES)
_TITLES = {
    "image": ("imageid", "filename", "file_name", "image", "image_name", "image_path", "img", "path", "file"),
    "class": ("labelname", "class", "label", "class_name", "category", "category_name"),
    "left": ("xmin", "x_min", "x1", "left", "bbox_xmin"),
    "top": ("ymin", "y_min", "y1", "top", "bbox_ymin"),
    "right": ("xmax", "x_max", "x2", "right", "bbox_xmax"),
    "bottom": ("ymax", "y_max", "y2", "bottom", "bbox_ymax"),
    "width": ("width", "image_width"),
    "height": ("height", "image_height"),
    "group": ("isgroupof",),
    "subset": ("subset", "split"),
}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Column numbers by meaning, the delimiter, and the kind of table."""

    columns: Mapping[str, int]
    delimiter: str
    open_images: bool = False
    header: bool = True

    @property
    def missing(self) -> list[str]:
        """The needed columns that are absent, with the titles they may have."""
        return [f"{name} ({', '.join(_TITLES[name][:4])})" for name in _NEEDED if name not in self.columns]

    def is_usable(self, named: bool) -> bool:
        """Whether rows can be read; without a header only where the user named the format."""
        return not self.missing and (self.header or named)


@dataclass(slots=True)
class _Rows:
    """What the rows say of one image."""

    size: tuple[int, int]
    subset: str
    boxes: list[ParsedBox] = field(default_factory=list)
    unusable: bool = False


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether one of the files has the columns needed."""
    why_not = ""
    for name in _tables(files):
        layout = _layout(files, name)
        if layout.is_usable(files.named):
            return Recognition(name)
        if not layout.header:
            why_not = why_not or f"{name} has no header: name the format, if it is path,x1,y1,x2,y2,class"
        else:
            why_not = why_not or f"{name} lacks the columns {'; '.join(layout.missing)}"
    return Recognition(why_not=why_not)


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the rows of all files that have the columns needed.

    Boxes of Open Images need the image's size, and cannot be used where the image is absent or broken.

    Raises:
        DataError: A value is missing or not a number; names the line.
    """
    names = _class_names(files)
    found: dict[str, _Rows] = {}
    for file in _tables(files):
        layout = _layout(files, file)
        if layout.is_usable(files.named):
            _read_table(files, file, layout, images, names, found)
    return to_coco(
        ParsedImage(name, *each.size, each.boxes, each.subset, unusable=each.unusable) for name, each in found.items()
    )


def _read_table(
    files: AnnotationFiles,
    file: str,
    layout: _Layout,
    images: ImageIndex,
    names: Mapping[str, str],
    found: dict[str, _Rows],
) -> None:
    beside, subset = PurePosixPath(file).parent.as_posix(), images.subset_of(file)
    known: dict[str, str] = {}
    for where, row in _rows(files, file, layout):
        if not row["image"]:
            raise DataError("a row names no image", where=where, remedy="add the name, or remove the row")
        if row["image"] not in known:
            known[row["image"]] = images.name_of(row["image"], where, beside)
        name = known[row["image"]]
        if name not in found:
            declared = None if layout.open_images else declared_size(row.get("width"), row.get("height"), where)
            found[name] = _Rows(declared or images.size(name), subset_named(row.get("subset", "")) or subset)
        if row["class"] or any(row[side] for side in _SIDES):
            box = _box(row, where, layout, found[name].size, names)
            found[name].boxes += [box] if box else []
            found[name].unusable |= box is None


def _box(
    row: Mapping[str, str], where: str, layout: _Layout, size: tuple[int, int], names: Mapping[str, str]
) -> ParsedBox | None:
    left, top, right, bottom = (number(row[side], side, where) for side in _SIDES)
    name = label(row["class"], where)
    box: Box = (left, top, right - left, bottom - top)
    if not layout.open_images:
        return ParsedBox(name, box)
    width, height = size
    box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    return ParsedBox(names.get(name, name), box, int(row.get("group") == "1")) if all(size) else None


def _layout(files: AnnotationFiles, name: str) -> _Layout:
    """The layout of a file by its first line; without a header the columns are `path,x1,y1,x2,y2,class`."""
    lines = files.head(name).splitlines() or [""]
    delimiter = max(",;\t", key=lines[0].count)
    words = next(csv.reader([lines[0]], delimiter=delimiter), [])
    titles = [word.strip().lower() for word in words]
    columns: dict[str, int] = {}
    for meaning, names in _TITLES.items():
        found = next((titles.index(each) for each in names if each in titles), None)
        if found is not None:
            columns[meaning] = found
    if not columns and len(words) == 6 and all(is_number(word) or not word for word in words[1:5]):
        return _Layout({"image": 0, "left": 1, "top": 2, "right": 3, "bottom": 4, "class": 5}, delimiter, header=False)
    return _Layout(columns, delimiter, {"imageid", "labelname"} <= set(titles))


def _rows(files: AnnotationFiles, name: str, layout: _Layout) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows by the columns' meaning, each with its place; empty lines are skipped."""
    reader = csv.reader(io.StringIO(files.text(name), newline=""), delimiter=layout.delimiter)
    try:
        if layout.header:
            next(reader, None)
        for row in reader:
            where = f"{name}:{reader.line_num}"
            if not any(row):
                continue
            if len(row) <= max(layout.columns[each] for each in _NEEDED):
                problem = f"a row has {len(row)} values"
                raise DataError(problem, where=where, expected="one for each column", remedy="correct the file")
            yield where, {each: row[i].strip() for each, i in layout.columns.items() if i < len(row)}
    except csv.Error as error:
        raise DataError(f"the file is not CSV: {error}", where=f"{name}:{reader.line_num}") from error


def class_descriptions(files: AnnotationFiles) -> tuple[str, ...]:
    """The tables that give names for the machine ids of Open Images' classes."""
    return tuple(name for name in files.ending(".csv") if PurePosixPath(name).name.startswith(_DESCRIPTIONS))


def _tables(files: AnnotationFiles) -> Iterator[str]:
    descriptions = set(class_descriptions(files))
    return (name for name in files.ending(".csv") if name not in descriptions)


def _class_names(files: AnnotationFiles) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in class_descriptions(files):
        for i, row in enumerate(csv.reader(files.text(name).splitlines()), 1):
            if len(row) != 2:
                raise DataError(f"a row has {len(row)} values", where=f"{name}:{i}", expected="id and name")
            names[row[0].strip()] = row[1].strip()
    return names
