"""The columns of a query, known by their names, and its rows as checked values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.parsed import ParsedBox
from pipeline.data.sources.image_sink import DIFFERS
from pipeline.data.subset_names import subset_named
from pipeline.errors import DataError, UsageError

EXPECTED = (
    "name and image (the file's bytes), or path (a local path or URL), with name or without; for one box a row: label "
    "with x, y, width, height or with x1, y1, x2, y2, in pixels; for all boxes of an image: boxes and labels, JSON "
    "lists; iscrowd; subset; whatever else there is, is kept with the image"
)
_XYWH, _XYXY, _LISTS = ("x", "y", "width", "height"), ("x1", "y1", "x2", "y2"), ("boxes",)
_RESERVED = frozenset({"id", "file_name", "width", "height"})  # of a COCO image record


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the query. Without an image, `data` is None and `path` is empty.

    Attributes:
        number: Counted from 1.
        name: The image's name; empty if the query has no such column.
        data: The bytes of the image file.
        path: The path or URL of the image file.
        boxes: The objects in it.
        subset: `train`, `eval`, `test`, or empty.
        extra: The other columns without NULLs; `DIFFERS` for bytes, which are not kept.
        annotated: Whether it says what is in the image: a NULL in place of a list of boxes does not.
    """

    number: int
    name: str
    data: bytes | None
    path: str
    boxes: tuple[ParsedBox, ...]
    subset: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    annotated: bool = True


class Columns:
    """Reads rows with these column names, in upper or lower case.

    Raises:
        UsageError: A column is missing, occurs twice, or contradicts another.
    """

    def __init__(self, names: Sequence[str], shown: str) -> None:
        self._shown = shown
        self._names = [str(name) for name in names]
        self._at = {name.lower(): i for i, name in enumerate(self._names)}
        self._check_image()
        self._form = self._form_of_boxes()
        used = {"name", "image", "path", "subset"} | (
            {*self._form, "iscrowd", "labels" if self._form == _LISTS else "label"} if self._form else set()
        )
        self._others = {
            f"source_{name}" if name.lower() in _RESERVED else name: i
            for i, name in enumerate(self._names)
            if name.lower() not in used
        }

    def row(self, values: Sequence[Any], number: int) -> Row:
        """Check a row.

        Raises:
            DataError: A value is not what its column is for; names the row.
        """
        name = self._value(values, "name")
        item = f"row {number}" if name is None else f"row {number}, '{name}'"
        try:
            return Row(
                number,
                _text(name, "name", may_be_null="name" not in self._at),
                _bytes(self._value(values, "image")),
                _text(self._value(values, "path"), "path", may_be_null=True),
                self._boxes(values),
                _subset(self._value(values, "subset")),
                {key: _kept(values[i]) for key, i in self._others.items() if values[i] is not None},
                self._form != _LISTS or self._value(values, "boxes") is not None,
            )
        except _RowError as error:
            raise DataError(f"a row of the query cannot be used: {error}", where=f"{self._shown}, {item}") from None

    def _value(self, values: Sequence[Any], column: str) -> Any:
        return values[self._at[column]] if column in self._at else None

    def _check_image(self) -> None:
        if len(self._at) < len(self._names):
            twice = sorted(
                {name for name in self._names if [each.lower() for each in self._names].count(name.lower()) > 1}
            )
            raise self._refused(f"the query has a column twice: {', '.join(twice)}", "give them names of their own: AS")
        if "image" in self._at and "path" in self._at:
            raise self._refused("the query has both 'image' and 'path'", "leave one out, or name it otherwise")
        if "image" not in self._at and "path" not in self._at:
            raise self._refused("the query has neither a column 'image' nor 'path'", "name it so: SELECT data AS image")
        if "image" in self._at and "name" not in self._at:
            raise self._refused("the query has no column 'name'", "name it so: SELECT file AS name")

    def _form_of_boxes(self) -> tuple[str, ...]:
        """The columns that make a box; empty if there are none. A width and height alone are an image's."""
        forms = [form for form in (_XYWH, _XYXY, _LISTS) if self._at.keys() & set(form[:2])]
        if len(forms) > 1:
            raise self._refused(f"the query has boxes in {len(forms)} forms", "leave all but one out")
        if not forms:
            orphan = next((each for each in ("label", "labels", "iscrowd") if each in self._at), "")
            if orphan:
                raise self._refused(f"the query has a column '{orphan}' and no boxes", "add them, or name it otherwise")
            return ()
        needed = (*forms[0], "labels" if forms[0] == _LISTS else "label")
        missing = [each for each in needed if each not in self._at]
        if missing:
            raise self._refused(f"the query has boxes without {', '.join(missing)}", "add it: SELECT 'car' AS label")
        return forms[0]

    def _refused(self, problem: str, remedy: str) -> UsageError:
        came = ", ".join(self._names)
        return UsageError(f"{problem}; it has {came}", where=self._shown, expected=EXPECTED, remedy=remedy)

    def _boxes(self, values: Sequence[Any]) -> tuple[ParsedBox, ...]:
        if not self._form:
            return ()
        crowd = self._value(values, "iscrowd")
        if self._form == _LISTS:
            return _from_lists(self._value(values, "boxes"), self._value(values, "labels"), crowd)
        numbers, label = [self._value(values, each) for each in self._form], self._value(values, "label")
        if all(each is None for each in numbers):
            if label is not None:
                raise _RowError("it has a label and no box")
            return ()
        a, b, c, d = (_number(value, column) for value, column in zip(numbers, self._form, strict=True))
        box = (a, b, c - a, d - b) if self._form == _XYXY else (a, b, c, d)
        return (ParsedBox(_text(label, "label"), box, _flag(crowd)),)


