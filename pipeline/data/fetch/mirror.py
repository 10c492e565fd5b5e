"""A folder at an fsspec URL, kept here as a copy that later calls bring up to date."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.data.fetch.failures import TransientError
from pipeline.data.fetch.fsspec_files import Entry, fetch_file, list_files
from pipeline.data.fetch.fsspec_places import Place, place_errors
from pipeline.data.fetch.partial_file import PartialFile, Validators, byte_bar, lock
from pipeline.files import write_atomically

_WORKERS = 8  # a fetch mostly waits for an answer
_SMALL = 1 << 23  # bytes; up to this a file comes in one piece, and is fetched anew rather than continued
_SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class _Copy:
    """A file that is here: its version, and its modification time here, which shows whether it was changed since."""

    version: Validators
    modified: int


def mirror(place: Place, folder: Path, key: str) -> None:
    """Make a folder hold exactly the files that a folder at a place holds.

    Files that are here in the same version are not fetched again; others are removed. A call that breaks off loses
    nothing of what it fetched.

    Args:
        place: The folder at the place.
        folder: The folder here. Beside it are, under its name, a record of versions, a lock, and unfinished files.
        key: Identifies the place: files of another one are not kept.

    Raises:
        MissingError: There is no such folder, or it cannot be reached.
        DataError: A name in it could lead out of the folder, or a file keeps breaking off.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_name(folder.name + ".lock")):
        entries = list_files(place)
        copies = _load(folder, key)
        copies = {name: copy for name, copy in copies.items() if _is_current(folder / name, copy, entries.get(name))}
        _remove_others(folder, set(copies))
        missing = {name: entry for name, entry in sorted(entries.items()) if name not in copies}
        if missing:
            _fetch_all(place, folder, missing, copies, key)
        _save(folder, key, copies)
        shutil.rmtree(_parts(folder), ignore_errors=True)


def _fetch_all(place: Place, folder: Path, missing: dict[str, Entry], copies: dict[str, _Copy], key: str) -> None:
    """Fetch files, several at a time, and add them to the copies; after a failure begin no further one."""
    total = sum(max(entry.version.size, 0) for entry in missing.values())
    saved = time.monotonic()
    with byte_bar(place.shown.rpartition("/")[2], total) as bar:

        def one(name: str, entry: Entry) -> None:
            copies[name] = _fetch(place, folder, name, entry, bar)

        pool = ThreadPoolExecutor(1 if place.is_serial else _WORKERS)
        try:
            for future in as_completed([pool.submit(one, name, entry) for name, entry in missing.items()]):
                future.result()
                if time.monotonic() - saved > _SAVE_EVERY:
                    _save(folder, key, copies.copy())
                    saved = time.monotonic()
        finally:
            pool.shutdown(cancel_futures=True)
            _save(folder, key, copies)


def _fetch(place: Place, folder: Path, name: str, entry: Entry, bar: Any) -> _Copy:
    target, shown = folder / name, f"{place.shown.rstrip('/')}/{name}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if 0 <= entry.version.size <= _SMALL:
        content = place.attempt(lambda system: _content(system, entry, shown), shown)
        target.write_bytes(content)  # the record, written later, makes it count
        bar.update(len(content))
    else:
        _stream(place, entry, shown, _parts(folder), target, bar)
    return _Copy(entry.version, target.stat().st_mtime_ns)


def _content(system: Any, entry: Entry, shown: str) -> bytes:
    with place_errors(shown):
        content = bytes(system.cat_file(entry.path))
    if len(content) != entry.version.size:
        raise TransientError(f"the download was cut: {len(content)} of {entry.version.size} bytes came")
    return content


def _stream(place: Place, entry: Entry, shown: str, parts: Path, target: Path, bar: Any) -> None:
    here = 0

    def report(size: int) -> None:
        nonlocal here
        bar.update(max(0, size - here))
        here = max(here, size)

    draft = parts / hashlib.sha256(entry.path.encode()).hexdigest()[:32]
    with PartialFile(draft, entry.path) as part:
        fetch_file(place, entry.path, shown, part, report)
        part.finish()
    draft.replace(target)


def _record(folder: Path) -> Path:
    return folder.with_name(folder.name + ".json")


def _load(folder: Path, key: str) -> dict[str, _Copy]:
    try:
        record = json.loads(_record(folder).read_text())
        if record["key"] == key:
            files = record["files"].items()
            return {name: _Copy(Validators(**copy["version"]), copy["modified"]) for name, copy in files}
    except (OSError, ValueError, KeyError, TypeError):
        pass  # files of unknown origin are fetched anew
    return {}


def _save(folder: Path, key: str, copies: dict[str, _Copy]) -> None:
    files = {name: asdict(copy) for name, copy in sorted(copies.items())}
    write_atomically(_record(folder), json.dumps({"key": key, "files": files}))


def _is_current(path: Path, copy: _Copy, entry: Entry | None) -> bool:
    """Whether a copy is as it was fetched, and of the version that the place has now."""
    if entry is None or not path.is_file() or not copy.version.same_version(entry.version):
        return False
    return path.lstat().st_mtime_ns == copy.modified and copy.version.size in (path.stat().st_size, -1)


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
