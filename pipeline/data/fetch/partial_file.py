"""Downloaded files: retried, continued where they broke off, finished by one rename, and used again while current.

Beside a file are its origin and version in `<name>.json`, and an unfinished one in `<name>.part`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tqdm import tqdm

from pipeline.errors import DataError, MissingError
from pipeline.files import retrying, sha256_of

log = logging.getLogger(__name__)

ATTEMPTS = 5
_PROGRESS = 1 << 20  # bytes; where so many came, another round of attempts is made
_LONGEST_WAIT = 60.0  # seconds

T = TypeVar("T")


class TransientError(Exception):
    """A failure that may go away by itself; `retry_after` is the wait that the server asks for, in seconds."""

    def __init__(self, problem: str, retry_after: float = 0.0) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


def retried(attempt: Callable[[], T], *, shown: str, backoff: float, arrived: Callable[[], int] = lambda: 0) -> T:
    """Call `attempt` until it raises no `TransientError`, at most five times without progress.

    `arrived` is how many bytes have come: after a mebibyte of progress the attempts count from one again.
    """
    policy = retrying(
        lambda error: isinstance(error, TransientError),
        attempts=ATTEMPTS,
        first_wait=backoff,
        longest_wait=_LONGEST_WAIT,
        before_wait=lambda error, wait: log.warning("%s: %s; trying again in %.1f s", shown, error, wait),
    )
    while True:
        before = arrived()
        try:
            return policy(attempt)
        except TransientError as error:
            if arrived() - before < _PROGRESS:
                problem = f"the request failed {ATTEMPTS} times in a row: {error}"
                remedy = "check the URL and the network, then run it again: it continues where it broke off"
                raise MissingError(problem, where=shown, remedy=remedy) from None


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
    """The file `<target>.part` under a lock, with its version in `<target>.part.json`. Use as a context manager."""

    target: Path
    key: str  # of the source: bytes of another one are never continued
    validators: Validators = field(default_factory=Validators)

    def __enter__(self) -> PartialFile:
        self.path = self.target.with_name(self.target.name + ".part")
        self._file = lock(self.path)
        record = _record(self.path)
        if record.get("key") == self.key:
            self.validators = record["validators"]
            self._file.seek(0, os.SEEK_END)
        else:  # bytes of unknown origin
            self.reset(Validators())
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.exists() and self.size == 0:
            self.discard()
        self._file.close()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._file.tell()

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        with writing(self.path):
            self._file.write(chunk)
            self._file.flush()

    def reset(self, validators: Validators) -> None:
        """Start anew with a version of the source."""
        self._file.seek(0)
        self._file.truncate()
        self.validators = validators
        _write_record(self.path, self.key, validators)

    def discard(self) -> None:
        """Remove what arrived."""
        self.path.unlink(missing_ok=True)
        _record_path(self.path).unlink(missing_ok=True)

    def finish(self) -> None:
        """Rename the file to its target."""
        os.fsync(self._file.fileno())
        _record_path(self.path).unlink(missing_ok=True)
        self.path.replace(self.target)


@dataclass(frozen=True)
class CachedFile:
    """A finished download, or the place for one, and the key of its source."""

    path: Path
    key: str

    def version(self) -> Validators | None:
        """The version of the file that is here; None where there is none, or where its bytes have changed."""
        record = _record(self.path)
        whole = record.get("key") == self.key and self.has(record["sha256"])
        return record["validators"] if whole else None

    def has(self, sha256: str) -> bool:
        """Whether the file is here and has this digest."""
        return bool(sha256) and self.path.is_file() and sha256_of(self.path) == sha256

    def fill(
        self, download: Callable[[PartialFile, Validators], Validators | None], sha256: str = "", shown: str = ""
    ) -> str:
        """Bring the file up to date, and return its digest. Of several processes one downloads, and the others wait.

        `download` fills a partial file, or returns None where the source still has the version given. A download of
        another digest than `sha256`, where one is given, is removed.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with PartialFile(self.path, self.key) as part:
            if self.has(sha256):
                return sha256
            unless = None if sha256 else self.version()
            if download(part, unless or Validators()) is None:
                return sha256_of(self.path)
            found = sha256_of(part.path)
            if sha256 and found != sha256:
                part.discard()
                raise wrong_digest(shown, sha256, found, "the download was removed: check the URL and the SHA-256")
            part.finish()
            _write_record(self.path, self.key, part.validators, found)
            return found


def wrong_digest(shown: str, wanted: str, found: str, remedy: str) -> DataError:
    """The error for a file of another digest than the one wanted."""
    return DataError(f"the file's SHA-256 is {found}", where=shown, expected=f"SHA-256 {wanted}", remedy=remedy)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell errors of the disk, which become a `DataError`, from those of the network."""
    try:
        yield
    except OSError as error:
        problem = f"the download cannot be written: {error.strerror or error}"
        raise DataError(problem, where=path, remedy="see that there is room on the disk") from error


def lock(path: Path) -> BinaryIO:
    """Open a file for update under an exclusive lock, which ends when it is closed. Waits for other processes."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process is fetching the same; waiting for it", path.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks, as some network disks are: go on without one
            return file
        # Between opening and locking, the former holder may have renamed the file: then it is not ours.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def byte_bar(name: str, total: int, here: int = 0, *, quiet: bool = False) -> tqdm[Any]:
    """A progress bar that counts bytes; `total` is negative where it is unknown."""
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "mininterval": 0.5, "ascii": True, "disable": quiet}
    return tqdm(desc=name[:40], total=total if total >= 0 else None, initial=here, **options)


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_path(path).read_text())
        return {**record, "sha256": record["sha256"], "validators": Validators(**record["validators"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_record(path: Path, key: str, validators: Validators, sha256: str = "") -> None:
    record = {"key": key, "sha256": sha256, "validators": asdict(validators)}
    _record_path(path).write_text(json.dumps(record))  # a record that is cut counts as none