class _RowError(Exception):
    """The problem with a row."""


def _from_lists(boxes: Any, labels: Any, crowd: Any) -> tuple[ParsedBox, ...]:
    boxes, labels = _list(boxes, "boxes"), _list(labels, "labels")
    flags = _list(crowd, "iscrowd") or [0] * len(boxes)
    if not len(boxes) == len(labels) == len(flags):
        raise _RowError(f"it has {len(boxes)} boxes, {len(labels)} labels and {len(flags)} iscrowd")
    found = []
    for box, label, flag in zip(boxes, labels, flags, strict=True):
        if not isinstance(box, list | tuple) or len(box) != 4:
            raise _RowError("a box is not four numbers [x, y, width, height]")
        x, y, width, height = (_number(value, "boxes") for value in box)
        found.append(ParsedBox(_text(label, "labels"), (x, y, width, height), _flag(flag)))
    return tuple(found)


def _list(value: Any, column: str) -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError:
            raise _RowError(f"{column} is not JSON") from None
    if not isinstance(value, list | tuple):
        raise _RowError(f"{column} is not a list")
    return list(value)


def _bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise _RowError(f"image holds {type(value).__name__} where the bytes of a file were expected")


def _text(value: Any, column: str, *, may_be_null: bool = False) -> str:
    if value is None and may_be_null:
        return ""
    if value is None or value == "":
        raise _RowError(f"{column} is {'NULL' if value is None else 'empty'}")
    if isinstance(value, bool | bytes | bytearray | memoryview | list | dict | float):
        raise _RowError(f"{column} holds {type(value).__name__} where a text was expected")
    return str(value)


def _number(value: Any, column: str) -> float:
    try:
        return float(value if not isinstance(value, bool) else "")
    except (TypeError, ValueError):
        raise _RowError(f"{column} is {'NULL' if value is None else 'no number'}") from None


def _flag(value: Any) -> int:
    if value is None or value in (0, 1):
        return int(value or 0)
    raise _RowError("iscrowd is neither 0 nor 1")


def _subset(value: Any) -> str:
    if value is None or value == "":
        return ""
    subset = subset_named(value) if isinstance(value, str) else ""
    if not subset:
        raise _RowError(f"subset is '{str(value)[:40]}', and not train, val, eval or test")
    return subset


def _kept(value: Any) -> Any:
    """A value that JSON can hold; others as text, and bytes as `DIFFERS`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return DIFFERS
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return str(value)
