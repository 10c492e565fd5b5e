"""A step's artifacts as local folders: an input is fetched when it is used, and must not be changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import IntegrityError, UsageError
from pipeline.files import sha256_of
from pipeline.runtime.store.artifact_store import Artifact, Store

log = logging.getLogger(__name__)


class Folders(Mapping[str, Path]):
    """Entity name to local folder. An input is fetched at its first use; an undeclared name is refused."""

    def __init__(self, kind: str, folders: dict[str, Path], artifacts: Mapping[str, Artifact], store: Store) -> None:
        self._kind = kind
        self._folders = folders
        self._artifacts = artifacts
        self._store = store
        self._fetched: dict[str, dict[str, tuple[int, int, int]]] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._folders:
            declared, remedy = ", ".join(self._folders), "declare it in the notebook's interface cell"
            raise UsageError(f"'{name}' is not among the step's {self._kind}", expected=declared, remedy=remedy)
        folder = self._folders[name]
        if name in self._artifacts and name not in self._fetched:
            log.info("reading %s %s", name, self._artifacts[name].digest[:12])
            self._store.get(self._artifacts[name], folder, link=True)
            self._fetched[name] = _stats(folder)
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)

    def check(self) -> None:
        """Verify that no fetched file was changed or removed.

        Raises:
            IntegrityError: One was: the result would not be made from the recorded inputs.
        """
        for name, before in self._fetched.items():
            folder, artifact, now = self._folders[name], self._artifacts[name], _stats(self._folders[name])
            touched = [path for path in before if now.get(path) != before[path]]
            if not touched:
                continue
            sha256 = {file.path: file.sha256 for file in self._store.index(artifact)}
            # a hard-linked file gets new times when its object does, so only other bytes count
            altered = [path for path in touched if path not in now or sha256_of(folder / path) != sha256[path]]
            if altered:
                self._store.check(artifact)  # the files may be hard links to the store's own
                raise IntegrityError(
                    f"the step changed its input {name}: {', '.join(altered[:3])}",
                    where=folder,
                    expected="inputs that are only read",
                    remedy="copy the files into step.work before changing them, then run the step again",
                )


def _stats(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Size, time and identity of each file, which change when it is written."""
    files = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (found.st_size, found.st_mtime_ns, found.st_ino) for path, found in files
    }
