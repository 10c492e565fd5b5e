"""The index of an artifact: path, size and SHA-256 of each of its files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.errors import DataError, IntegrityError, MissingError

DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class StoredFile:
    """One file of an artifact: POSIX path below the artifact's folder, bytes, SHA-256."""

    path: str
    size: int
    sha256: str

    @property
    def key(self) -> str:
        """Key of the file's bytes in a store."""
        return f"objects/{self.sha256[:2]}/{self.sha256}"


def write_index(files: list[StoredFile]) -> bytes:
    """Canonical bytes: the same folder gives the same index anywhere, and so the same digest."""
    entries = [vars(file) for file in files]
    return (json.dumps({"files": entries}, indent=0, ensure_ascii=False, sort_keys=True) + "\n").encode()


def read_index(content: bytes, where: str) -> list[StoredFile]:
    """Read an index, which may be forged: a right digest is no proof.

    Args:
        content: The index.
        where: Its location, for the error.

    Raises:
        IntegrityError: It names no file, a path outside the artifact's folder, or one path twice.
    """
    try:
        files = [StoredFile(**entry) for entry in json.loads(content)["files"]]
        names = {str(PurePosixPath(file.path)) for file in files}
        plain = all(_is_safe(file.path) and DIGEST.fullmatch(file.sha256) and file.size >= 0 for file in files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"an index cannot be read: {error}", where=where) from error
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    if not files or not plain or len(names) != len(files) or names & folders:
        raise IntegrityError("an index names no path, one outside its artifact, or one twice", where=where)
    return files


def _is_safe(path: str) -> bool:
    parts = PurePosixPath(path)
    plain = bool(parts.parts) and str(parts) == path and "\0" not in path
    return plain and not parts.is_absolute() and ".." not in parts.parts


def regular_files(folder: Path) -> Iterator[str]:
    """The files at any depth of a folder that is to be stored, as POSIX paths below it.

    Raises:
        MissingError: The folder is absent.
        DataError: It holds a link, a special file, a name that is not Unicode, or a folder that cannot be read.
    """
    if not folder.is_dir():
        raise MissingError("there is no folder to store", where=folder)
    yield from _files_below(str(folder), "")


def _files_below(folder: str, prefix: str) -> Iterator[str]:
    try:
        scanned = os.scandir(folder)  # it reports the kind of most entries without a stat of each
    except OSError as error:
        raise DataError(
            f"a folder cannot be read: {error.strerror}", where=folder, remedy="correct its permissions"
        ) from error
    with scanned as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
                raise DataError(
                    "an artifact holds plain files and folders only",
                    where=entry.path,
                    expected="no links, no special files",
                    remedy="write the file itself into the output folder",
                )
            try:
                entry.name.encode()
            except UnicodeEncodeError as error:
                raise DataError("a file's name is not Unicode", where=ascii(entry.path), remedy="rename it") from error
            if entry.is_dir():
                yield from _files_below(entry.path, f"{name}/")
            else:
                yield name
