"""CSV files as rows under known columns, whatever the header calls them, and whichever mark is between the values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.errors import DataError

_NAMES = {
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
NEEDED = ("image", "class", "left", "top", "right", "bottom")
_SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is laid out: which column is where, the mark between values, and its kind."""

    columns: dict[str, int]
    delimiter: str
    open_images: bool = False
    header: bool = True

    @property
    def missing(self) -> list[str]:
        """The columns that are needed and not there, by the names they may have."""
        return [f"{name} ({', '.join(_NAMES[name][:4])})" for name in NEEDED if name not in self.columns]


def layout_of(files: AnnotationFiles, name: str) -> Layout:
    """The layout of a file by its first line, or, without a header, by the columns `path,x1,y1,x2,y2,class`."""
    lines = files.head(name).decode("utf-8-sig", "replace").splitlines() or [""]
    delimiter = max(",;\t", key=lines[0].count)
    words = next(csv.reader([lines[0]], delimiter=delimiter), [])
    titles = [word.strip().lower() for word in words]
    columns: dict[str, int] = {}
    for meaning, names in _NAMES.items():
        found = next((titles.index(each) for each in names if each in titles), None)
        if found is not None:
            columns[meaning] = found
    if not columns and len(words) == 6 and all(_is_number(word) or not word for word in words[1:5]):
        return Layout({"image": 0, "left": 1, "top": 2, "right": 3, "bottom": 4, "class": 5}, delimiter, header=False)
    return Layout(columns, delimiter, {"imageid", "labelname"} <= set(titles))


def rows(files: AnnotationFiles, name: str, layout: Layout) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows, each with its place, as texts by the columns' meaning; empty lines are left out.

    Raises:
        DataError: A row has fewer values than there are columns needed, or the file is no CSV; says at which line.
    """
    reader = csv.reader(io.StringIO(files.text(name), newline=""), delimiter=layout.delimiter)
    try:
        if layout.header:
            next(reader, None)
        for row in reader:
            where = f"{name}:{reader.line_num}"
            if not any(row):
                continue
            if len(row) <= max(layout.columns[each] for each in NEEDED):
                problem = f"A row has {len(row)} values"
                raise DataError(problem, where=where, expected="one for each column", remedy="correct it there")
            columns = layout.columns.items()
            yield where, {each: row[i].strip() for each, i in columns if i < len(row)}
    except csv.Error as error:
        raise DataError(f"The file is not CSV: {error}", where=f"{name}:{reader.line_num}") from error


def has_no_box(row: dict[str, str]) -> bool:
    """Whether a row only names an image, saying that there is nothing in it."""
    return not any(row[side] for side in _SIDES) and not row["class"]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
