"""Identity of a process, whether it is alive, and working folders that are removed when their process has ended."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import StepError


@dataclass(frozen=True)
class Process:
    """A process, distinguished from every other."""

    host: str = ""  # the machine or container: its name, its id if it has one, and the PID namespace
    boot: str = ""  # id of the machine's start, or empty
    pid: int = 0  # used again after the process has ended
    began: str = ""  # hundredths of seconds from the machine's start, which a corrected clock does not change


LOCK = ".lock"
NEW = ".new"
MACHINE = Path("/etc/machine-id")
NOBODY = Process()  # not recorded
ENDING = 60.0  # seconds that a process has to end after it was killed


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
    import psutil  # late: most commands look at no process

    try:
        with suppress(PermissionError):
            os.kill(pid, 0)  # psutil takes another user's process for ended where /proc hides it
        found = psutil.Process(pid)
        ended = found.status() == psutil.STATUS_ZOMBIE
        return "" if ended else f"{(found.create_time() - psutil.boot_time()) * 100:.0f}"
    except ProcessLookupError:
        return ""
    except psutil.Error:
        return None


@contextmanager
def work_folder(parent: Path, kind: str, name: str = "") -> Iterator[Path]:
    """An empty folder that only this user can enter; folders of killed processes are removed first.

    The folder holds a lock file, which the system unlocks when the process ends. The folder gets its name,
    `KIND.NAME.RANDOM`, only once it is locked, so that it is never taken for a killed process's.
    """
    parent.mkdir(parents=True, exist_ok=True)
    _remove_left(parent, kind)
    new = Path(tempfile.mkdtemp(prefix=f"{NEW}.{kind}.{name}." if name else f"{NEW}.{kind}.", dir=parent))
    with _held(new, parent / new.name.removeprefix(f"{NEW}.")) as folder:
        yield folder


@contextmanager
def work_folder_at(folder: Path) -> Iterator[Path]:
    """A working folder of another machine's, here: an empty folder of that name.

    Raises:
        StepError: There is no folder for it, or a living process has it.
    """
    if not folder.parent.is_dir():
        raise StepError(
            f"{platform.node()} has no folder {folder.parent}, in which the step works on another machine",
            where=folder,
            expected="the same folder for temporary files on each machine of a cluster",
            remedy="set TMPDIR to it on each machine where Ray is started",
        )
    end = time.monotonic() + ENDING
    _remove_left(folder.parent, folder.name.partition(".")[0])
    while folder.exists():
        if time.monotonic() > end:
            raise StepError(f"another process works in {folder}", where=platform.node(), remedy="end that process")
        time.sleep(0.2)
        _remove_left(folder.parent, folder.name.partition(".")[0])
    with _held(Path(tempfile.mkdtemp(prefix=f"{NEW}.", dir=folder.parent)), folder):
        yield folder


def _remove_left(parent: Path, kind: str) -> None:
    """Remove the working folders of a kind whose processes have ended."""
    for lock in parent.glob(f"{kind}.*/{LOCK}"):
        if not is_held(lock.parent):
            shutil.rmtree(lock.parent, ignore_errors=True)


@contextmanager
def _held(new: Path, folder: Path) -> Iterator[Path]:
    """Lock a folder, give it its name, and remove it after the block."""
    with (new / LOCK).open("wb") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)
        new.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def is_held(folder: Path) -> bool:
    """Whether the process that made a folder is alive."""
    try:
        with (folder / LOCK).open("rb") as lock_file:
            fcntl.flock(lock_file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # closing releases it
    except BlockingIOError:
        return True
    except OSError:  # it was just removed, or is another user's
        return False
    return False
