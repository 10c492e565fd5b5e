"""What a folder behind an fsspec URL holds, all of it or an error, under names that are safe here."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.partial import Validators
from pipeline.data.fetch.places import Place, reaching, validators_of
from pipeline.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file at the place: its path there, and what the place says of its version."""

    path: str
    version: Validators


def listed(place: Place, system: Any) -> dict[str, Entry]:
    """The files of a place at any depth, by their names relative to it.

    Args:
        place: A folder.
        system: Its connected file system.

    Raises:
        MissingError: There is no such folder, or it cannot be read.
        DataError: A name could lead out of a folder here, or two cannot both be files here.
        TransientError: A part of it could not be listed: another attempt may do.
    """
    entries: dict[str, Entry] = {}
    with reaching(place.shown):
        for path, info in _walked(system, place.path):
            name = path[len(place.path) :].lstrip("/")
            if not name or name.endswith("/"):  # some object stores keep a file that stands for the folder
                continue
            shown = f"{place.shown.rstrip('/')}/{name}"
            if unsafe_name(name) or not name.isprintable():
                raise DataError(f"The folder has a file that leads out of it: {name!r}", where=place.shown)
            name = str(PurePosixPath(name))
            if name in entries:
                raise DataError("The folder has two files of one name", where=shown)
            entries[name] = Entry(path, validators_of(info))
    both = next((str(up) for name in entries for up in PurePosixPath(name).parents if str(up) in entries), "")
    if both:
        raise DataError(f"'{both}' is both a file and a folder", where=place.shown, remedy="rename one of the two")
    return entries


def _walked(system: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    from fsspec.asyn import AsyncFileSystem

    find = getattr(type(system), "_find", None)
    if find is not None and find is not AsyncFileSystem._find:  # an object store, which lists all in one go
        yield from ((found, info) for found, info in system.find(path, detail=True).items() if _is_file(info))
        return
    # fsspec's own find and walk leave out, without a word, the folders below the first whose listing fails.
    folders = [path]
    while folders:
        folder = folders.pop()
        for info in system.ls(folder, detail=True):
            name = str(info["name"])
            if info["type"] == "directory" and name.rstrip("/") != folder.rstrip("/"):
                folders.append(name)
                continue
            link = info["type"] in {"link", "other"} or info.get("islink")
            found = system.info(name) if link else info
            if _is_file(found):
                yield name, found
            elif link:
                logger.warning("left out: %s is a link to a folder, or no plain file", name[len(path) :].lstrip("/"))


def _is_file(info: dict[str, Any]) -> bool:
    return bool(info["type"] == "file")
