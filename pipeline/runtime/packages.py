"""Which packages are installed, read from the head of what each says of itself.

The standard library tells the same, yet to import it for that and to have it parse each description as an e-mail takes
a third of a run in which everything is up to date. It is asked about what is not installed as a `.dist-info` folder.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

HEAD = "\n\n"  # a blank line ends the fields; the package's README follows
NAME = re.compile(r"[\w.-]+")


def required_versions(distribution: str) -> dict[str, str]:
    """Versions of the packages that one asks for, in any case and not just as an extra; none where it is not installed.

    Args:
        distribution: Who asks.
    """
    folders = _folders()
    asked = _field(distribution, "Requires-Dist", folders)
    names = [found[0] for text in asked if "extra ==" not in text and (found := NAME.match(text))]
    return {name: next(iter(_field(name, "Version", folders)), "not installed") for name in sorted(names)}


def _folders() -> dict[str, Path]:
    """Where each package describes itself, by its normal name; of two of one name the one that would be imported."""
    found: dict[str, Path] = {}
    for place in map(Path, sys.path):
        try:
            names = sorted(entry.name for entry in os.scandir(place) if entry.name.endswith(".dist-info"))
        except OSError:  # an archive, or not there
            continue
        for name in names:
            found.setdefault(_normal(name.partition("-")[0]), place / name)
    return found


def _field(distribution: str, field: str, folders: dict[str, Path]) -> list[str]:
    folder = folders.get(_normal(distribution))
    try:
        text = (folder / "METADATA").read_text(encoding="utf-8", errors="replace") if folder else ""
    except OSError:
        text = ""
    values = re.findall(rf"^{field}: *(.*?) *$", text.partition(HEAD)[0], re.MULTILINE)
    return values or _field_by_the_book(distribution, field)


def _field_by_the_book(distribution: str, field: str) -> list[str]:
    from importlib import metadata

    try:
        return metadata.metadata(distribution).get_all(field) or []
    except metadata.PackageNotFoundError:
        return []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
