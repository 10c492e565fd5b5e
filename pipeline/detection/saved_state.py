"""A file of tensors and plain values that is whole or not there, and is looked at before it is trusted."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor

from pipeline.errors import DataError

PARTIAL = ".partial-"  # begins the name of a file that is still being written


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a file that is at any moment, whatever is killed, the old one or the new one.

    Processes that write the same file do not mix: the last to finish stays.

    Raises:
        OSError: It cannot be written; what was there before still is.
        RuntimeError: The same, in torch's words.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.parent / f"{PARTIAL}{path.name}-{uuid4().hex}"
    try:
        with partial.open("xb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # until then the disk may know the content but not the name
    finally:
        os.close(folder)


def remove_partial(path: Path) -> None:
    """Remove what processes that were killed while they wrote this file have left.

    One that is still alive finds its file gone and raises OSError; the next that it writes is whole again.
    """
    for partial in path.parent.glob(f"{PARTIAL}{path.name}-*"):
        partial.unlink(missing_ok=True)


def read_state(path: Path) -> dict[str, Any]:
    """Read what `write_state` wrote, with its tensors on the CPU, and without running code from it.

    Raises:
        DataError: It is damaged, or nothing of the kind.
    """
    try:
        with path.open("rb") as file:  # opened once: another process may replace it meanwhile
            # torch writes check sums and does not look at them: a flipped bit would become a weight
            damaged = zipfile.ZipFile(file).testzip()
            file.seek(0)
            state = None if damaged else torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, its decoders and torch raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"it cannot be read: {reason}", where=path) from error
    if damaged:
        raise DataError(f"it is damaged: the check sum of {damaged} is wrong", where=path)
    if not isinstance(state, dict):
        raise DataError(f"it holds {type(state).__name__} instead of dict", where=path)
    return state


def layout(value: Any) -> Any:
    """Names, types and shapes, without the values; equal for two states of which one can replace the other."""
    if isinstance(value, Tensor):
        return value.dtype, value.shape
    if isinstance(value, Mapping):
        return {name: layout(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [layout(item) for item in value]
    return type(value)
