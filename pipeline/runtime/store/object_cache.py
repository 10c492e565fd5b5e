"""Objects of a remote store on this machine's disk, so that its next step does not fetch them again.

    <folder>/ab/ab34…        the bytes with this SHA-256

Nothing in it is trusted: each file is hashed again when it is used, and a damaged one is dropped. A file appears with
one link or rename, so any number of processes can fill, use and trim the same folder. It can be removed at any time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.files import sha256_of

SHARE = 0.5  # of the disk space that is free or that the cache has, which it may take
ABANDONED = 3600.0  # seconds after which an unfinished file is that of a killed process


class _Cached(NamedTuple):
    used: float  # when, in seconds since 1970
    size: int
    path: Path


class ObjectCache:
    """Files by SHA-256 below a folder, which need not exist."""

    def __init__(self, folder: Path, most: int | None = None) -> None:
        self._folder = folder
        self._most = most  # bytes; None: `SHARE`

    def take(self, sha256: str, target: Path, *, link: bool) -> bool:
        """Lay out a file if it is here and whole; with `link` as a hard link, read-only except to root."""
        path = self._path(sha256)
        try:
            if not (link and _linked(path, target)):
                shutil.copyfile(path, target)
        except OSError:  # it is not here, or another process has just trimmed it
            target.unlink(missing_ok=True)
            return False
        if sha256_of(target) == sha256:
            with suppress(OSError):
                os.utime(path, (time.time(), path.stat().st_mtime))
            return True
        target.unlink()
        path.unlink(missing_ok=True)
        return False

    def add(self, sha256: str, source: Path, *, link: bool) -> bool:
        """Keep a file that was hashed just now; with `link` as a hard link, which makes it read-only. False if not.

        A disk that is full, or refuses, only means that the file is fetched again.
        """
        path = self._path(sha256)
        draft = path.with_name(f".{secrets.token_hex(8)}")
        try:
            if path.exists():
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            if link and _linked(source, draft):
                draft.chmod(0o444)
            else:
                shutil.copyfile(source, draft)
            draft.replace(path)
        except OSError:
            return False
        finally:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
        return True

    def trim(self) -> None:
        """Remove the files that were not used for longest, until the others are no more than allowed."""
        with suppress(OSError):
            found = sorted(self._files())
            held = sum(each.size for each in found)
            most = self._most
            if most is None:
                most = int(SHARE * (held + shutil.disk_usage(self._folder).free))
            for each in found:
                is_draft = each.path.name.startswith(".")
                if held > most or (is_draft and each.used < time.time() - ABANDONED):
                    each.path.unlink(missing_ok=True)
                    held -= each.size

    def _files(self) -> Iterator[_Cached]:
        for folder in self._folder.iterdir():
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        stat = entry.stat()
                        yield _Cached(stat.st_atime, stat.st_size, Path(entry.path))

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def _linked(source: Path, target: Path) -> bool:
    """Whether a hard link was made; False on another file system, or one without links."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True
