"""The code that travels with a job: the commit, or the dirty tree as it is recorded."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.runtime.code import PACKAGE
from pipeline.runtime.git import git

LARGEST = 200 * 10**6  # bytes; Ray keeps the archive in its head's memory
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive


def code_archive(root: Path) -> bytes:
    """A ZIP file of the files that git tracks or would track, without its history, and of this package.

    Outside of git these are all files but those in hidden folders and in `out`.
    """
    found = {path.relative_to(root).as_posix(): path for path in _files(root) if path.is_file()}
    if not PACKAGE.is_relative_to(root.resolve()):  # it is installed elsewhere
        inside = (path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc")
        found |= {f"{PACKAGE.name}/{path.relative_to(PACKAGE).as_posix()}": path for path in inside}
    if (size := sum(path.stat().st_size for path in found.values())) > LARGEST:
        largest = max(found, key=lambda name: found[name].stat().st_size)
        raise UsageError(
            f"the project's files are {size / 1e6:.0f} MB, which is too much to send with a job",
            where=root,
            expected=f"at most {LARGEST / 1e6:.0f} MB of code; the largest file is {largest}",
            remedy="name data and models in .gitignore",
        )
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(found.items()):
            archive.writestr(zipfile.ZipInfo(name, EPOCH), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _files(root: Path) -> Iterator[Path]:
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if (root / ".git").exists() and listed is not None:
        yield from (root / name for name in listed.split("\0") if name)
        return
    for top in root.iterdir():
        if not top.name.startswith(".") and top.name not in ("out", "__pycache__"):
            inside = top.rglob("*") if top.is_dir() else [top]
            yield from (path for path in inside if "__pycache__" not in path.parts)
