"""Dotted paths into JSON, such as `data.results` or `files.0.url`, with errors that say where a path fails."""

from __future__ import annotations

from typing import Any

from pipeline.errors import DataError, did_you_mean

_SHOWN = 12  # keys


class _Absent:
    """Stands for a missing value, which null is not."""


ABSENT = _Absent()


def find(value: Any, path: str) -> Any:
    """The value at a path, or `ABSENT`. A number is an index; an empty path and `.` mean the value itself."""
    _, found, missing = _follow(value, path)
    return ABSENT if missing else found


def need(value: Any, path: str, *, setting: str, where: str) -> Any:
    """The value at a path.

    Args:
        value: The JSON value that the path starts at.
        path: The path.
        setting: The setting it comes from, for the error.
        where: The place of `value`, for the error.

    Raises:
        DataError: The path leads nowhere; names the keys that exist, and the nearest.
    """
    good, found, missing = _follow(value, path)
    if not missing:
        return found
    at = f"at '{'.'.join(good)}'" if good else "there"
    keys = _keys(found)
    if keys:
        expected = f"one of the keys {at}: {', '.join(keys[:_SHOWN])}{' …' if len(keys) > _SHOWN else ''}"
    else:
        expected = f"an object {at}, which holds {kind(found)}"
    raise DataError(
        f"the path '{path}' of api.{setting} leads nowhere",
        where=where,
        expected=expected,
        remedy=suggestion(value, path) or f"set api.{setting} to the right path",
    )


def suggestion(value: Any, path: str, *, cutoff: float = 0.5) -> str:
    """`did you mean 'data.results'?` for a path that leads nowhere and resembles one that does; otherwise empty."""
    good, found, missing = _follow(value, path)
    near = [key for key in _keys(found) if missing and did_you_mean(missing, [key], cutoff=cutoff)]
    return did_you_mean(path, [".".join([*good, key]) for key in near], cutoff=0)


def kind(value: Any) -> str:
    """A JSON value's kind in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _follow(value: Any, path: str) -> tuple[list[str], Any, str]:
    """The steps that lead somewhere, the value they lead to, and the first step that is missing there."""
    good: list[str] = []
    for step in (step for step in path.split(".") if step):
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


def _keys(value: Any) -> list[str]:
    return [key[:40] for key in value] if isinstance(value, dict) else []
