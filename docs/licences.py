"""Print the table of licences in `docs/licences.md`, from the metadata of the packages in `requirements.lock`.

    .venv/bin/python docs/licences.py

A licence is the package's own `License-Expression`, else its trove classifier, else its `License` field, under the name
that SPDX has for it.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

LOCK = Path(__file__).parents[1] / "requirements.lock"
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD": "BSD, clauses not stated",
    "BSD License": "BSD, clauses not stated",
    "FreeBSD": "BSD-2-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
SHORT = 60  # a longer `License` field is the licence's whole text


def licence_of(package: str) -> str:
    """The licence of an installed package.

    Raises:
        PackageNotFoundError: The package is not installed.
    """
    metadata = distribution(package).metadata
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if each[:7] == "License"]
    field = (metadata.get("License") or "").strip()
    stated = field if field and field != "UNKNOWN" and len(field.splitlines()) == 1 and len(field) < SHORT else ""
    classified = " OR ".join(SPDX.get(each, each) for each in classifiers)
    if classified in (SPDX["BSD"], "") and stated:  # the classifier does not say which BSD licence
        classified = SPDX.get(stated, stated)
    return str(metadata.get("License-Expression") or classified or "not stated")


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
