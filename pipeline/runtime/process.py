"""Identity of a process, and whether it is alive, which distinguishes a running attempt from a killed one."""

from __future__ import annotations

import os
import platform
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
