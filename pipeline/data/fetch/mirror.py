"""A folder from a place behind an fsspec URL, kept here as a copy that later calls bring up to date."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.listing import Entry, listed
from pipeline.data.fetch.partial import PartialFile, Validators
from pipeline.data.fetch.places import Place, reaching
from pipeline.data.fetch.remote_file import fetch_file, persistently

logger = logging.getLogger(__name__)

_WORKERS = 8  # a fetch mostly waits for an answer
_SMALL = 1 << 23  # bytes; up to this a file comes in one piece, and is fetched anew rather than continued
_SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class _Kept:
    """A file that is here: the version it was of, and its time here, which shows whether it was touched since."""

    version: Validators
    modified: int


def mirror(place: Place, folder: Path, key: str, *, backoff: float = 0.5) -> None:
    """Make a folder hold just the files that a folder at a place holds.

    What is here in the same version is not fetched again; what is no longer there is removed. A call that is broken
    off has lost nothing of what it fetched.

    Args:
        place: The folder at the place.
        folder: The folder here. Beside it lie, under its name, a record of versions, a lock, and unfinished files.
        key: Identifies the place: files of another one are not kept.
        backoff: Seconds before the second attempt at anything.

    Raises:
        MissingError: There is no such folder, or it cannot be reached.
        DataError: A name in it could lead out of the folder, or a file keeps breaking off.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        entries = persistently(partial(listed, place), place, place.shown, backoff)
        record = _Record(folder, key)
        kept = {name: was for name, was in record.load().items() if name in entries and _is_same(folder, name, was)}
        record.files = {name: was for name, was in kept.items() if was.version.same_version(entries[name].version)}
        _remove_others(folder, set(record.files))
        missing = [name for name in sorted(entries) if name not in record.files]
        if missing:
            _Fetching(place, folder, entries, record, backoff).all(missing)
        record.save()
        shutil.rmtree(_parts(folder), ignore_errors=True)


class _Fetching:
    """What fetches files, several at a time, into their places."""

    def __init__(self, place: Place, folder: Path, entries: dict[str, Entry], record: _Record, backoff: float) -> None:
        self._place, self._folder, self._entries, self._backoff = place, folder, entries, backoff
        self._record = record

    def all(self, names: list[str]) -> None:
        """Fetch them; at the first failure begin no further one."""
        total = sum(max(self._entries[name].version.size, 0) for name in names)
        options: dict[str, Any] = {"unit": "B", "unit_scale": True, "mininterval": 0.5, "ascii": True}
        pool = ThreadPoolExecutor(1 if self._place.is_serial else _WORKERS)
        saved = time.monotonic()
        try:
            with tqdm(desc=self._place.shown.rpartition("/")[2][:40], total=total, **options) as self._bar:
                futures = {pool.submit(self._fetch, name): name for name in names}
                for future in as_completed(futures):
                    self._record.files[futures[future]] = future.result()
                    if time.monotonic() - saved > _SAVE_EVERY:
                        self._record.save()
                        saved = time.monotonic()
        finally:
            pool.shutdown(cancel_futures=True)
            done = ((future, name) for future, name in futures.items() if future.done() and not future.cancelled())
            self._record.files |= {name: future.result() for future, name in done if future.exception() is None}
            self._record.save()

    def _fetch(self, name: str) -> _Kept:
        entry, target = self._entries[name], self._folder / name
        shown = f"{self._place.shown.rstrip('/')}/{name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        small = 0 <= entry.version.size <= _SMALL
        version = self._whole(entry, target, shown) if small else self._streamed(entry, target, shown)
        return _Kept(version, target.stat().st_mtime_ns)

    def _whole(self, entry: Entry, target: Path, shown: str) -> Validators:
        def attempt(system: Any) -> bytes:
            with reaching(shown):
                content = bytes(system.cat_file(entry.path))
            if len(content) != entry.version.size:
                raise TransientError(f"the download was cut: {len(content)} of {entry.version.size} bytes came")
            return content

        content = persistently(attempt, self._place, shown, self._backoff)
        draft = _part_target(self._folder, entry.path)
        draft.write_bytes(content)
        draft.replace(target)
        self._bar.update(len(content))
        return entry.version

    def _streamed(self, entry: Entry, target: Path, shown: str) -> Validators:
        here = 0

        def report(size: int) -> None:
            nonlocal here
            self._bar.update(max(0, size - here))
            here = max(here, size)

        draft = _part_target(self._folder, entry.path)
        with PartialFile(draft, entry.path) as part:
            fetch_file(self._place, entry.path, shown, part, self._backoff, report)
            part.finish()
        draft.replace(target)
        return entry.version


class _Record:
    """What is known of the files here, kept beside the folder."""

    def __init__(self, folder: Path, key: str) -> None:
        self._path, self._key = folder.with_name(folder.name + ".json"), key
        self.files: dict[str, _Kept] = {}

    def load(self) -> dict[str, _Kept]:
        try:
            record = json.loads(self._path.read_text())
            if record["key"] == self._key:
                return {
                    name: _Kept(Validators(**kept["version"]), kept["modified"])
                    for name, kept in record["files"].items()
                }
        except (OSError, ValueError, KeyError, TypeError):
            pass  # files of unknown origin are fetched anew
        return {}

    def save(self) -> None:
        files = {
            name: {"version": asdict(kept.version), "modified": kept.modified}
            for name, kept in sorted(self.files.items())
        }
        draft = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex[:8]}")
        draft.write_text(json.dumps({"key": self._key, "files": files}))
        draft.replace(self._path)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for another process that fetches the same."""
    with folder.with_name(folder.name + ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            logger.warning("another process is fetching the same folder: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_same(folder: Path, name: str, kept: _Kept) -> bool:
    try:
        found = (folder / name).lstat()
    except OSError:
        return False
    return found.st_mtime_ns == kept.modified and kept.version.size in (found.st_size, -1)


def _remove_others(folder: Path, names: set[str]) -> None:
    folder.mkdir(exist_ok=True)
    _parts(folder).mkdir(exist_ok=True)
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(root) / name
            if path.relative_to(folder).as_posix() not in names:
                path.unlink()
        for name in folders:
            path = Path(root) / name
            if not any(path.iterdir()):
                path.rmdir()


def _parts(folder: Path) -> Path:
    return folder.with_name(folder.name + ".parts")


def _part_target(folder: Path, path: str) -> Path:
    return _parts(folder) / hashlib.sha256(path.encode()).hexdigest()[:32]
