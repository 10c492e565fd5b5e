"""An fsspec file system, `faulty://NAME` in memory, on which one chosen operation fails.

Every call counts as one operation. The one with the armed number fails before it does anything, fails after it has done
everything, or stops half-way: a write leaves a part, and a fetched file is silently cut.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

BEFORE, AFTER, HALF = "before", "after", "half"
WAYS = (BEFORE, AFTER, HALF)
OPERATIONS = ("pipe_file", "cat_file", "info", "ls", "find", "put_file", "get_file", "mv", "rm_file")


class Plan:
    """Which operation fails, and how; counts the operations since."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.disarm()

    def disarm(self) -> None:
        """Let every operation succeed, and count from 0."""
        self.number, self.way, self.count, self.hit = 0, BEFORE, 0, ""

    def arm(self, number: int, way: str) -> None:
        """Let the operation of this number, from 1, fail once."""
        self.number, self.way, self.count, self.hit = number, way, 0, ""

    def next(self, name: str) -> str | None:
        """How the operation that begins now fails, or None."""
        with self.lock:
            self.count += 1
            if self.count != self.number:
                return None
            self.hit = name
            return self.way


PLAN = Plan()


class FaultyFileSystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec is untyped
    """A memory file system that fails as planned."""

    protocol = "faulty"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        stripped: str = super()._strip_protocol(str(path).removeprefix("faulty://"))
        return stripped


_WITHIN = threading.local()


def _failing(name: str) -> Any:
    inner = getattr(MemoryFileSystem, name)

    def operation(self: FaultyFileSystem, path: str, *arguments: Any, **options: Any) -> Any:
        if getattr(_WITHIN, "call", False):  # of another operation
            return inner(self, path, *arguments, **options)
        way = PLAN.next(name)
        if way == BEFORE:
            raise OSError(5, f"{name} failed before it began")
        _WITHIN.call = True
        try:
            if way == HALF and name == "pipe_file":
                inner(self, path, arguments[0][: len(arguments[0]) // 2], *arguments[1:], **options)
                raise OSError(5, "pipe_file was cut off half-way")
            done = inner(self, path, *arguments, **options)
        finally:
            _WITHIN.call = False
        if way == HALF and name == "get_file":
            target = Path(arguments[0])
            target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])
            return done  # and says nothing
        if way:
            raise OSError(5, f"{name} failed after it was done")
        return done

    return operation


for _name in OPERATIONS:
    setattr(FaultyFileSystem, _name, _failing(_name))
fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
