"""The licence that an installed package states."""

from __future__ import annotations

from importlib.metadata import distribution

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
NOT_STATED = "not stated"

_SHORT = 60  # a longer `License` field is the licence's whole text


def licence_of(package: str) -> str:
    """The licence of an installed package, under its SPDX name where there is one.

    It is the package's own `License-Expression`, else its trove classifier, else its `License` field.

    Raises:
        PackageNotFoundError: The package is not installed.
    """
    metadata = distribution(package).metadata
    classifiers = [each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if each[:7] == "License"]
    field = "".join(metadata.get_all("License", [])).strip()
    stated = field if field and field != "UNKNOWN" and len(field.splitlines()) == 1 and len(field) < _SHORT else ""
    classified = " OR ".join(SPDX.get(each, each) for each in classifiers)
    if classified in (SPDX["BSD"], "") and stated:  # the classifier does not say which BSD licence
        classified = SPDX.get(stated, stated)
    return "".join(metadata.get_all("License-Expression", [])) or classified or NOT_STATED
