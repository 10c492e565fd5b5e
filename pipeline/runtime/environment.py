"""The environment of an attempt: Python, platform, device, and the versions of the packages that the project requires.

Versions are read from the head of each METADATA file. `importlib.metadata` parses whole files as e-mails, which takes
40 ms more: a sixth of a run in which everything is up to date.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import cache
from pathlib import Path

DISTRIBUTION = "detection-pipeline"
NAME = re.compile(r"[\w.-]+")


@cache
def environment() -> dict[str, str]:
    """Python, platform, device, and the versions of the required packages."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": _device(),
        **required_versions(DISTRIBUTION),
    }


def required_versions(distribution: str) -> dict[str, str]:
    """Versions of the packages that a distribution requires, without extras; empty if it is not installed."""
    folders = _metadata_folders()
    required = _field(distribution, "Requires-Dist", folders)
    names = [found[0] for text in required if "extra ==" not in text and (found := NAME.match(text))]
    return {name: next(iter(_field(name, "Version", folders)), "not installed") for name in sorted(names)}


def _metadata_folders() -> dict[str, Path]:
    """The `.dist-info` folder of each package by normalised name; the first on the import path counts."""
    found: dict[str, Path] = {}
    for place in map(Path, sys.path):
        try:
            names = sorted(entry.name for entry in os.scandir(place) if entry.name.endswith(".dist-info"))
        except OSError:  # an archive, or absent
            continue
        for name in names:
            found.setdefault(_normalised(name.partition("-")[0]), place / name)
    return found


def _field(distribution: str, field: str, folders: dict[str, Path]) -> list[str]:
    folder = folders.get(_normalised(distribution))
    try:
        text = (folder / "METADATA").read_text(encoding="utf-8", errors="replace") if folder else ""
    except OSError:
        text = ""
    head = text.partition("\n\n")[0]  # the package's README follows
    return re.findall(rf"^{field}: *(.*?) *$", head, re.MULTILINE)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _device() -> str:
    """The device as the system names it: importing torch to ask it would take seconds."""
    reports = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [line.partition(":")[2].strip() for path in reports for line in path.read_text().splitlines()[:1]]
    gpus = models or [path.name for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    return ", ".join(gpus) or f"CPU, {os.cpu_count()} cores"
