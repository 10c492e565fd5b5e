"""Files put into their places: copied, linked or moved, with one form for what the disk may say to that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import DataError


def place(source: Path, target: Path, how: str) -> None:
    """Put a file at its place, whose folders are made.

    Args:
        source: The file.
        target: Its place.
        how: `copy`, `move`, or `link`, which copies where the file system cannot link.

    Raises:
        DataError: It cannot be written.
    """
    with _writing(target):
        if how == "move":
            source.replace(target)
            return
        if how == "link":
            try:
                os.link(source, target)
            except OSError:  # another file system, or one without links
                pass
            else:
                return
        shutil.copyfile(source, target)


def write(data: bytes, target: Path) -> None:
    """Write a file at its place, whose folders are made.

    Raises:
        DataError: It cannot be written.
    """
    with _writing(target):
        target.write_bytes(data)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        problem = f"The file cannot be written: {error.strerror or error}"
        raise DataError(problem, where=target.name, remedy="see that there is room on the disk") from error
