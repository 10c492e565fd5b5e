"""Whole files by key: what an artifact store needs from local disk or from any fsspec URL.

A reader sees all of a file or none of it, and a file made with `create` is never overwritten. `local_files` and
`remote_files` implement it.
"""

from __future__ import annotations

import errno
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.errors import IntegrityError, PipelineError, StoreError

FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
MANY = 200  # items from which a progress bar is shown
SHARE = 16  # most items a thread takes at once: handing over a small file takes as long as hashing it
SHARES = 8  # least shares per thread, so that all threads end at about the same time

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FileInfo:
    """A listed file: its key, its bytes, and when it was last written, in seconds since 1970."""

    key: str
    size: int
    modified: float


class FileStore(ABC):
    """Files by key; a key is a relative POSIX path. Every method raises StoreError if the storage fails.

    Attributes:
        url: URL of the folder that keys are relative to, without a trailing slash.
        parallel: How many transfers at once are worthwhile.
    """

    url: str
    parallel: int

    @abstractmethod
    def create(self, key: str, content: bytes) -> bool:
        """Write a new file; an existing one stays as it is. The file is safe on disk on return.

        Of several writers of one key, one succeeds, and each learns which. A writer whose response was lost tells by
        the content that it succeeded, so contents that differ in meaning must differ in bytes.

        Args:
            key: The file.
            content: At least one byte.

        Returns:
            Whether the stored file now has this content.
        """

    @abstractmethod
    def replace(self, key: str, content: bytes) -> None:
        """Write a file, over an existing one too; only for what can be made again."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Content of a file; raises FileNotFoundError if it is absent."""

    @abstractmethod
    def info(self, key: str) -> FileInfo | None:
        """Size and time of a file, or None if it is absent."""

    @abstractmethod
    def names(self, key: str) -> list[str]:
        """Names directly below a folder, sorted; empty if it is absent."""

    @abstractmethod
    def find(self, key: str) -> Iterator[FileInfo]:
        """Every file at any depth below a folder, including unfinished files of killed writers."""

    @abstractmethod
    def upload(self, key: str, source: Path, sha256: str) -> None:
        """Copy a local file in; call `flush` to make it safe.

        Raises:
            IntegrityError: The local file no longer has this SHA-256.
        """

    @abstractmethod
    def download(self, key: str, target: Path, *, link: bool = False) -> None:
        """Copy a file out, or hard-link it read-only where possible and asked for; raises FileNotFoundError."""

    @abstractmethod
    def remove(self, key: str, before: float) -> bool:
        """Remove a file unless it was written or renewed at or after a time; whether it is gone."""

    @abstractmethod
    def set_aside(self, key: str, sha256: str) -> None:
        """Rename a damaged file to `KEY.damaged` if possible; one whose bytes have this SHA-256 again stays."""

    @abstractmethod
    def location(self, key: str) -> str:
        """Where a person finds a file: a URL, or a plain path on local disk."""

    def renew(self, key: str) -> bool:  # noqa: ARG002
        """Set a file's time to now, which protects it from garbage collection; False if it must be written again."""
        return False

    def prune(self, key: str) -> None:  # noqa: B027
        """Remove the empty folders at and below a key. An object store has none."""

    def flush(self, folders: Iterable[str]) -> None:  # noqa: B027
        """Make uploads to these folders safe against a loss of power. An object store's are safe at once."""

    def sha256(self, key: str) -> str:
        """SHA-256 of a file; raises FileNotFoundError if it is absent."""
        return hashlib.sha256(self.read(key)).hexdigest()

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        return self.info(key) is not None

    def each(self, call: Callable[[_Item], _Result], items: Iterable[_Item], label: str) -> list[_Result]:
        """Call a function for each item, several at once, and return the results in order.

        After the first error, what has not begun is cancelled.

        Args:
            call: The function.
            items: Its arguments.
            label: What is done, for the progress bar of many items.
        """
        waiting = list(items)
        if len(waiting) < 2:
            return [call(item) for item in waiting]
        size = max(1, min(SHARE, len(waiting) // (self.parallel * SHARES)))
        shares = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        with ThreadPoolExecutor(min(self.parallel, len(shares))) as pool:
            try:
                done = pool.map(lambda share: [call(item) for item in share], shares)
                return [result for results in _with_progress(done, label, len(waiting)) for result in results]
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _with_progress(results: Iterator[list[_Result]], label: str, total: int) -> Iterator[list[_Result]]:
    if total < MANY:
        yield from results
        return
    from tqdm import tqdm

    with tqdm(None, label, total, unit="file", mininterval=0.5, delay=2, ascii=True) as bar:
        for share in results:
            bar.update(len(share))
            yield share


def changed_meanwhile(source: Path) -> IntegrityError:
    """The error for a file that changed between hashing and storing."""
    return IntegrityError("the file changed while it was being stored", where=source, remedy="run the step again")


@contextmanager
def storage_errors(action: str, where: str) -> Iterator[None]:
    """Turn any error of the storage into a StoreError, except that a file is absent or present.

    Args:
        action: Completes "the store could not ...".
        where: The file or folder.
    """
    try:
        yield
    except (FileNotFoundError, FileExistsError, PipelineError):
        raise
    except Exception as error:  # the libraries of each URL scheme raise kinds of their own
        raise _store_error(action, where, error) from error


def _store_error(action: str, where: str, error: Exception) -> StoreError:
    number = error.errno if isinstance(error, OSError) else None
    if number in FULL:
        remedy = "make room, and run the same command again; python -m pipeline gc tells what no run refers to"
    elif number in REFUSED or isinstance(error, PermissionError) or "credentials" in str(error).lower():
        remedy = "check the folder's permissions, or the credentials in the environment, and run the same command again"
    else:
        remedy = "see that the store can be reached, and run the same command again: finished work is kept"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return StoreError(f"the store could not {action}: {reason}", where=where, remedy=remedy)
