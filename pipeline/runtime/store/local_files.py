"""Files on local disk: written under a temporary name, flushed, then renamed or linked to their own."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import StoreError
from pipeline.files import sha256_of, sync_folder
from pipeline.runtime.store.file_store import FileInfo, FileStore, changed_meanwhile, storage_errors

CHUNK = 1 << 20  # bytes copied at once
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class LocalFiles(FileStore):
    """Files below a folder.

    Args:
        root: The folder; created with its first file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.url = self._root.as_uri()
        self.parallel = min(32, (os.cpu_count() or 1) * 4)  # a thread that waits for the disk needs no core

    def create(self, key: str, content: bytes) -> bool:
        target = self._root / key
        with self._draft(key) as draft:
            _write(draft, content)
            try:
                os.link(draft, target)  # unlike a rename it refuses a name that is taken
            except FileExistsError:
                return self.read(key) == content
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._create_without_links(target, content)
            sync_folder(target.parent)
        return True

    @staticmethod
    def _create_without_links(target: Path, content: bytes) -> bool:
        """Where the file system has no hard links, the name is still exclusive, but a kill may leave a cut file."""
        try:
            _write(target, content)
        except FileExistsError:
            return target.read_bytes() == content
        except OSError:
            target.unlink(missing_ok=True)  # a later reader would take half a file for another writer's
            raise
        sync_folder(target.parent)
        return True

    def replace(self, key: str, content: bytes) -> None:
        with self._draft(key) as draft:  # no write_atomically: a lost rename leaves the older file, which will do
            _write(draft, content)
            draft.replace(self._root / key)

    def read(self, key: str) -> bytes:
        with storage_errors("read a file", self.location(key)):
            return (self._root / key).read_bytes()

    def sha256(self, key: str) -> str:
        with storage_errors("read a file", self.location(key)):
            return sha256_of(self._root / key)

    def info(self, key: str) -> FileInfo | None:
        with storage_errors("look at a file", self.location(key)):
            try:
                found = os.stat(self.location(key))  # noqa: PTH116  called for thousands: a Path takes longer
            except FileNotFoundError:
                return None
        return FileInfo(key, found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None

    def names(self, key: str) -> list[str]:
        with storage_errors("list a folder", self.location(key)):
            try:
                return sorted(path.name for path in (self._root / key).iterdir() if path.name[0] != ".")
            except FileNotFoundError:
                return []

    def find(self, key: str) -> Iterator[FileInfo]:
        with storage_errors("list a folder", self.location(key)):
            for folder, _, names in os.walk(self._root / key):
                for path in (Path(folder, name) for name in sorted(names)):
                    with suppress(FileNotFoundError):  # renamed or removed just now
                        found = path.lstat()
                        yield FileInfo(path.relative_to(self._root).as_posix(), found.st_size, found.st_mtime)

    def upload(self, key: str, source: Path, sha256: str) -> None:
        with self._draft(key) as draft:
            if _copy(source, draft) != sha256:
                raise changed_meanwhile(source)
            draft.replace(self._root / key)

    def download(self, key: str, target: Path, *, link: bool = False) -> None:
        with storage_errors("write a file", str(target)):
            if link:
                try:
                    os.link(self._root / key, target)
                except FileNotFoundError:
                    raise
                except OSError as error:  # another file system, one without links, or too many links
                    if error.errno not in NO_LINKS:
                        raise
                else:
                    return
            shutil.copyfile(self._root / key, target)

    def renew(self, key: str) -> bool:
        try:
            os.utime(self._root / key)
        except (FileNotFoundError, PermissionError):  # another user's file can be replaced, not renewed
            return False
        return True

    def remove(self, key: str, before: float) -> bool:
        """Rename the file away, then check its time again: whoever renews it after that finds it gone."""
        path = self._root / key
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
        for folder, _, _ in os.walk(self._root / key, topdown=False):
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()

    def set_aside(self, key: str, sha256: str) -> None:
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
        with storage_errors("flush a folder", self.location("")):
            for folder in folders:
                sync_folder(self._root / folder)

    def location(self, key: str) -> str:
        return f"{self._root}/{key}" if key else str(self._root)

    @contextmanager
    def _draft(self, key: str) -> Iterator[Path]:
        """A path beside the file, hidden from listings and removed afterwards."""
        target = self._root / key
        with storage_errors("write a file", str(target)):
            try:
                _make_folder(target.parent)
            except FileNotFoundError as error:  # such as below /proc
                raise StoreError(f"the store's folder cannot be made: {error.strerror}", where=target.parent) from error
            draft = target.with_name(f".{secrets.token_hex(8)}")
            try:
                yield draft
            finally:
                with suppress(OSError):  # the disk has become read-only
                    draft.unlink(missing_ok=True)


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


def _copy(source: Path, target: Path) -> str:
    """Copy, flush and write-protect a file; returns the SHA-256 of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
    return digest.hexdigest()
