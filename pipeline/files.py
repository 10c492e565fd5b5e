"""Whole files by key, on local disk or behind any fsspec URL; what `store` and `manifest` are built on.

A reader sees all of a file or none of it, and a file made with `create` is never overwritten.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from pipeline.errors import IntegrityError, UsageError

CHUNK = 1 << 20  # bytes copied at once


def open_files(url: str) -> Files:
    """The files below a local path, `file://` URL, or any URL that fsspec knows.

    Raises:
        UsageError: fsspec does not know the URL, or lacks the package for it.
    """
    if url.startswith("file://"):
        return _LocalFiles(Path(unquote(url.removeprefix("file://").removeprefix("localhost"))))
    return _FsspecFiles(url) if "://" in url else _LocalFiles(Path(url))


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Files(ABC):
    """Files by key; a key is a relative POSIX path.

    Attributes:
        url: Of the folder the keys are relative to, without a trailing slash.
    """

    url: str

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write a file, or leave the one that is there; True when this call made it. Safe on disk when it returns."""

    @abstractmethod
    def replace(self, key: str, content: bytes) -> None:
        """Write a file over the one that is there; only for what can be made again."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """All of a file; FileNotFoundError where there is none."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Bytes, or None where there is no such file."""

    @abstractmethod
    def names(self, key: str) -> list[str]:
        """Names directly below a folder, sorted; empty where there is no folder."""

    @abstractmethod
    def upload(self, key: str, source: Path, sha256: str) -> None:
        """Copy a local file in; `flush` makes its name safe."""

    @abstractmethod
    def download(self, key: str, target: Path) -> None:
        """Lay a file out locally, read-only where it can be shared; FileNotFoundError where there is none."""

    @abstractmethod
    def set_aside(self, key: str) -> None:
        """Take a damaged file's name away, if that can be done."""

    @abstractmethod
    def flush(self, folders: Iterable[str]) -> None:
        """Make names in these folders as safe as the bytes they stand for."""

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        return self.size(key) is not None

    def location(self, key: str) -> str:
        """Where a person finds a file: a URL, or a plain path on local disk."""
        return f"{self.url}/{key}"


class _LocalFiles(Files):
    """Files on local disk: written under a temporary name, flushed, then named."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.url = self._root.as_uri()

    def create(self, key: str, content: bytes) -> bool:
        with self._partial(key) as partial:
            with partial.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(partial, self._root / key)
            except FileExistsError:
                return False
        self.flush([str(PurePosixPath(key).parent)])
        return True

    def replace(self, key: str, content: bytes) -> None:
        with self._partial(key) as partial:
            partial.write_bytes(content)
            partial.replace(self._root / key)

    def read(self, key: str) -> bytes:
        return (self._root / key).read_bytes()

    def size(self, key: str) -> int | None:
        try:
            found = (self._root / key).stat()
        except FileNotFoundError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def names(self, key: str) -> list[str]:
        try:
            return sorted(entry.name for entry in (self._root / key).iterdir() if not entry.name.startswith("."))
        except FileNotFoundError:
            return []

    def upload(self, key: str, source: Path, sha256: str) -> None:
        with self._partial(key) as partial:
            if _copy(source, partial) != sha256:
                raise _changed(source)
            partial.chmod(0o444)
            partial.replace(self._root / key)

    def download(self, key: str, target: Path) -> None:
        try:
            os.link(self._root / key, target)
        except FileNotFoundError:
            raise
        except OSError:  # another file system, one without links, or too many links
            shutil.copyfile(self._root / key, target)

    def set_aside(self, key: str) -> None:
        with suppress(OSError):  # someone else did it, or the disk is read-only
            (self._root / key).replace(self._root / f"{key}.damaged")

    def flush(self, folders: Iterable[str]) -> None:
        for folder in folders:
            handle = os.open(self._root / folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def location(self, key: str) -> str:
        return str(self._root / key)

    @contextmanager
    def _partial(self, key: str) -> Iterator[Path]:
        """A name beside the file's own that no listing shows; gone afterwards."""
        target = self._root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{secrets.token_hex(8)}")
        try:
            yield partial
        finally:
            partial.unlink(missing_ok=True)


class _FsspecFiles(Files):
    """Files behind an fsspec URL, whose single writes are whole by themselves."""

    def __init__(self, url: str) -> None:
        import fsspec  # imported late: local disk, the usual place, does without

        self.url = url.rstrip("/")
        try:
            # no listing is remembered: another process may have written since
            self._fs: Any
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"the store cannot be reached: {error}",
                where=url,
                expected="a local path, or a URL that fsspec knows",
                remedy="install the package it names, such as s3fs for s3://",
            ) from error

    def create(self, key: str, content: bytes) -> bool:
        try:
            self._fs.pipe_file(self._path(key), content, mode="create")
        except FileExistsError:
            return False
        return True

    def replace(self, key: str, content: bytes) -> None:
        self._fs.pipe_file(self._path(key), content)

    def read(self, key: str) -> bytes:
        content: bytes = self._fs.cat_file(self._path(key))
        return content

    def size(self, key: str) -> int | None:
        try:
            found = self._fs.info(self._path(key))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None

    def names(self, key: str) -> list[str]:
        try:
            found = self._fs.ls(self._path(key), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(name).name for name in found)

    def upload(self, key: str, source: Path, sha256: str) -> None:
        self._fs.put_file(str(source), self._path(key))
        if sha256_of(source) != sha256:
            self.set_aside(key)
            raise _changed(source)

    def download(self, key: str, target: Path) -> None:
        self._fs.get_file(self._path(key), str(target))

    def set_aside(self, key: str) -> None:
        with suppress(OSError):
            self._fs.mv(self._path(key), self._path(f"{key}.damaged"))

    def flush(self, folders: Iterable[str]) -> None:
        """Nothing to do: an object has its name when the write returns."""

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"


def _changed(source: Path) -> IntegrityError:
    return IntegrityError("the file changed while it was being stored", where=source, remedy="run the step again")


def _copy(source: Path, target: Path) -> str:
    """Copy and flush a file; the digest is of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()
