"""CSV files with a box a row: Open Images, and the tables of pixels that many tools write.

- Open Images (https://storage.googleapis.com/openimages/web/download_v7.html): `ImageID, LabelName, XMin, XMax, YMin,
  YMax` as fractions of the image's size; `IsGroupOf` marks a region with many objects as a crowd. A table of two
  columns gives the names for machine ids such as `/m/01g317`.
- Pixels: `filename, width, height, class, xmin, ymin, xmax, ymax`, as TensorFlow's tools, Roboflow and VoTT write,
  edges counted from 0; the sizes may be absent. If all numbers are from 0 to 1, they are fractions of the image's size.
- A corner and sides, in columns such as `bbox_x, bbox_y, bbox_width, bbox_height` (makesense), or in one column `bbox`.
- Only where the user names the format, as any table fits: without a header RetinaNet's `path,x1,y1,x2,y2,class`,
  SKU-110K's with the image's width and height after that, and makesense's `class,x,y,width,height,image,width,height`;
  and tables without classes, whose boxes are `object`.

A row without coordinates means that the image has no objects, whatever its class is called (`No finding`).
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pipeline.data.boxes import between_corners
from pipeline.data.coco import CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Candidates
from pipeline.data.formats.assembly import Record, assemble
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.formats.image_pairing import Reference
from pipeline.data.formats.scalars import RecordError, declared_size, flag, is_number, label, number
from pipeline.data.images import is_image_name
from pipeline.data.parsed import ParsedBox, ParsedImage, subset_named
from pipeline.errors import DataError

LOOKS_FOR = "a CSV file with columns for image, class, xmin, ymin, xmax, ymax"
_CORNERS, _SIDES, _LIST = ("left", "top", "right", "bottom"), ("x", "y", "across", "down"), ("box",)
_HEADLESS = (
    ("image", *_CORNERS, "class"),
    ("image", *_CORNERS, "class", "width", "height"),
    ("class", *_SIDES, "image", "width", "height"),
)
_OVER = 1.01  # the part of an image that a box may reach
_UNNAMED = "object"  # the class of boxes in a table without classes
_EMPTY = {"", "nan", "none", "null", "na"}  # cells without a value, as pandas and databases write them
_TITLES = {
    # the last is of RSNA's tables on Kaggle
    "image": (
        *("imageid", "image_id", "filename", "file_name", "image", "image_name", "image_path", "img", "path", "file"),
        "patientid",
    ),
    "class": ("labelname", "class", "label", "class_name", "label_name", "category", "category_name"),
    "left": ("xmin", "x_min", "x1", "left", "bbox_xmin"),
    "top": ("ymin", "y_min", "y1", "top", "bbox_ymin"),
    "right": ("xmax", "x_max", "x2", "right", "bbox_xmax"),
    "bottom": ("ymax", "y_max", "y2", "bottom", "bbox_ymax"),
    "x": ("x", "bbox_x", "box_x", "bbox_left", "bb_left"),
    "y": ("y", "bbox_y", "box_y", "bbox_top", "bb_top"),
    "across": ("w", "bbox_w", "bbox_width", "box_width", "bb_width", "width"),
    "down": ("h", "bbox_h", "bbox_height", "box_height", "bb_height", "height"),
    "box": ("bbox", "box"),
    "width": ("image_width", "width"),
    "height": ("image_height", "height"),
    "group": ("isgroupof",),
    "subset": ("subset", "split"),
}


@dataclass(frozen=True, slots=True)
class _Table:
    """A file, its column numbers by meaning, which of them hold the box, its delimiter, and its kind.

    `why_not` is empty if it can be read.
    """

    file: str
    columns: Mapping[str, int]
    place: tuple[str, ...]
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
    files.notes.extend(
        f"{table.file} has no column of classes ({', '.join(_TITLES['class'][:4])}, …): all boxes are '{_UNNAMED}'"
        for table in tables
        if "class" not in table.columns
    )
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
                boxes += _boxes(row, table, names, where)
    in_fractions = table.open_images or _are_fractions([box for _, boxes, _ in found.values() for box in boxes])
    if in_fractions and not table.open_images:
        files.notes.append(f"{table.file}: the boxes are fractions of the image's size")
    for reference, boxes, left_out in found.values():
        image = ParsedImage("", 0, 0, boxes, subset_named(reference.part), left_out=left_out)
        yield Record(reference, image, in_fractions=in_fractions)


def _are_fractions(boxes: Sequence[ParsedBox]) -> bool:
    """Whether no box leaves the first pixel by much, and one does not fill it."""
    sides = [(x + width, y + height) for x, y, width, height in (box.bbox for box in boxes)]
    return max(chain(*sides), default=2) <= _OVER and any(min(box.bbox[2:]) < 1 for box in boxes)


def _boxes(row: Mapping[str, str], table: _Table, names: Mapping[str, str], where: str) -> list[ParsedBox]:
    """The box of a row, or none."""
    cells = [row[each] for each in table.place]
    if all(each.lower() in _EMPTY for each in cells):
        return []
    what = table.place
    if what == _LIST:
        cells, what = re.split(r"[\s,;]+", cells[0].strip("[]() ")), _SIDES
        if len(cells) != len(what):
            raise RecordError(f"the box has {len(cells)} numbers", where=where, expected="x, y, width, height")
    first, second, third, fourth = (number(cell, each, where) for cell, each in zip(cells, what, strict=True))
    box = between_corners(first, second, third, fourth) if what == _CORNERS else (first, second, third, fourth)
    kind = label(row["class"], where) if "class" in table.columns else _UNNAMED
    crowd = flag(row.get("group"), "IsGroupOf", where)
    return [ParsedBox(names.get(kind, kind) if table.open_images else kind, box, crowd, source=where)]


def _tables(files: AnnotationFiles) -> Iterator[_Table]:
    """The tables by their first lines."""
    described = files.class_descriptions()
    for name in files.ending(".csv"):
        if name in described:
            continue
        first = (files.head(name).splitlines() or [""])[0]
        delimiter = max(",;\t", key=first.count)
        words = next(csv.reader([first], delimiter=delimiter), [])
        titles = [word.strip().lower() for word in words]
        headless = next((columns for columns in _HEADLESS if _fits(words, columns)), None)
        if headless:
            columns = {each: i for i, each in enumerate(headless)}
            place = _CORNERS if "right" in columns else _SIDES
            why_not = f"{name} has no header: name the format, if it is {','.join(headless)}" * (not files.named)
            yield _Table(name, columns, place, delimiter, open_images=False, header=False, why_not=why_not)
        else:
            yield _with_header(files, name, titles, delimiter)


def _fits(words: list[str], columns: tuple[str, ...]) -> bool:
    """Whether a first line could be a row of these columns."""
    if len(words) != len(columns) or is_image_name(words[columns.index("class")]):
        return False
    pairs = zip(words, columns, strict=True)
    return all((is_number(word) or not word) == (each not in {"image", "class"}) for word, each in pairs)


def _with_header(files: AnnotationFiles, name: str, titles: list[str], delimiter: str) -> _Table:
    present = {meaning: [each for each in known if each in titles] for meaning, known in _TITLES.items()}
    columns = {meaning: titles.index(found[0]) for meaning, found in present.items() if found}
    place = next((each for each in (_CORNERS, _SIDES, _LIST) if columns.keys() >= {*each}), _CORNERS)
    if place == _SIDES:  # where one column may be meant, it is the box's
        columns = {key: i for key, i in columns.items() if key not in {"width", "height"} or titles[i].startswith("im")}
    needed = ("image", *(() if files.named else ("class",)), *place)
    missing = [f"{each} ({', '.join(_TITLES[each][:4])})" for each in needed if each not in columns]
    why_not = f"{name} lacks the columns {'; '.join(missing)}" if missing else ""
    if missing == [f"class ({', '.join(_TITLES['class'][:4])})"]:
        why_not += f": name the format, if all boxes are of one class, which is then called '{_UNNAMED}'"
    open_images = {"imageid", "labelname"} <= set(titles)
    return _Table(name, columns, place, delimiter, open_images, header=True, why_not=why_not)


def _rows(files: AnnotationFiles, table: _Table) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows by the columns' meaning, each with its place; empty lines are skipped."""
    reader = csv.reader(io.StringIO(files.text(table.file), newline=""), delimiter=table.delimiter)
    last = max(i for each, i in table.columns.items() if each in {"image", "class", *table.place})
    try:
        if table.header:
            next(reader, None)
        for row in reader:
            where = f"{table.file}:{reader.line_num}"
            if not any(row):
                continue
            if len(row) <= last:
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
