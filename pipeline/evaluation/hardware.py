"""The machine that a measurement was made on, as the system tells it."""

from __future__ import annotations

import platform
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.serving.settings import available_cpus

_QUERY = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
_TIMEOUT = 10.0  # seconds; a driver that hangs must not stop an evaluation


@dataclass(frozen=True)
class Hardware:
    """A machine."""

    processor: str
    cpus: int  # that this process may use, by the quota of a container, too
    memory_bytes: int
    gpus: tuple[str, ...]  # with memory and driver; those of NVIDIA
    system: str


def read_hardware() -> Hardware:
    """Describe this machine."""
    return Hardware(
        processor=_processor(),
        cpus=available_cpus(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=_gpus(),
        system=_system(),
    )


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _gpus() -> tuple[str, ...]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        told = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = [[word.strip() for word in line.split(",")] for line in told.splitlines() if line.strip()]
    return tuple(f"{name}, {memory} MiB, driver {driver}" for name, memory, driver in rows)


def _system() -> str:
    with suppress(OSError):
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.system()} {platform.release()}"
    return platform.platform()
