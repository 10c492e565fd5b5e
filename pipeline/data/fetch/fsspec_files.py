"""One file, or the listing of a folder, from a place at an fsspec URL: resumed, whole, and under safe names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any

from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.fsspec_places import Place, place_errors, version_of
from pipeline.data.fetch.partial_file import PartialFile, Validators
from pipeline.errors import DataError

log = logging.getLogger(__name__)

_CHUNK = 1 << 20  # bytes
_BLOCK = 1 << 22  # bytes that a file system reads ahead
_SFTP_PIECE = 1 << 15  # bytes of a request, the most that every server answers in one


@dataclass(frozen=True, slots=True)
class Entry:
    """A file at a place: its path there, and its version."""

    path: str
    version: Validators


def fetch_file(place: Place, path: str, shown: str, part: PartialFile, report: Callable[[int], object]) -> None:
    """Fill a partial file, from where it stands.

    Args:
        place: The place.
        path: The file's path in the place's file system.
        shown: Its URL without secrets, for messages.
        part: Receives the bytes.
        report: Is called now and then with the number of bytes that have come.

    Raises:
        MissingError: The file does not exist, or cannot be reached.
        DataError: It keeps breaking off, or changing.
    """

    def read(system: Any) -> None:
        found = _version(system, path, shown)
        if not part.size or not part.validators.same_version(found) or not part.size <= found.size:
            part.reset(found)
        _read(system, path, shown, part, report)
        if found.size not in (part.size, -1):
            raise TransientError(f"the download was cut: {part.size} of {found.size} bytes came")
        if _version(system, path, shown) != found:
            part.reset(Validators())
            raise TransientError("the file changed while it was read")

    place.attempt(read, shown, lambda: part.size)


def list_files(place: Place) -> dict[str, Entry]:
    """The files of a folder at any depth, by their names relative to it.

    Raises:
        MissingError: There is no such folder, or it cannot be read.
        DataError: A name could lead out of a folder here, or two cannot both be files here.
    """
    entries: dict[str, Entry] = {}
    for path, info in place.attempt(lambda system: _walk(system, place)):
        name = path[len(place.path) :].lstrip("/")
        if not name or name.endswith("/"):  # some object stores keep a file that stands for the folder
            continue
        if unsafe_name(name) or not name.isprintable():
            problem = f"the folder has a file that leads out of it: {name!r}"
            raise DataError(problem, where=place.shown, remedy="rename it there")
        name = str(PurePosixPath(name))
        if name in entries:
            problem = f"the folder has two files of the name '{name}'"
            raise DataError(problem, where=place.shown, remedy="rename one of the two")
        entries[name] = Entry(path, version_of(info))
    both = next((str(up) for name in entries for up in PurePosixPath(name).parents if str(up) in entries), "")
    if both:
        raise DataError(f"'{both}' is both a file and a folder", where=place.shown, remedy="rename one of the two")
    return entries


def _walk(system: Any, place: Place) -> list[tuple[str, dict[str, Any]]]:
    from fsspec.asyn import AsyncFileSystem

    find = getattr(type(system), "_find", None)
    with place_errors(place.shown):
        if find is not None and find is not AsyncFileSystem._find:  # an object store, which lists all in one go
            return [each for each in system.find(place.path, detail=True).items() if each[1]["type"] == "file"]
        return list(_walk_folders(system, place.path))


def _walk_folders(system: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """As fsspec's own `find` and `walk`, which silently leave out folders whose listing fails."""
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
            if found["type"] == "file":
                yield name, found
            elif link:
                log.warning("left out: %s is a link to a folder, or no plain file", name[len(path) :].lstrip("/"))


def _version(system: Any, path: str, shown: str) -> Validators:
    with place_errors(shown):
        return version_of(system.info(path))


def _read(system: Any, path: str, shown: str, part: PartialFile, report: Callable[[int], object]) -> None:
    with place_errors(shown):
        opened = system.open(path, "rb", block_size=_BLOCK)
    _silence_thread(opened)
    with closing(opened):
        if part.size and not _seek(opened, part.size):
            part.reset(part.validators)
        report(part.size)
        here, size = part.size, part.validators.size
        try:
            while here != size and (chunk := _chunk(opened, here, size, shown)):
                part.write(chunk)
                here += len(chunk)
                report(here)
        finally:
            part.flush()


def _chunk(opened: Any, start: int, size: int, shown: str) -> bytes:
    with place_errors(shown):
        if size < 0 or not hasattr(opened, "readv"):
            return bytes(opened.read(_CHUNK))
        # paramiko's files: one request after the other would wait for each answer
        end = min(start + _CHUNK, size)
        wanted = [(offset, min(_SFTP_PIECE, end - offset)) for offset in range(start, end, _SFTP_PIECE)]
        return b"".join(opened.readv(wanted))


def _silence_thread(opened: Any) -> None:
    """Keep paramiko's own thread from printing a traceback when a connection breaks: the reader gets the error too."""
    prefetch = getattr(opened, "_prefetch_thread", None)
    if prefetch is None:
        return
    ssh_error: type[Exception] = import_module("paramiko").SSHException

    def silent(*arguments: Any) -> None:
        with suppress(OSError, EOFError, ssh_error):
            prefetch(*arguments)

    opened._prefetch_thread = silent


def _seek(opened: Any, position: int) -> bool:
    """Move to a position, and return whether that worked: not every place can."""
    try:
        opened.seek(position)
        return bool(opened.tell() == position)
    except (OSError, ValueError, NotImplementedError, AttributeError):
        return False
