"""Large JSON files of records: each is converted as soon as it is parsed, so that no two forms of all are in memory."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


class RecordError(Exception):
    """JSON that is no instances file, and where."""


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Millions of records make no cycles, and the garbage collector would walk through all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def parse_records(text: str, kinds: Mapping[str, Callable[[Any], Any]]) -> Any:
    """Parse JSON, and convert the records of some of an object's lists.

    `kinds` has what converts a record, by the key of its list; it may raise KeyError, ValueError, OverflowError,
    TypeError or AttributeError.

    Raises:
        RecordError: A record could not be converted.
        ValueError: It is not JSON.
        RecursionError: It is nested too deeply.
    """
    with _collector_paused():
        return _parsed(text, kinds)


def _parsed(text: str, kinds: Mapping[str, Callable[[Any], Any]]) -> Any:
    at = _after_space(text, 0)
    if text[at : at + 1] != "{":
        return json.loads(text)
    found: dict[str, Any] = {}
    is_first = True
    while (at := _after_space(text, at + 1)) < len(text) and not (is_first and text[at] == "}"):
        is_first = False
        key, at = _DECODER.raw_decode(text, at)
        if not isinstance(key, str):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        at = _after_space(text, _after(text, at, ":"))
        if key in kinds and text[at : at + 1] == "[":
            found[key], at = _records(text, at, key, kinds[key])
        else:
            found[key], at = _DECODER.raw_decode(text, at)
        at = _after_space(text, at)
        if text[at : at + 1] != ",":
            break
    end = _after_space(text, _after(text, at, "}"))
    if end < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return found


def _records(text: str, at: int, key: str, parse: Callable[[Any], T]) -> tuple[list[T], int]:
    """The records of the list that begins at a place, and where it ends."""
    decode, records = _DECODER.raw_decode, list[T]()
    at = _after_space(text, at + 1)
    if text[at : at + 1] == "]":
        return records, at + 1
    while True:
        record, at = decode(text, at)
        try:
            records.append(parse(record))
        except KeyError as error:
            raise RecordError(f"{key}[{len(records)}] has no {error}") from None
        except (ValueError, OverflowError) as error:
            raise RecordError(f"{key}[{len(records)}].{error}") from None
        except (TypeError, AttributeError):
            raise RecordError(f"{key}[{len(records)}] is not an object") from None
        at = _after_space(text, at)
        if text[at : at + 1] == "]":
            return records, at + 1
        at = _after_space(text, _after(text, at, ","))


def _after(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise json.JSONDecodeError(f"Expecting '{sign}' delimiter", text, at)
    return at + 1


def _after_space(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]  # it matches everywhere
