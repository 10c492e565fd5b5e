"""Paths as annotations write them, and a look-up of images by the ends of theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class WrittenPath:
    """A path from an annotation, taken apart.

    Attributes:
        parts: Its folders and file name, less what only means something on the machine it was written on.
        folders: The folders it is relative to.
        foreign: Whether it is a path of another machine, of which only the end can be of use.
        outside: Whether it leads out of the annotations' folder.
    """

    parts: tuple[str, ...]
    folders: tuple[str, ...]
    foreign: bool
    outside: bool

    @classmethod
    def of(cls, path: str, beside: str = "") -> WrittenPath:
        """Take a path apart that is relative to a folder; backslashes are slashes."""
        plain = path.replace("\\", "/")
        local = re.sub(r"^(file:/)?/*([A-Za-z]:)?/+|^[A-Za-z]:", "", plain)
        parts: list[str] = []
        folders = [part for part in beside.split("/") if part not in {"", "."}]
        outside = False
        for part in local.split("/"):
            if part == "..":
                above = parts or folders
                if above:
                    above.pop()
                else:
                    outside = True
            elif part not in {"", "."}:
                parts.append(part)
        return cls(tuple(parts), tuple(folders), outside or local != plain, outside)


class PathEndings:
    """Images by their path and by each ending of it: a look-up takes as many steps as the path has folders."""

    def __init__(self, names: Iterable[str], *, fold: bool = False, stems: bool = False) -> None:
        """Index paths.

        Args:
            names: POSIX paths.
            fold: Whether upper and lower case are the same.
            stems: Whether to find them by their names without suffix.
        """
        self._fold = fold
        self._whole: dict[str, list[str]] = {}
        self._ending: dict[str, list[str]] = {}
        for name in sorted(names):
            path = name.casefold() if fold else name
            path = _without_suffix(path) if stems else path
            self._whole.setdefault(path, []).append(name)
            start = 0
            while start >= 0:
                self._ending.setdefault(path[start:], []).append(name)
                start = path.find("/", start) + 1 or -1

    def exactly(self, tail: str) -> list[str]:
        """Those of that path, or else those whose path ends in it."""
        return self._whole.get(tail) or self._ending.get(tail) or []

    def find(self, path: WrittenPath) -> list[str]:
        """Those that a path may mean: beside its annotation file, as it is, with folders added, or taken away."""
        written = "/".join((*path.folders, *path.parts))
        parts = (written.casefold() if self._fold else written).split("/")
        tails = ["/".join(parts[i:]) for i in range(len(parts))]
        own = len(path.folders) + 1
        for tail in tails[:own]:
            found = self.exactly(tail)
            if found:
                return found
        for tail in tails[own:]:
            found = self.exactly(tail) if path.foreign else self._whole.get(tail, [])
            if found:
                return found
        return []


def _without_suffix(path: str) -> str:
    folder, slash, last = path.rpartition("/")
    return folder + slash + PurePosixPath(last).stem
