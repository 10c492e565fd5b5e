"""Values of fields in annotation files, checked; what is wrong is said with the place."""

from __future__ import annotations

import math
from typing import Any

from pipeline.errors import DataError


def number(value: Any, what: str, where: str) -> float:
    """A number, given as one or as text; NaN and infinity pass, for validation to report.

    Raises:
        DataError: It is none, or too large for one.
    """
    if value.__class__ in (float, int, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise DataError(f"{what} is {shown(value)} where a number was expected", where=where, remedy="correct it there")


def whole(value: Any, what: str, where: str) -> int:
    """A whole number, such as `640`, or `640.0` from tools that write all numbers alike.

    Raises:
        DataError: It is none.
    """
    found = number(value, what, where)
    if math.isfinite(found) and found.is_integer():
        return int(found)
    problem = f"{what} is {shown(value)} where a whole number was expected"
    raise DataError(problem, where=where, remedy="correct it there")


def label(value: Any, where: str) -> str:
    """The name of a class, without blanks around it.

    Raises:
        DataError: It is no text, an empty one, or one with halves of characters, which JSON and YAML can hold.
    """
    if isinstance(value, str) and value.strip() and is_writable(value):
        return value.strip()
    raise DataError(f"The class is {shown(value)} where a name was expected", where=where, remedy="name it there")


def is_writable(text: str) -> bool:
    """Whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shown(value: Any) -> str:
    """A value for a message: short, however long it is."""
    if value is None:
        return "absent"
    if isinstance(value, dict | list):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
