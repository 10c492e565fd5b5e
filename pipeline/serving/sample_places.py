"""Where samples of requests are kept: a local folder, or a folder at an fsspec URL such as `s3://bucket/prefix`.

A sample is two files, named by the SHA-256 of the image: the image as it came, and a JSON file, which is written last
and removed first. Other files in the folder are left alone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import UsageError
from pipeline.files import write_atomically

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp"}
RECORD = ".json"

_NAME = re.compile(r"[0-9a-f]{64}\.(json|jpg|png|webp|bmp)")
_DRAFT = re.compile(r"\.[0-9a-f]{64}\.\w+\.\w+\.tmp")  # of a write that was cut off
_LOCK = ".lock"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PASSWORD = re.compile(r"[^:/?#@]*:[^@]*@", re.DOTALL)  # also one with a slash in it
_LOCAL = ("file", "local")
_NOT_WRITABLE = ("http", "https", "data", "zip", "tar", "memory")  # the last is another one in each process
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")  # one field, by file system


@dataclass(frozen=True)
class StoredFile:
    """A file of a sample."""

    name: str
    bytes: int
    modified: float  # seconds since 1970


class SamplePlace(Protocol):
    """A folder of samples."""

    url: str

    def turn(self) -> Any:
        """A context in which no other process of this machine writes, where the place has locks.

        It gives whether other processes have written since the last turn, as far as is known.
        """

    def files(self) -> list[StoredFile]:
        """The files of samples."""

    def read(self, name: str) -> bytes:
        """The content of a file; a `FileNotFoundError` if it has gone."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file, all or nothing."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def check_place(text: str) -> None:
    """Check the name of a place, without looking there.

    Raises:
        UsageError: It is a relative path, or a URL that holds credentials or cannot be written.
    """
    found = _URL.fullmatch(text)
    if found is None:
        if not Path(text).is_absolute():
            expected = "an absolute path, or a URL such as s3://bucket/prefix"
            raise UsageError("the folder of the samples is not absolute", where=text, expected=expected)
        return
    scheme, rest = found[1].lower(), found[2]
    if scheme in _LOCAL and not Path(rest).is_absolute():
        expected = "an absolute path, or a URL such as file:///folder or s3://bucket/prefix"
        raise UsageError("the folder of the samples is not absolute", where=text, expected=expected)
    if _PASSWORD.match(rest) or "?" in rest:
        raise UsageError(
            f"the {scheme} URL of the samples holds credentials or a query",
            expected="credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            remedy="remove them from the URL, and make new ones, since a log may hold these",
        )
    if scheme in _NOT_WRITABLE or "::" in text:
        raise UsageError(
            f"samples cannot be kept at a URL of kind '{scheme}'",
            where=text,
            expected="an absolute path, or a URL such as s3://bucket/prefix",
        )


def open_place(text: str, *, create: bool = False) -> SamplePlace:
    """Open a place of samples. A remote one is not asked for anything yet.

    Raises:
        UsageError: The name is wrong, a package for such URLs is missing, or a local folder is not there or, with
            `create`, cannot be written.
    """
    check_place(text)
    scheme, _, rest = text.partition("://")
    if not rest or scheme.lower() in _LOCAL:
        return LocalFolder(Path(rest or text), create=create)
    return RemoteFolder(text)


class LocalFolder:
    """A local folder, which only its owner can read; several processes take turns."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        self.url = str(folder)
        self._folder = folder
        self._turns = -1  # of all processes, at the end of this one's last
        try:
            if create:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                with self.turn():
                    self._remove_drafts()
            elif not folder.is_dir():
                raise UsageError("there is no such folder of samples", where=folder, remedy="check the path")
        except OSError as error:
            if isinstance(error, UsageError):
                raise
            problem = f"samples cannot be kept in this folder: {error.strerror}"
            raise UsageError(problem, where=folder, expected="a folder that the service may write") from error

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Wait for the turn of this process."""
        with (self._folder / _LOCK).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            file.seek(0)
            text = file.read()
            turns = int(text) if text.isdigit() else 0
            try:
                yield turns != self._turns
            finally:
                self._turns = turns + 1
                file.truncate(0)
                file.write(str(self._turns))
                file.flush()

    def files(self) -> list[StoredFile]:
        """The files of samples, without drafts."""
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        state = entry.stat()
                        found.append(StoredFile(entry.name, state.st_size, state.st_mtime))
        return found

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return (self._folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a file through a draft."""
        write_atomically(self._folder / name, content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        (self._folder / name).unlink(missing_ok=True)

    def _remove_drafts(self) -> None:
        for path in self._folder.iterdir():
            if _DRAFT.fullmatch(path.name):
                path.unlink(missing_ok=True)


class RemoteFolder:
    """A folder at an fsspec URL, whose single writes are atomic. Credentials come from the environment."""

    def __init__(self, url: str) -> None:
        import fsspec  # only where it is used

        for noisy in ("botocore", "aiobotocore", "s3fs", "fsspec"):
            logging.getLogger(noisy).setLevel(logging.WARNING)  # at lower levels they log credentials
        self.url = url.rstrip("/")
        try:
            self._fs: Any
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"samples cannot be kept there: {error}",
                where=url,
                expected="an absolute path, or a URL that fsspec knows",
                remedy="install the package it names, such as s3fs for s3://",
            ) from error

    @contextmanager
    def turn(self) -> Iterator[bool]:
        """Do not wait: there are no locks, and nobody tells of others."""
        yield False

    def files(self) -> list[StoredFile]:
        """The files of samples."""
        try:
            found = self._fs.ls(self._root, detail=True, refresh=True)
        except FileNotFoundError:
            return []
        files = []
        for entry in found:
            name = str(entry["name"]).rpartition("/")[2]
            if entry["type"] == "file" and _NAME.fullmatch(name):
                stamp = next((entry[key] for key in _TIMES if entry.get(key)), time.time())
                modified = stamp.timestamp() if isinstance(stamp, datetime) else float(stamp)
                files.append(StoredFile(name, int(entry["size"]), modified))
        return files

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return bytes(self._fs.cat_file(f"{self._root}/{name}"))

    def write(self, name: str, content: bytes) -> None:
        """Write a file in one request."""
        self._fs.pipe_file(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")
