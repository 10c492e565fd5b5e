"""Whole files by key: what a store needs of the place it lies in, on local disk or behind any fsspec URL.

A reader sees all of a file or none of it, and a file made with `create` is never overwritten. The two kinds of place
are `local_files` and `remote_files`.
"""

from __future__ import annotations

import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import IntegrityError, PipelineError, StoreError

CHUNK = 1 << 20  # bytes copied at once
FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class FileInfo:
    """A file as a listing shows it: its key, bytes, and when it was last written, in seconds since 1970."""

    key: str
    size: int
    modified: float


class Files(ABC):
    """Files by key; a key is a relative POSIX path.

    Every method raises StoreError where the place does not do what is asked.

    Attributes:
        url: Of the folder the keys are relative to, without a trailing slash.
        parallel: How many transfers at once are worthwhile.
    """

    url: str
    parallel: int

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write a file that is not there yet; one that is there stays as it is. Safe on disk when it returns.

        Of several writers of one key one has its content there, and each learns whether it is that one. So that a
        writer can tell after an answer was lost on the way, contents that differ in meaning must differ in bytes.

        Args:
            key: Where.
            content: At least one byte.

        Returns:
            Whether what lies there now is this content.
        """

    @abstractmethod
    def replace(self, key: str, content: bytes) -> None:
        """Write a file over the one that is there; only for what can be made again."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """All of a file; FileNotFoundError where there is none."""

    @abstractmethod
    def info(self, key: str) -> FileInfo | None:
        """Size and time, or None where there is no such file."""

    @abstractmethod
    def names(self, key: str) -> list[str]:
        """Names directly below a folder, sorted; empty where there is no folder."""

    @abstractmethod
    def find(self, key: str) -> Iterator[FileInfo]:
        """Every file at any depth below a folder; of a killed writer's unfinished ones too."""

    @abstractmethod
    def upload(self, key: str, source: Path, sha256: str) -> None:
        """Copy a local file in; `flush` makes it safe.

        Raises:
            IntegrityError: The file is no longer what `sha256` says.
        """

    @abstractmethod
    def download(self, key: str, target: Path, *, link: bool = False) -> None:
        """Lay a file out locally; FileNotFoundError where there is none.

        Args:
            key: Which.
            target: Where.
            link: Share the stored bytes, read-only, where that can be done.
        """

    @abstractmethod
    def renew(self, key: str) -> bool:
        """Make a file count as just written, so that no collection takes it; False where it has to be written again."""

    @abstractmethod
    def remove(self, key: str, before: float) -> bool:
        """Remove a file unless it was written, or renewed, at or after a time; whether it is gone."""

    @abstractmethod
    def prune(self, key: str) -> None:
        """Remove a folder that nobody writes to any more, if no file is left in it."""

    @abstractmethod
    def set_aside(self, key: str, sha256: str) -> None:
        """Take a damaged file's name away, if that can be done.

        Args:
            key: Which.
            sha256: What its bytes should be; one that has been written anew by now stays.
        """

    @abstractmethod
    def flush(self, folders: Iterable[str]) -> None:
        """Make what was uploaded to these folders safe against a loss of power."""

    @abstractmethod
    def location(self, key: str) -> str:
        """Where a person finds a file: a URL, or a plain path on local disk."""

    def sha256(self, key: str) -> str:
        """Hex SHA-256 of a file's bytes; FileNotFoundError where there is none."""
        return hashlib.sha256(self.read(key)).hexdigest()

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        return self.info(key) is not None


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb", buffering=0) as stream:  # it is read in large pieces anyway
        return hashlib.file_digest(stream, "sha256").hexdigest()


def changed(source: Path) -> IntegrityError:
    """A file differs from what it was a moment ago."""
    return IntegrityError("the file changed while it was being stored", where=source, remedy="run the step again")


@contextmanager
def reaching(action: str, where: str) -> Iterator[None]:
    """Give what a place may fail with one form; that a file is there or not is no failure.

    Args:
        action: What is being done, as in "could not ...".
        where: To what.

    Raises:
        StoreError: In place of any other error.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, PipelineError):
        raise
    except Exception as error:  # the libraries behind a URL raise kinds of their own
        raise _failure(action, where, error) from error


def _failure(action: str, where: str, error: Exception) -> StoreError:
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        remedy = "make room, and run the same command again; python -m pipeline gc tells what no run refers to"
    elif number in REFUSED or isinstance(error, PermissionError) or "credentials" in str(error).lower():
        remedy = "check the folder's permissions, or the credentials in the environment, and run the same command again"
    else:
        remedy = "see that the store can be reached, and run the same command again: what is done is kept"
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return StoreError(f"the store could not {action}: {said}", where=where, remedy=remedy)
