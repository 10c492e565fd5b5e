"""The exact versions a service was built with, read from the running environment: no package index is asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipeline.errors import MissingError


def pinned_requirements(packages: Sequence[str]) -> list[str]:
    """Pin packages and all that they need, as far as markers of this platform call for it.

    Args:
        packages: Names of installed distributions.

    Returns:
        Sorted lines `name==version`.

    Raises:
        MissingError: A package, or one that it needs, is not installed.
    """
    pinned: dict[str, str] = {}
    waiting = [Requirement(package) for package in packages]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        name, extras = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        distribution = _find(name)
        pinned[name] = distribution.version
        waiting += [
            needed
            for needed in map(Requirement, distribution.requires or [])
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras})
        ]
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]


def _find(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise MissingError(
            f"the package {name!r}, which the service needs, is not installed", remedy=f"pip install {name}"
        ) from error
