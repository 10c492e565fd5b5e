"""Folders that go when what they are for has ended, however it ended."""

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
    """An empty folder that only this user can enter; those whose process was killed are removed on the way.

    The folder holds a lock, which the system lets go of when its process is gone. It gets its name once it is locked,
    so that nobody ever takes a living process's folder for a dead one's.

    Args:
        parent: Where it is made.
        kind: What it is for, which its name begins with; folders of other kinds are left alone.
        name: What it is for in particular.
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
    """Whether the process that a folder is for is still there."""
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given up below: nothing is kept from anyone
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _sweep(parent: Path, kind: str) -> None:
    for lock in parent.glob(f"{kind}.*/{LOCK}"):
        try:
            handle = os.open(lock, os.O_RDWR)
        except OSError:  # it has just ended by itself, or is another user's
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
        except BlockingIOError:  # it is alive
            continue
        finally:
            os.close(handle)
