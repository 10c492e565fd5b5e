"""Typed reading of the scalars in annotation files, the same in all formats, and the collection of their faults.

Tools write one value in several ways: a count as `640` or `640.0`, a flag as `0`, `"0"`, `0.0` or `false`, an id as
`7` or `"7"`. What is none of them is a fault of its record.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from pipeline.data.parsed import UNREADABLE
from pipeline.errors import DataError

_NO = {"", "0", "0.0", "false", "no", "off", "none", "null", "unspecified", "-1"}  # Open Images writes -1 for unknown
_YES = {"1", "1.0", "true", "yes", "on"}
_SHOWN = 10  # faults in an error
_FEW = 4  # a record of so many may be unreadable


class RecordError(DataError):
    """A scalar that a record lacks or that cannot be read. Of many records a few may have one."""


class Faults:
    """The faults of a data set's records, so that one error tells all of them, and a few bad boxes are left out."""

    def __init__(self) -> None:
        self.errors: list[DataError] = []

    def of(self, left_out: Counter[str] | None = None) -> _Block:
        """A block that reads a record, which a `DataError` ends.

        If the record is a box, `left_out` is the counter of its image, which takes the box when it cannot be read.
        """
        return _Block(self.errors, left_out)

    def add(self, error: DataError) -> None:
        """Record a fault found elsewhere."""
        self.errors.append(error)

    def settle(self, boxes: int) -> list[RecordError]:
        """The faults of single boxes, where these are few beside the boxes that were read.

        Raises:
            DataError: Another record has a fault, or more than a quarter of the boxes have one.
        """
        of_boxes = [each for each in self.errors if isinstance(each, RecordError)]
        if len(of_boxes) < len(self.errors) or len(of_boxes) * _FEW > boxes + len(of_boxes):
            raise together(self.errors)
        return of_boxes


class _Block:
    """See `Faults.of`."""

    __slots__ = ("_errors", "_left_out")

    def __init__(self, errors: list[DataError], left_out: Counter[str] | None) -> None:
        self._errors, self._left_out = errors, left_out

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, DataError):
            return False
        if self._left_out is not None:
            self._left_out[UNREADABLE] += 1
        elif isinstance(error, RecordError):  # the record is more than a box
            error = DataError(error.problem, where=error.where, expected=error.expected, remedy=error.remedy)
        self._errors.append(error)
        return True


def together(errors: list[DataError]) -> DataError:
    """One error for several: their number, the first ten, and what is to be done."""
    if len(errors) == 1:
        return errors[0]
    lines = [f"  {each.where}: {each.problem}" if each.where else f"  {each.problem}" for each in errors[:_SHOWN]]
    more = [f"  and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
    return DataError(
        "\n".join([f"the annotations have {len(errors)} faults:", *lines, *more]),
        where=_common_place(errors),
        expected=_joined(each.expected for each in errors),
        remedy=_joined(each.remedy for each in errors),
    )


def number(value: Any, what: str, where: str) -> float:
    """A number, given as one or as text; else a `RecordError`. NaN and infinity pass, for validation to report."""
    if value.__class__ in (float, int, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise unexpected(value, what, "a number", where)


def whole(value: Any, what: str, where: str) -> int:
    """A whole number, such as `640`, or `640.0` from tools that write all numbers alike; else a `RecordError`."""
    if value.__class__ is int:
        return int(value)
    found = number(value, what, where)
    if math.isfinite(found) and found.is_integer():
        return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdecimal() else int(found)
    raise unexpected(value, what, "a whole number", where)


def flag(value: Any, what: str, where: str) -> int:
    """1 or 0 for a flag, given as a boolean, a number or a text; 0 if it is absent; else a `RecordError`."""
    if value is None or value.__class__ in (bool, int, float):
        return int(value is not None and value > 0)
    text = str(value).strip().lower()
    if isinstance(value, str) and text in _NO | _YES:
        return int(text in _YES)
    raise unexpected(value, what, "0 or 1", where)


def label(value: Any, where: str) -> str:
    """The name of a class, without spaces around it; a `RecordError` if it is no text, empty, or not encodable."""
    if isinstance(value, str) and value.strip() and is_encodable(value):
        return value.strip()
    raise unexpected(value, "the class", "a name", where)


def declared_size(width: Any, height: Any, where: str) -> tuple[int, int]:
    """The size of an image in pixels as its annotation declares it; `(0, 0)` if a side is absent, empty or 0."""
    if width in (None, "", 0, "0") or height in (None, "", 0, "0"):
        return 0, 0
    size = whole(width, "the image's width", where), whole(height, "the image's height", where)
    if min(size) < 0:
        raise DataError(f"the image's size is {size[0]}x{size[1]}", where=where, remedy="correct the file")
    return size if all(size) else (0, 0)


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON and YAML can hold lone surrogates."""
    return not re.search("[\ud800-\udfff]", text)


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def shown(value: Any) -> str:
    """A value for a message: short, however long it is."""
    for kind, text in ((dict, "an object"), (list, "a list"), (type(None), "absent")):
        if isinstance(value, kind):
            return text
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def unexpected(value: Any, what: str, expected: str, where: str) -> RecordError:
    """The error of a scalar that is not what was expected."""
    problem = f"{what} is {shown(value)} where {expected} was expected"
    return RecordError(problem, where=where, remedy="correct the file")


def _common_place(errors: list[DataError]) -> str:
    """The file that all errors are in; empty if they are in several."""
    files = {each.where.partition(":")[0] for each in errors}
    return files.pop() if len(files) == 1 else ""


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(filter(None, texts)))
