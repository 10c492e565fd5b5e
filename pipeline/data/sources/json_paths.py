"""Dotted paths into JSON, such as `data.results` or `files.0.url`, with errors that say where a path goes astray."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from pipeline.errors import DataError

_SHOWN = 12  # keys


class _Absent:
    """Stands for what a path does not lead to, which null is not."""


ABSENT = _Absent()


def find(value: Any, path: str) -> Any:
    """What a path leads to, or `ABSENT`. A number is an index into a list; an empty path and `.` lead nowhere else."""
    for step in _steps(path):
        value = _inside(value, step)
        if value is ABSENT:
            break
    return value


def need(value: Any, path: str, *, setting: str, where: str) -> Any:
    """What a path leads to.

    Args:
        value: The JSON value it starts at.
        path: The path.
        setting: The setting it comes from, for the error.
        where: What `value` is, for the error.

    Raises:
        DataError: It leads nowhere; names the keys that there are, and the nearest.
    """
    found = find(value, path)
    if found is ABSENT:
        raise DataError(
            f"The path '{path}' of api.{setting} leads nowhere",
            where=where,
            expected=_what_there_is(value, path),
            remedy=_remedy(value, path, setting),
        )
    return found


def nearest(value: Any, path: str, *, cutoff: float = 0.5) -> str:
    """The path as it was probably meant, or nothing."""
    good, there, step = _astray(value, path)
    keys = {key.lower(): key for key in reversed(_keys(there))}
    near = get_close_matches(step.lower(), keys, 1, cutoff)
    return ".".join([*good, keys[near[0]]]) if near else ""


def _what_there_is(value: Any, path: str) -> str:
    good, there, _ = _astray(value, path)
    place = f"at '{'.'.join(good)}'" if good else "there"
    keys = _keys(there)
    if keys:
        return f"one of what is {place}: {', '.join(keys[:_SHOWN])}{' …' if len(keys) > _SHOWN else ''}"
    return f"an object {place}, which holds {kind(there)}"


def _remedy(value: Any, path: str, setting: str) -> str:
    near = nearest(value, path)
    return f"did you mean {near}?" if near else f"set api.{setting} to the right path"


def _astray(value: Any, path: str) -> tuple[list[str], Any, str]:
    """The steps that led somewhere, what they led to, and the step that has no place there."""
    good: list[str] = []
    for step in _steps(path):
        inside = _inside(value, step)
        if inside is ABSENT:
            return good, value, step
        good, value = [*good, step], inside
    return good, value, ""


def _inside(value: Any, step: str) -> Any:
    if isinstance(value, dict):
        return value.get(step, ABSENT)
    if isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(value):
        return value[int(step)]
    return ABSENT


def _steps(path: str) -> list[str]:
    return [step for step in path.split(".") if step]


def _keys(value: Any) -> list[str]:
    return [key[:40] for key in value] if isinstance(value, dict) else []


def kind(value: Any) -> str:
    """A JSON value's kind in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
