"""Keeps samples in a place, on a thread of its own, within limits: the oldest go when there are too many.

So the place always holds the newest. Which images are worth keeping is decided before, at a rate that follows the
traffic; to keep the most extreme of all times would leave no more than broken files and oddities after a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Full, Queue
from threading import Lock, Thread

from pipeline.serving.sample_places import RECORD, SamplePlace
from pipeline.serving.samples import Sample, name_of

log = logging.getLogger(__name__)

WAITING_SAMPLES = 32
WAITING_BYTES = 64 * 2**20

_LIST_SECONDS = 60.0  # after which a place is listed again, for what others have written or removed
_COMPLAINT_SECONDS = 300.0  # between two messages of the log
_CLOSING_SECONDS = 10.0


@dataclass
class _Kept:
    """A sample that is in the place, or what is left of one."""

    names: list[str] = field(default_factory=list)
    bytes: int = 0
    modified: float = 0.0


@dataclass(frozen=True)
class _Waiting:
    sample: Callable[[str], Sample]  # given the image's name
    image: bytes
    suffix: str


class SampleWriter:
    """Writes samples in the background.

    Args:
        place: Where to.
        most: Samples in the place.
        most_bytes: Bytes in the place, JSON files included.
        count: Is told what became of each sample: `kept`; `known`, where it is there already; `dropped`, where too many
            wait or it is larger than the place; or `failed`.
    """

    def __init__(self, place: SamplePlace, most: int, most_bytes: int, count: Callable[[str], None]) -> None:
        self._place, self._most, self._most_bytes, self._count = place, most, most_bytes, count
        self._queue: Queue[_Waiting | None] = Queue(WAITING_SAMPLES)
        self._lock = Lock()
        self._waiting_bytes = 0
        self._kept: dict[str, _Kept] | None = None  # by digest; None before it is listed
        self._listed = self._complained = float("-inf")
        self._thread = Thread(target=self._run, name="samples", daemon=True)
        self._thread.start()

    def offer(self, sample: Callable[[str], Sample], image: bytes | memoryview, suffix: str) -> bool:
        """Have an image kept, and what `sample` gives for the name of its file. Returns at once; False if dropped."""
        size = len(image)
        with self._lock, suppress(Full):
            if size <= self._most_bytes and self._waiting_bytes + size <= WAITING_BYTES:
                self._queue.put_nowait(_Waiting(sample, bytes(image), suffix))
                self._waiting_bytes += size
                return True
        self._count("dropped")
        return False

    def close(self) -> None:
        """Write what waits, as far as it takes no longer than some seconds, and end the thread."""
        end = time.monotonic() + _CLOSING_SECONDS
        try:
            self._queue.put(None, timeout=_CLOSING_SECONDS)
        except Full:
            return
        self._thread.join(max(0.0, end - time.monotonic()))

    def _run(self) -> None:
        while True:
            waiting = self._queue.get()
            if waiting is None:
                return
            try:
                outcome = self._store(waiting)
            except Exception as error:  # noqa: BLE001  # of any file system; no request may notice it
                self._kept = None  # what is there now is not known
                self._complain(error)
                outcome = "failed"
            with self._lock:
                self._waiting_bytes -= len(waiting.image)
            self._count(outcome)

    def _store(self, waiting: _Waiting) -> str:
        name = name_of(waiting.image, waiting.suffix)
        digest = name.partition(".")[0]
        record = waiting.sample(name).model_dump_json(indent=1).encode()
        size = len(waiting.image) + len(record)
        with self._place.turn() as has_changed:
            kept = self._listing(has_changed)
            if digest in kept and digest + RECORD in kept[digest].names:
                return "known"
            if size > self._most_bytes:
                return "dropped"
            self._remove_oldest(kept, size, except_for=digest)
            kept[digest] = _Kept([digest + RECORD, name], size, time.time())
            self._place.write(name, waiting.image)
            self._place.write(digest + RECORD, record)
        return "kept"

    def _listing(self, has_changed: bool) -> dict[str, _Kept]:
        now = time.monotonic()
        if self._kept is None or has_changed or now - self._listed > _LIST_SECONDS:
            kept: dict[str, _Kept] = {}
            for file in self._place.files():
                one = kept.setdefault(file.name.partition(".")[0], _Kept())
                one.names.append(file.name)
                one.bytes += file.bytes
                one.modified = max(one.modified, file.modified)
            self._kept, self._listed = kept, now
        return self._kept

    def _remove_oldest(self, kept: dict[str, _Kept], size: int, except_for: str) -> None:
        """Make room for one more sample of so many bytes; what is left of an earlier one of this digest is replaced."""
        total = sum(one.bytes for digest, one in kept.items() if digest != except_for)
        others = sorted((digest for digest in kept if digest != except_for), key=lambda digest: kept[digest].modified)
        left = len(others)
        for digest in others:
            if left < self._most and total + size <= self._most_bytes:
                return
            for name in sorted(kept[digest].names, key=lambda name: not name.endswith(RECORD)):
                self._place.remove(name)
            total -= kept.pop(digest).bytes
            left -= 1

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained > _COMPLAINT_SECONDS:
            self._complained = now
            log.error("samples are not kept at %s: %s: %s", self._place.url, type(error).__name__, error)
