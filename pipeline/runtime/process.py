"""Which process is at work, and whether it still is: what tells a running attempt from a killed one."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process that can be told from every other.

    Attributes:
        host: The machine, or container, in which `pid` means something: its name, its id where it has one, and the
            space of process numbers.
        boot: Which of its starts; empty where the system does not say.
        pid: Its number, which is used again after it has ended.
        began: When it began, in the system's own count.
    """

    host: str = ""
    boot: str = ""
    pid: int = 0
    began: str = ""


MACHINE = Path("/etc/machine-id")
NOBODY = Process()  # where it was not recorded


@cache
def this_process() -> Process:
    """The process that asks."""
    return Process(*_here(), os.getpid(), _began(os.getpid()) or "")


def is_alive(process: Process) -> bool | None:
    """Whether a process is still at work; None where that cannot be known from here, as for one of another machine."""
    host, boot = _here()
    if not process.pid or process.host != host:
        return None
    if process.boot != boot:  # the machine has been started anew since, if it is that machine: names may be given twice
        return False if MACHINE.is_file() else None
    began = _began(process.pid)
    return None if began is None else began == process.began


@cache
def _here() -> tuple[str, str]:
    """The machine and its start; of a container its own numbering of processes."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # no Linux
        return platform.node(), ""
    machine = MACHINE.read_text(encoding="ascii").strip()[:12] if MACHINE.is_file() else ""
    return f"{platform.node()} {machine} {space}", boot


def _began(pid: int) -> str | None:
    """When a process began, or nothing where there is none: a zombie has ended. None where one may not look."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return _hidden(pid) if Path("/proc/self/stat").exists() else _began_elsewhere(pid)
    return "" if fields[0] in "ZX" else fields[19]


def _hidden(pid: int) -> str | None:
    """A system may hide other users' processes; whether there is one can still be asked."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return None
    return None


def _began_elsewhere(pid: int) -> str:
    import psutil  # without /proc

    try:
        found = psutil.Process(pid)
        return "" if found.status() == psutil.STATUS_ZOMBIE else str(found.create_time())
    except psutil.Error:
        return ""
