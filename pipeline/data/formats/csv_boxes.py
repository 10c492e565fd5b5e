"""CSV files with a box a row: Open Images, and the plain tables of pixels that many tools write.

- Open Images (https://storage.googleapis.com/openimages/web/download_v7.html): `ImageID, LabelName, XMin, XMax, YMin,
  YMax` as parts of the image; `IsGroupOf` marks a region with many objects as a crowd. `class-descriptions*.csv`
  gives the names for machine ids such as `/m/01g317`.
- Pixels: `filename, width, height, class, xmin, ymin, xmax, ymax`, as TensorFlow's tools and Roboflow write, edges
  counted from 0; also without the sizes.
- Without a header, RetinaNet's `path,x1,y1,x2,y2,class`: only where the format is named, as any table could be one.

A row without box and class says that there is nothing in the image.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from pipeline.data.coco import Box, CocoDataset
from pipeline.data.formats.annotation_files import AnnotationFiles, Recognition
from pipeline.data.formats.csv_tables import Layout, has_no_box, layout_of, rows
from pipeline.data.formats.field_values import label, number, whole
from pipeline.data.formats.image_index import ImageIndex
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError

LOOKS_FOR = "a CSV file with columns for image, class, xmin, ymin, xmax, ymax"
_DESCRIPTIONS = "class-descriptions"


@dataclass(slots=True)
class _Rows:
    """What the rows say of one image."""

    size: tuple[int, int]
    subset: str
    marks: list[ParsedBox] = field(default_factory=list)
    lost: bool = False


def recognises(files: AnnotationFiles) -> Recognition:
    """Whether one of the files has the columns needed."""
    why_not = ""
    for name in _tables(files):
        layout = layout_of(files, name)
        if not layout.missing and (layout.header or files.named):
            return Recognition(name)
        if not layout.header:
            why_not = why_not or f"{name} has no header: name the format, if it is path,x1,y1,x2,y2,class"
        else:
            why_not = why_not or f"{name} lacks the columns {'; '.join(layout.missing)}"
    return Recognition(why_not=why_not)


def read(files: AnnotationFiles, images: ImageIndex) -> CocoDataset:
    """Read the rows of all files that have the columns needed.

    Boxes of Open Images are lost with an image whose size is unknown, as it is absent or broken.

    Raises:
        DataError: A value is missing or no number; says at which line.
    """
    names = _class_names(files)
    found: dict[str, _Rows] = {}
    for file in _tables(files):
        layout = layout_of(files, file)
        if not layout.missing and (layout.header or files.named):
            _add(files, file, layout, images, names, found)
    return to_coco(
        ParsedImage(name, *each.size, each.marks, each.subset, unusable=each.lost) for name, each in found.items()
    )


def _add(
    files: AnnotationFiles,
    file: str,
    layout: Layout,
    images: ImageIndex,
    names: dict[str, str],
    found: dict[str, _Rows],
) -> None:
    beside, subset = PurePosixPath(file).parent.as_posix(), images.subset_of(file)
    known: dict[str, str] = {}
    for where, row in rows(files, file, layout):
        if row["image"] not in known:
            known[row["image"]] = _image(row["image"], where, beside, images)
        name = known[row["image"]]
        if name not in found:
            own = subset_named(row.get("subset", "")) or subset
            found[name] = _Rows(_size(row, where, layout, name, images), own)
        if not has_no_box(row):
            mark = _mark(row, where, layout, found[name].size, names)
            found[name].marks += [mark] if mark else []
            found[name].lost |= mark is None


def _image(written: str, where: str, beside: str, images: ImageIndex) -> str:
    if not written:
        raise DataError("A row names no image", where=where, remedy="name it there, or remove the row")
    return images.name_of(written, where, beside)


def _size(row: dict[str, str], where: str, layout: Layout, name: str, images: ImageIndex) -> tuple[int, int]:
    width, height = row.get("width"), row.get("height")
    if layout.open_images or not width or not height:
        return images.size(name)
    size = whole(width, "width", where), whole(height, "height", where)
    if min(size) < 0:
        raise DataError(f"The image's size is {size[0]}x{size[1]}", where=where, remedy="correct it there")
    return size if all(size) else images.size(name)


def _mark(
    row: dict[str, str], where: str, layout: Layout, size: tuple[int, int], names: dict[str, str]
) -> ParsedBox | None:
    left, top, right, bottom = (number(row[side], side, where) for side in ("left", "top", "right", "bottom"))
    kind = label(row["class"], where)
    box: Box = (left, top, right - left, bottom - top)
    if not layout.open_images:
        return ParsedBox(kind, box)
    width, height = size
    box = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    return ParsedBox(names.get(kind, kind), box, int(row.get("group") == "1")) if all(size) else None


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
                raise DataError(f"A row has {len(row)} values", where=f"{name}:{i}", expected="id and name")
            names[row[0].strip()] = row[1].strip()
    return names
