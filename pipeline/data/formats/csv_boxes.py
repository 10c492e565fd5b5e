"""CSV files with a box a row: Open Images, and the tables of pixels that many tools write.

- Open Images (https://storage.googleapis.com/openimages/web/download_v7.html): `ImageID, LabelName, XMin, XMax, YMin,
  YMax` as fractions of the image's size; `IsGroupOf` marks a region with many objects as a crowd. A table of two
  columns gives the names for machine ids such as `/m/01g317`.
- Pixels: `filename, width, height, class, xmin, ymin, xmax, ymax`, as TensorFlow's tools and Roboflow write, edges
  counted from 0; the sizes may be absent.
- RetinaNet's `path,x1,y1,x2,y2,class` without a header: only where the user names the format, as any table fits.

A row without coordinates means that the image has no objects, whatever its class is called (`No finding`).
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.data.boxes import between_corners
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.assembly import Record, assemble
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference
from pipeline.data.formats.scalars import declared_size, flag, is_number, label, number
from pipeline.data.parsed import ParsedBox, ParsedImage, subset_named
from pipeline.errors import DataError

LOOKS_FOR = "a CSV file with columns for image, class, xmin, ymin, xmax, ymax"
_SIDES = ("left", "top", "right", "bottom")
_NEEDED = ("image", "class", *_SIDES)
_EMPTY = {"", "nan", "none", "null", "na"}  # cells without a value, as pandas and databases write them
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
class _Table:
    """A file, its column numbers by meaning, its delimiter, and its kind; `why_not` is empty if it can be read."""

    file: str
    columns: Mapping[str, int]
    delimiter: str
    open_images: bool
    header: bool
    why_not: str


def candidates(files: AnnotationFiles) -> Candidates:
    """The tables."""
    return ((table.file, table.why_not) for table in _tables(files))


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the rows of all files that have the columns needed.

    Boxes of Open Images need the image's size, and cannot be used where the image is absent or broken.
    """
    names = _class_names(files)
    tables = [table for table in _tables(files) if not table.why_not]
    return assemble((each for table in tables for each in _records(files, table, names)), files, images)


def _records(files: AnnotationFiles, table: _Table, names: Mapping[str, str]) -> Iterator[Record]:
    """A record for each image, with the boxes of its rows."""
    found: dict[tuple[str, ...], tuple[Reference, list[ParsedBox], Counter[str]]] = {}
    for where, row in _rows(files, table):
        if not row["image"]:
            remedy = "add the name, or remove the row"
            files.faults.add(DataError("a row names no image", where=where, remedy=remedy))
            continue
        size = () if table.open_images else (row.get("width", ""), row.get("height", ""))
        key = row["image"], row.get("subset", ""), *size
        if key not in found:
            with files.faults.of():
                declared = declared_size(*size, where) if size else (0, 0)
                reference = Reference(row["image"], table.file, part=key[1], where=where, size=declared)
                found[key] = reference, [], Counter()
        if key in found:
            _, boxes, left_out = found[key]
            with files.faults.of(left_out):
                boxes += _boxes(row, names if table.open_images else {}, where)
    for reference, boxes, left_out in found.values():
        image = ParsedImage("", 0, 0, boxes, subset_named(reference.part), left_out=left_out)
        yield Record(reference, image, in_fractions=table.open_images)


def _boxes(row: Mapping[str, str], names: Mapping[str, str], where: str) -> list[ParsedBox]:
    """The box of a row, or none."""
    if all(row[side].lower() in _EMPTY for side in _SIDES):
        return []
    left, top, right, bottom = (number(row[side], side, where) for side in _SIDES)
    kind, crowd = label(row["class"], where), flag(row.get("group"), "IsGroupOf", where)
    return [ParsedBox(names.get(kind, kind), between_corners(left, top, right, bottom), crowd, source=where)]


def _tables(files: AnnotationFiles) -> Iterator[_Table]:
    """The tables by their first lines; without a header the columns are `path,x1,y1,x2,y2,class`."""
    described = files.class_descriptions()
    for name in files.ending(".csv"):
        if name in described:
            continue
        first = (files.head(name).splitlines() or [""])[0]
        delimiter = max(",;\t", key=first.count)
        words = next(csv.reader([first], delimiter=delimiter), [])
        titles = [word.strip().lower() for word in words]
        present = {meaning: [each for each in known if each in titles] for meaning, known in _TITLES.items()}
        columns = {meaning: titles.index(found[0]) for meaning, found in present.items() if found}
        header = bool(columns) or len(words) != 6 or not all(is_number(word) or not word for word in words[1:5])
        if header:
            missing = [f"{each} ({', '.join(_TITLES[each][:4])})" for each in _NEEDED if each not in columns]
            why_not = f"{name} lacks the columns {'; '.join(missing)}" if missing else ""
        else:
            columns = {"image": 0, "left": 1, "top": 2, "right": 3, "bottom": 4, "class": 5}
            why_not = f"{name} has no header: name the format, if it is path,x1,y1,x2,y2,class" * (not files.named)
        yield _Table(name, columns, delimiter, {"imageid", "labelname"} <= set(titles), header, why_not)


def _rows(files: AnnotationFiles, table: _Table) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows by the columns' meaning, each with its place; empty lines are skipped."""
    reader = csv.reader(io.StringIO(files.text(table.file), newline=""), delimiter=table.delimiter)
    try:
        if table.header:
            next(reader, None)
        for row in reader:
            where = f"{table.file}:{reader.line_num}"
            if not any(row):
                continue
            if len(row) <= max(table.columns[each] for each in _NEEDED):
                problem = f"a row has {len(row)} values"
                fault = DataError(problem, where=where, expected="one for each column", remedy="correct the file")
                files.faults.add(fault)
                continue
            yield where, {each: row[i].strip() for each, i in table.columns.items() if i < len(row)}
    except csv.Error as error:
        raise DataError(f"the file is not CSV: {error}", where=f"{table.file}:{reader.line_num}") from error


def _class_names(files: AnnotationFiles) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in files.class_descriptions():
        for i, row in enumerate(csv.reader(files.text(name).splitlines()), 1):
            if len(row) != 2:
                raise DataError(f"a row has {len(row)} values", where=f"{name}:{i}", expected="id and name")
            names[row[0].strip()] = row[1].strip()
    return names
