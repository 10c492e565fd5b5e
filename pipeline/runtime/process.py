"""Identity of a process, whether it is alive, and working folders that are removed when their process has ended."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process, distinguished from every other.

    Attributes:
        host: The machine or container: its name, its id if it has one, and the PID namespace.
        boot: Id of the machine's start, or empty.
        pid: Process id, which is used again after the process has ended.
        began: Start time in the system's own count.
    """

    host: str = ""
    boot: str = ""
    pid: int = 0
    began: str = ""


LOCK = ".lock"
NEW = ".new"
MACHINE = Path("/etc/machine-id")
NOBODY = Process()  # not recorded


@cache
def this_process() -> Process:
    """The current process."""
    return Process(*_here(), os.getpid(), _began(os.getpid()) or "")


def is_alive(process: Process) -> bool | None:
    """Whether a process is alive; None if that is unknown, as on another machine."""
    host, boot = _here()
    if not process.pid or process.host != host:
        return None
    if process.boot != boot:  # the machine has restarted, if it is the same one: names are not unique
        return False if MACHINE.is_file() else None
    began = _began(process.pid)
    return None if began is None else began == process.began


@cache
def _here() -> tuple[str, str]:
    """Host and boot of the current process."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # no Linux
        return platform.node(), ""
    machine = MACHINE.read_text(encoding="ascii").strip()[:12] if MACHINE.is_file() else ""
    return f"{platform.node()} {machine} {space}", boot


def _began(pid: int) -> str | None:
    """When a process began; empty if it has ended, which a zombie has; None if that is hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _began_without_proc(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _began_without_proc(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():  # which hides another user's process, but a signal shows whether it exists
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return None
    import psutil

    try:
        found = psutil.Process(pid)
        return "" if found.status() == psutil.STATUS_ZOMBIE else str(found.create_time())
    except psutil.Error:
        return ""


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
