"""Folders as tables of contents."""

from __future__ import annotations

import hashlib
from pathlib import Path


def fill(folder: Path, contents: dict[str, bytes]) -> Path:
    """Write files by their path below a folder, and give the folder."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents_of(folder: Path) -> dict[str, bytes]:
    """The files at any depth of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def digests_of(folder: Path) -> dict[str, str]:
    """The same, by SHA-256: where files are large, for a failure is shown."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents_of(folder).items()}
