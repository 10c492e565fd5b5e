"""Print the table of licences in `docs/licences.md`, from the metadata of the packages in `requirements.lock`.

.venv/bin/python docs/licences.py
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError
from pathlib import Path

from pipeline.containers.licences import licence_of

LOCK = Path(__file__).parents[1] / "requirements.lock"


def locked_packages() -> list[str]:
    """Names of the packages in the lock."""
    return [re.split(r"[=<>;\[ ]", line)[0] for line in LOCK.read_text().splitlines() if line.strip()]


def table() -> str:
    """The table in Markdown: one row a licence, with the packages under it that are installed here."""
    packages = defaultdict(list)
    for name in [*locked_packages(), "torch"]:
        try:
            packages[licence_of(name)].append(name)
        except PackageNotFoundError:  # for another platform
            continue
    rows = [f"| {licence} | {', '.join(sorted(names))} |" for licence, names in sorted(packages.items())]
    return "\n".join(["| licence | packages |", "|---|---|", *rows])


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
