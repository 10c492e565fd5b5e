"""The memory that requests hold: their limit, buffers for their bodies, and how it goes back to the system.

glibc keeps what a process frees. By default that is blocks of up to 32 MB and, among smaller ones, all that lies below
one that is still in use: after a flood of large requests a service would stay twice as large as before. Other C
libraries do not have these calls, or do not need them.
"""

from __future__ import annotations

import asyncio
import ctypes
import mmap

_M_TRIM_THRESHOLD, _KEPT = -1, 64 * 2**20
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 8 * 2**20
_TRIM_AFTER_SECONDS = 0.2
_MAPPED = 2**20

_libc = ctypes.CDLL(None)


def configure_allocator() -> None:
    """Have large blocks go back at once, and enough for a few images stay.

    Source: mallopt(3). With the usual 128 kB, each image would take its pages from the system anew.
    """
    if mallopt := getattr(_libc, "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


class Memory:
    """The bytes of all unfinished requests' bodies and answers; used from one event loop.

    Attributes:
        limit: The most bytes that may be held.
        held: The bytes that are held.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._was_large = False

    def hold(self, count: int) -> None:
        """Count more bytes."""
        self.held += count
        self._was_large |= self.held > _KEPT

    def release(self, count: int) -> None:
        """Count bytes no longer; after much was held, the pages that are free go back to the system."""
        self.held -= count
        if self._was_large and self.held < _KEPT // 2:
            self._was_large = False
            if trim := getattr(_libc, "malloc_trim", None):
                loop = asyncio.get_running_loop()  # the last request's objects go first
                loop.call_later(_TRIM_AFTER_SECONDS, loop.run_in_executor, None, trim, 0)


class BodyBuffer:
    """Collects a body that comes in pieces.

    A long one has pages of its own until it is whole. On the heap it would have to move whenever it grows, and leave
    holes behind: a flood of uploads took half as much again as its bytes.
    """

    def __init__(self, most: int) -> None:
        """Make a buffer for at most so many bytes; what is not written takes no memory."""
        pages = mmap.mmap(-1, most, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if most > _MAPPED else None
        self._buffer: bytearray | mmap.mmap = bytearray() if pages is None else pages
        self._length = 0

    def append(self, piece: bytes) -> None:
        """Add bytes."""
        end = self._length + len(piece)
        self._buffer[self._length : end] = piece
        self._length = end

    def content(self) -> bytes:
        """All bytes so far. They are copied, one body at a time."""
        return bytes(self._buffer[: self._length])
