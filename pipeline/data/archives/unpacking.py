"""Archives from outside, unpacked without trusting a word of them.

No file leaves the target folder, no archive grows beyond what is allowed, and a broken one leaves nothing behind. What
an archive holds comes as `Member`s, from `zip_members` or `tar_members`: a further format is a further such function.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from tqdm import tqdm

from pipeline.data.archives.archive_limits import MAX_BYTES, MAX_FILES, MAX_RATIO, Allowance, Member
from pipeline.data.archives.archive_types import archive_kind, decoded, no_archive
from pipeline.data.archives.tar import tar_members
from pipeline.data.archives.zip import zip_members
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    OverflowError,
    OSError,
)


@dataclass(frozen=True)
class Unpacked:
    """A folder and the files in it, as sorted POSIX paths relative to it, with their size in bytes all together."""

    folder: Path
    files: tuple[str, ...]
    size: int


def unpack(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
    max_ratio: float = MAX_RATIO,
) -> Unpacked:
    """Unpack an archive into a new folder, all of it or nothing.

    Args:
        archive: A zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst file; its kind is told from its content.
        folder: Where to; must not exist, or be empty.
        max_bytes: How much may come out.
        max_files: How many files may.
        max_ratio: How many times the archive's own size may, where that is more than a few megabytes.

    Raises:
        UsageError: The folder holds something already.
        MissingError: There is no such archive.
        DataError: The archive is cut, corrupt, encrypted, too large, or has a member that is no plain file, comes
            twice, or leads out of the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("The folder to unpack into is not empty", where=folder, remedy="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    sizes: dict[str, int] = {}
    try:
        with _members(archive, max_bytes, max_files, max_ratio) as members:
            for member in members:
                sizes[member.name] = _write(member, draft / member.name, archive)
        draft.chmod(0o755)  # mkdtemp's own is for its maker alone
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Unpacked(folder, tuple(sorted(sizes)), sum(sizes.values()))


@contextmanager
def _members(archive: Path, max_bytes: int, max_files: int, max_ratio: float) -> Iterator[Iterator[Member]]:
    """The regular files of an archive, every name checked, readable within this context one after the other.

    All that a broken archive can raise, here or while its members are read, comes out as one kind of error.
    """
    if not archive.is_file():
        raise MissingError("There is no such archive", where=archive)
    try:
        kind = archive_kind(archive)
        if kind in {"", "7z", "rar"} or (kind == "zip" and not zipfile.is_zipfile(archive)):
            raise no_archive(archive, kind)
        allowance = Allowance(archive, max_bytes, max_files, max_ratio)
        bar: dict[str, Any] = {"desc": archive.name[:40], "mininterval": 0.5, "ascii": True}
        with archive.open("rb") as file, tqdm.wrapattr(file, "read", archive.stat().st_size, **bar) as counting:
            watched = cast("IO[bytes]", counting)
            if kind == "zip":
                yield zip_members(watched, archive, allowance)
            else:
                with closing(decoded(watched, kind)) as stream:
                    yield tar_members(stream, archive, allowance)
    except PipelineError:
        raise
    except _BROKEN as error:
        raise _broken(archive, error, "") from error


def _write(member: Member, target: Path, archive: Path) -> int:
    size = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for chunk in member.chunks():
                size += file.write(chunk)
    except PipelineError:
        raise
    except _BROKEN as error:
        raise _broken(archive, error, f" at '{member.name}'") from error
    return size


def _broken(archive: Path, error: Exception, item: str) -> DataError:
    full = isinstance(error, OSError) and error.filename is None and error.errno is not None
    return DataError(
        f"The archive cannot be unpacked{item}: {error or type(error).__name__}",
        where=archive,
        remedy="see that there is room on the disk" if full else "get it again, whole",
    )
