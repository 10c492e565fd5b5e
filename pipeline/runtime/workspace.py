"""Working folders that are removed when their process has ended, even if it was killed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
NEW = ".new"


@contextmanager
def work_folder(parent: Path, kind: str, name: str = "") -> Iterator[Path]:
    """An empty folder that only this user can enter; folders of killed processes are removed first.

    The folder holds a lock file, which the system unlocks when the process ends. The folder gets its name,
    `KIND.NAME.RANDOM`, only once it is locked, so that it is never taken for a killed process's.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent, kind)
    new = Path(tempfile.mkdtemp(prefix=f"{NEW}.{kind}.{name}." if name else f"{NEW}.{kind}.", dir=parent))
    handle = os.open(new / LOCK, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder = new.rename(parent / new.name.removeprefix(f"{NEW}."))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether the process that made a folder is alive."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing releases it
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _sweep(parent: Path, kind: str) -> None:
    for lock in parent.glob(f"{kind}.*/{LOCK}"):
        try:
            handle = os.open(lock, os.O_RDWR)
        except OSError:  # it was just removed, or is another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
        except BlockingIOError:  # its process is alive
            continue
        finally:
            os.close(handle)
