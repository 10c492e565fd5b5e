"""A download in the making: one writer at a time, what arrived is kept for the next try, the end is one rename."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO


@dataclass(frozen=True)
class Validators:
    """What a server says of a file's version (RFC 9110, section 8.8) and its size in bytes, -1 where it does not."""

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
        """The value of `If-Range`, empty where nothing vouches for the bytes: a weak ETag does not."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def same_version(self, other: Validators) -> bool:
        """Whether both say that the bytes are the same; silence is no proof."""
        return bool(self.etag or self.last_modified) and self == other


@dataclass
class PartialFile:
    """The file `<target>.part` under a lock, with `<target>.part.json` saying which version its bytes are of.

    Where another process holds the lock, a file of this process's own is used, which is not kept for later.
    Use as a context manager.
    """

    target: Path
    key: str  # identifies the source: bytes of another one are never continued
    validators: Validators = field(default_factory=Validators)

    def __enter__(self) -> PartialFile:
        self.path = self.target.with_name(self.target.name + ".part")
        self._file = _locked(self.path)
        self._shared = self._file is not None
        if self._file is None:
            self.path = self.target.with_name(f"{self.target.name}.{uuid.uuid4().hex[:8]}.part")
            self._file = self.path.open("w+b")
        self._restore()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        if not self._shared or self.size == 0:
            self.discard()

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def write(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._handle.write(chunk)

    def flush(self) -> None:
        """Hand the bytes written to the system, so that `size` and readers of `path` see them."""
        self._handle.flush()

    def reset(self, validators: Validators) -> None:
        """Start anew with a version of the source."""
        self._handle.seek(0)
        self._handle.truncate()
        self.validators = validators
        if self._shared:
            self._state.write_text(json.dumps({"key": self.key, "validators": asdict(validators)}))

    def discard(self) -> None:
        """Remove what arrived."""
        self.path.unlink(missing_ok=True)
        if self._shared:
            self._state.unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the file in its place in one rename, whoever else does the same."""
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self.path.replace(self.target)
        if self._shared:
            self._state.unlink(missing_ok=True)

    @property
    def _handle(self) -> BinaryIO:
        if self._file is None:
            raise RuntimeError("a PartialFile is used within a with statement")
        return self._file

    @property
    def _state(self) -> Path:
        return self.target.with_name(self.target.name + ".part.json")

    def _restore(self) -> None:
        try:
            state = json.loads(self._state.read_text()) if self._shared else {}
            if state["key"] == self.key:
                self.validators = Validators(**state["validators"])
                self._handle.seek(0, os.SEEK_END)
                return
        except (OSError, ValueError, KeyError, TypeError):
            pass  # bytes of unknown origin: start anew
        self.reset(Validators())


def _locked(path: Path) -> BinaryIO | None:
    """The file opened for update under an exclusive lock, or None while another process has it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return None
        # Between opening and locking, the former holder may have renamed the file into place: then it is not ours.
        if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
            return file
        file.close()
