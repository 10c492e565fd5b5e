"""Files on local disk: written under a temporary name, flushed, then named."""

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
from pipeline.runtime.store.file_store import CHUNK, FileInfo, Files, changed, reaching, sha256_of

NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK}


class LocalFiles(Files):
    """Files below a folder.

    Args:
        root: The folder; made when the first file is.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.url = self._root.as_uri()
        self.parallel = min(32, (os.cpu_count() or 1) * 4)  # a thread that waits for the disk needs no core

    def create(self, key: str, content: bytes) -> bool:
        target = self._root / key
        with self._writing(key) as partial:
            _write(partial, content)
            try:
                os.link(partial, target)  # unlike a rename it refuses when the name is taken
            except FileExistsError:
                return self.read(key) == content
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._create_without_links(target, content)
            _flush_folder(target.parent)
        return True

    @staticmethod
    def _create_without_links(target: Path, content: bytes) -> bool:
        """As far as a file system without hard links goes: the name is ours alone, yet a kill may leave a cut file."""
        try:
            _write(target, content)
        except FileExistsError:
            return target.read_bytes() == content
        except OSError:
            target.unlink(missing_ok=True)  # the name is ours; half a file under it would be taken for another's
            raise
        _flush_folder(target.parent)
        return True

    def replace(self, key: str, content: bytes) -> None:
        with self._writing(key) as partial:
            _write(partial, content)
            partial.replace(self._root / key)

    def read(self, key: str) -> bytes:
        with reaching("read a file", self.location(key)):
            return (self._root / key).read_bytes()

    def sha256(self, key: str) -> str:
        with reaching("read a file", self.location(key)):
            return sha256_of(self._root / key)

    def info(self, key: str) -> FileInfo | None:
        with reaching("look at a file", self.location(key)):
            try:
                found = os.stat(self.location(key))  # noqa: PTH116  asked of thousands: a Path takes longer than the look
            except FileNotFoundError:
                return None
        return FileInfo(key, found.st_size, found.st_mtime) if stat.S_ISREG(found.st_mode) else None

    def names(self, key: str) -> list[str]:
        with reaching("list a folder", self.location(key)):
            try:
                return sorted(path.name for path in (self._root / key).iterdir() if path.name[0] != ".")
            except FileNotFoundError:
                return []

    def find(self, key: str) -> Iterator[FileInfo]:
        with reaching("list a folder", self.location(key)):
            for folder, _, names in os.walk(self._root / key):
                for name in sorted(names):
                    path = Path(folder, name)
                    with suppress(FileNotFoundError):  # it has just been named, or removed
                        found = path.lstat()
                        yield FileInfo(path.relative_to(self._root).as_posix(), found.st_size, found.st_mtime)

    def upload(self, key: str, source: Path, sha256: str) -> None:
        with self._writing(key) as partial:
            if _copy(source, partial) != sha256:
                raise changed(source)
            partial.replace(self._root / key)

    def download(self, key: str, target: Path, *, link: bool = False) -> None:
        with reaching("lay out a file", str(target)):
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
        except (FileNotFoundError, PermissionError):  # another user's can be replaced, not renewed
            return False
        return True

    def remove(self, key: str, before: float) -> bool:
        """Takes the name away, and looks at the time once more then: who renews a file after that, finds it gone."""
        path = self._root / key
        taken = path.with_name(f".{secrets.token_hex(8)}")
        with reaching("remove a file", str(path)):
            try:
                if path.stat().st_mtime >= before:
                    return False
                path.rename(taken)
            except FileNotFoundError:
                return True
            if taken.stat().st_mtime >= before:
                with suppress(FileExistsError):  # written again meanwhile
                    os.link(taken, path)
                taken.unlink()
                return False
            taken.unlink()
        return True

    def prune(self, key: str) -> None:
        for folder, _, _ in os.walk(self._root / key, topdown=False):
            with suppress(OSError):  # it is not empty
                Path(folder).rmdir()

    def set_aside(self, key: str, sha256: str) -> None:
        path = self._root / key
        taken = path.with_name(f".{secrets.token_hex(8)}")
        with suppress(OSError):  # someone else did it, or the disk is read-only
            path.rename(taken)
            if sha256_of(taken) == sha256:  # written anew since it was found damaged
                with suppress(FileExistsError):
                    os.link(taken, path)
                taken.unlink()
            else:
                taken.replace(f"{path}.damaged")

    def flush(self, folders: Iterable[str]) -> None:
        with reaching("flush a folder", self.location("")):
            for folder in folders:
                _flush_folder(self._root / folder)

    def location(self, key: str) -> str:
        return f"{self._root}/{key}" if key else str(self._root)

    @contextmanager
    def _writing(self, key: str) -> Iterator[Path]:
        """A name beside the file's own that no listing shows; gone afterwards."""
        target = self._root / key
        with reaching("write a file", str(target)):
            try:
                _make_folder(target.parent)
            except FileNotFoundError as error:  # such as below /proc
                raise StoreError(f"the store's folder cannot be made: {error.strerror}", where=target.parent) from error
            partial = target.with_name(f".{secrets.token_hex(8)}")
            try:
                yield partial
            finally:
                with suppress(OSError):  # the disk has become read-only
                    partial.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make a folder, its name safe in the one above it."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush_folder(folder.parent)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _copy(source: Path, target: Path) -> str:
    """Copy and flush a file, to be read only; the digest is of what was written."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
    return digest.hexdigest()
