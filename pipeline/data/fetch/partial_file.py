"""An unfinished download: one writer at a time, what arrived is kept for the next try, and one rename finishes it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from pipeline.errors import DataError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validators:
    """A server's marks of a file's version (RFC 9110, section 8.8) and its size in bytes; -1 where it is unknown."""

    etag: str = ""
    last_modified: str = ""
    size: int = -1

    @property
    def conditions(self) -> dict[str, str]:
        """Request headers that ask for the file only when it has changed."""
        headers = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in headers.items() if value}

    @property
    def if_range(self) -> str:
        """The value of `If-Range`; empty where there is none: a weak ETag does not identify bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def same_version(self, other: Validators) -> bool:
        """Whether both certainly mean the same bytes; without an ETag or a date nothing is certain."""
        return bool(self.etag or self.last_modified) and self == other


@dataclass
class PartialFile:
    """The file `<target>.part` under a lock, with its version in `<target>.part.json`. Use as a context manager.

    Attributes:
        target: The finished file.
        key: Identifies the source: bytes of another one are never continued.
        validators: The version that the bytes are of.
    """

    target: Path
    key: str
    validators: Validators = field(default_factory=Validators)

    def __enter__(self) -> PartialFile:
        self.path = self.target.with_name(self.target.name + ".part")
        self._state = self.target.with_name(self.target.name + ".part.json")
        self._file = lock(self.path)
        self._is_kept = True
        self._restore()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_kept and self.size == 0:
            self.discard()
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end.

        Raises:
            DataError: The disk refuses them.
        """
        with self._writing():
            self._file.write(chunk)

    def flush(self) -> None:
        """Hand the bytes to the system, so that `size` counts them and readers of `path` see them."""
        with self._writing():
            self._file.flush()

    def reset(self, validators: Validators) -> None:
        """Start anew with a version of the source."""
        self._file.seek(0)
        self._file.truncate()
        self.validators = validators
        self._state.write_text(json.dumps({"key": self.key, "validators": asdict(validators)}))

    def discard(self) -> None:
        """Remove what arrived."""
        self._is_kept = False
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def finish(self) -> None:
        """Rename the file to its target."""
        self._is_kept = False
        self.flush()
        os.fsync(self._file.fileno())
        self._state.unlink(missing_ok=True)
        self.path.replace(self.target)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"the download cannot be written: {error.strerror or error}"
            raise DataError(problem, where=self.path, remedy="see that there is room on the disk") from error

    def _restore(self) -> None:
        try:
            state = json.loads(self._state.read_text())
            if state["key"] == self.key:
                self.validators = Validators(**state["validators"])
                self._file.seek(0, os.SEEK_END)
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass  # bytes of unknown origin: start anew
        self.reset(Validators())


def lock(path: Path) -> BinaryIO:
    """Open a file for update under an exclusive lock, which ends when it is closed. Waits for other processes."""
    file = try_lock(path)
    if file is None:
        log.warning("%s: another process is fetching the same; waiting for it", path.name)
    while file is None:
        file = try_lock(path, fcntl.LOCK_EX)
    return file


def try_lock(path: Path, operation: int = fcntl.LOCK_EX | fcntl.LOCK_NB) -> BinaryIO | None:
    """Open a file for update under an exclusive lock, or return None where another process holds its lock."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(file, operation)
        except BlockingIOError:
            file.close()
            return None
        except OSError:  # a file system without locks, as some network disks are: go on without one
            return file
        # Between opening and locking, the former holder may have renamed the file: then it is not ours.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()


def byte_bar(name: str, total: int | None, here: int = 0, *, quiet: bool = False) -> tqdm[Any]:
    """A progress bar that counts bytes; `total` is None or negative where it is unknown."""
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "mininterval": 0.5, "ascii": True, "disable": quiet}
    known = total if total is not None and total >= 0 else None
    return tqdm(desc=name[:40], total=known, initial=here, **options)
