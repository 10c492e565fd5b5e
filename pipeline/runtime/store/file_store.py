"""Whole files by key: what an artifact store needs from a place, and local disk as such a place.

A reader sees all of a file or none of it, and a file made with `create` is never overwritten.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipeline.errors import IntegrityError, PipelineError, StoreError
from pipeline.files import sha256_of, sync_folder

CHUNK = 1 << 20  # bytes copied at once
FULL = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}
NO_FOLDER = {errno.ENOENT, errno.EEXIST, errno.ENOTDIR}  # a file in its place or above it, or a place such as /proc
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}
MANY = 200  # items from which a progress bar is shown
SHARE = 16  # of many items, those a thread takes at once: handing over a small file takes as long as hashing it

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FileInfo:
    """A listed file: its key, its bytes, and when it was last written, in seconds since 1970."""

    key: str
    size: int
    modified: float


class Transfers:
    """What both kinds of place share."""

    url: str  # of the folder that keys are relative to, without a trailing slash
    parallel: int  # transfers at once that are worthwhile

    def each(self, call: Callable[[_Item], _Result], items: Iterable[_Item], label: str) -> list[_Result]:
        """Call a function for each item, several at once, and return the results in order.

        After the first error, what has not begun is cancelled. `label` stands at the progress bar of many items.
        """
        waiting = list(items)
        if len(waiting) < 2:
            return [call(item) for item in waiting]
        is_many = len(waiting) >= MANY
        size = SHARE if is_many else 1
        shares = [waiting[start : start + size] for start in range(0, len(waiting), size)]
        with ThreadPoolExecutor(min(self.parallel, len(shares))) as pool:
            done = pool.map(lambda share: [call(item) for item in share], shares)
            results: Iterable[_Result] = (result for of_share in done for result in of_share)
            if is_many:
                from tqdm import tqdm

                results = tqdm(results, label, len(waiting), unit="file", mininterval=0.5, delay=2, ascii=True)
            return list(results)


class LocalFiles(Transfers):
    """Files below a folder: written under a temporary name, flushed, then renamed or linked to their own.

    A key is a relative POSIX path. Reading an absent file raises FileNotFoundError, a failing place StoreError.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.url = self._root.as_uri()
        self.parallel = min(32, (os.cpu_count() or 1) * 4)  # a thread that waits for the disk needs no core

    def create(self, key: str, content: bytes) -> bool:
        """Write a new file, safe on disk on return; an existing one stays. Whether the stored content is this one.

        A writer whose response was lost tells by it that it succeeded: contents of other meaning need other bytes.
        """
        target = self._root / key
        with self._draft(key) as draft:
            _write(draft, content)
            try:
                try:
                    os.link(draft, target)  # unlike a rename it refuses a name that is taken
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    _write_exclusively(target, content)
            except FileExistsError:
                return target.read_bytes() == content
            sync_folder(target.parent)
        return True

    def replace(self, key: str, content: bytes) -> None:
        """Write a file, over an existing one too; only for what can be made again."""
        with self._draft(key) as draft:  # no write_atomically: a lost rename leaves the older file, which will do
            _write(draft, content)
            draft.replace(self._root / key)

    def read(self, key: str) -> bytes:
        """Content of a file."""
        with storage_errors("read a file", self.location(key)):
            return (self._root / key).read_bytes()

    def sha256(self, key: str) -> str:
        """SHA-256 of a file."""
        with storage_errors("read a file", self.location(key)):
            return sha256_of(self._root / key)

    def info(self, key: str) -> FileInfo | None:
        """Size and time of a file, or None if it is absent."""
        with storage_errors("look at a file", self.location(key)):
            try:
                found = os.stat(self.location(key))  # noqa: PTH116  called for thousands: a Path takes longer
            except FileNotFoundError:
                return None
        return FileInfo(key, found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None

    def exists(self, key: str) -> bool:
        """Whether a file is there."""
        return self.info(key) is not None

    def names(self, key: str) -> list[str]:
        """Names directly below a folder, sorted; empty if it is absent."""
        with storage_errors("list a folder", self.location(key)):
            try:
                return sorted(path.name for path in (self._root / key).iterdir() if path.name[0] != ".")
            except FileNotFoundError:
                return []

    def find(self, key: str) -> Iterator[FileInfo]:
        """Every file at any depth below a folder, including unfinished files of killed writers."""
        with storage_errors("list a folder", self.location(key)):
            for folder, _, names in os.walk(self._root / key):
                for path in (Path(folder, name) for name in sorted(names)):
                    with suppress(FileNotFoundError):  # renamed or removed just now
                        found = path.lstat()
                        yield FileInfo(path.relative_to(self._root).as_posix(), found.st_size, found.st_mtime)

    def upload(self, key: str, source: Path, sha256: str) -> None:
        """Copy in a local file, which must still have this SHA-256; `flush` makes it safe against a loss of power."""
        digest = hashlib.sha256()
        with self._draft(key) as draft:
            with source.open("rb") as reader, draft.open("xb") as writer:
                while chunk := reader.read(CHUNK):
                    digest.update(chunk)
                    writer.write(chunk)
                writer.flush()
                os.fchmod(writer.fileno(), 0o444)
                os.fsync(writer.fileno())
            if digest.hexdigest() != sha256:
                raise changed_meanwhile(source)
            draft.replace(self._root / key)

    def download(self, key: str, target: Path, *, link: bool = False) -> None:
        """Copy a file out, or hard-link it read-only where possible and asked for."""
        with storage_errors("write a file", str(target)):
            try:
                if link:
                    os.link(self._root / key, target)
                    return
            except OSError as error:  # another file system, one without links, or too many links
                if error.errno not in NO_LINKS:
                    raise
            shutil.copyfile(self._root / key, target)

    def renew(self, key: str) -> bool:
        """Set a file's time to now, which protects it from collection; False if it must be written again."""
        try:
            os.utime(self._root / key)
        except (FileNotFoundError, PermissionError):  # another user's file can be replaced, not renewed
            return False
        return True

    def remove(self, key: str, before: float) -> bool:
        """Remove a file unless it was written or renewed at or after a time; whether it is gone."""
        path = self._root / key  # it is renamed away, then its time checked again: who renews it later finds it gone
        with storage_errors("remove a file", str(path)):
            try:
                if path.stat().st_mtime >= before:
                    return False
                taken = _rename_away(path)
            except FileNotFoundError:
                return True
            renewed = taken.stat().st_mtime >= before
            if renewed:
                with suppress(FileExistsError):  # written again meanwhile
                    os.link(taken, path)
            taken.unlink()
        return not renewed

    def prune(self, key: str) -> None:
        """Remove the empty folders at and below a key."""
        for folder, _, _ in os.walk(self._root / key, topdown=False):
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()

    def set_aside(self, key: str, sha256: str) -> None:
        """Rename a damaged file to `KEY.damaged` if possible; one whose bytes have this SHA-256 again stays."""
        path = self._root / key
        with suppress(OSError):  # another process did it, or the disk is read-only
            taken = _rename_away(path)
            if sha256_of(taken) == sha256:  # written again since it was found damaged
                with suppress(FileExistsError):
                    os.link(taken, path)
                taken.unlink()
            else:
                taken.replace(f"{path}.damaged")

    def flush(self, folders: Iterable[str]) -> None:
        """Make uploads to these folders safe against a loss of power."""
        with storage_errors("flush a folder", self.location("")):
            for folder in folders:
                sync_folder(self._root / folder)

    def location(self, key: str) -> str:
        """Where a person finds a file."""
        return f"{self._root}/{key}" if key else str(self._root)

    @contextmanager
    def _draft(self, key: str) -> Iterator[Path]:
        """A path beside the file, hidden from listings and removed afterwards."""
        target = self._root / key
        with storage_errors("make a folder", str(target.parent), usual=()):
            _make_folder(target.parent)
        with storage_errors("write a file", str(target)):
            draft = target.with_name(f".{secrets.token_hex(8)}")
            try:
                yield draft
            finally:
                with suppress(OSError):  # the disk has become read-only
                    draft.unlink(missing_ok=True)


def _write_exclusively(target: Path, content: bytes) -> None:
    """Without hard links a kill may leave a cut file; see the package's docstring."""
    try:
        _write(target, content)
    except FileExistsError:
        raise
    except OSError:
        target.unlink(missing_ok=True)  # a later reader would take half a file for another writer's
        raise


def _rename_away(path: Path) -> Path:
    return path.rename(path.with_name(f".{secrets.token_hex(8)}"))


def _make_folder(folder: Path) -> None:
    """Make a folder whose name is safe in its parent."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def changed_meanwhile(source: Path) -> IntegrityError:
    """The error for a file that changed between hashing and storing."""
    return IntegrityError("the file changed while it was being stored", where=source, remedy="run the step again")


@contextmanager
def storage_errors(
    action: str, where: str, usual: tuple[type[OSError], ...] = (FileNotFoundError, FileExistsError)
) -> Iterator[None]:
    """Turn any error into a StoreError, "the store could not `action`", except the `usual` ones and our own."""
    try:
        yield
    except Exception as error:  # the libraries of each URL scheme raise kinds of their own
        if isinstance(error, (*usual, PipelineError)):
            raise
        number = error.errno if isinstance(error, OSError) else None
        remedy = "see that the store can be reached, and run the same command again: finished work is kept"
        if number in FULL:
            remedy = "make room, and run the same command again; python -m pipeline gc tells what no run refers to"
        elif number in NO_FOLDER:
            remedy = "name a folder that can be made, as `store` in the config"
        elif number in REFUSED or isinstance(error, PermissionError) or "credentials" in str(error).lower():
            remedy = "check the folder's permissions, or the credentials in the environment, and run it again"
        reason = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
        raise StoreError(f"the store could not {action}: {reason}", where=where, remedy=remedy) from error
