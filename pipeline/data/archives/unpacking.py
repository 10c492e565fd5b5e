"""Archives from outside, unpacked without trust in their contents.

No file leaves the target folder, no archive grows beyond what is allowed, and a broken one leaves nothing behind. A
further kind of archive is a further function beside `zip_members` and `tar_members`.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from tqdm import tqdm

from pipeline.data.archives.archive_members import Allowance, Member, tar_members, zip_members
from pipeline.data.archives.archive_types import archive_kind, decompressed, not_an_archive
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    struct.error,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    OSError,
)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive into a new folder, all of it or nothing.

    Args:
        archive: A zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst file; its content tells its kind.
        folder: The target; must not exist, or be empty.

    Returns:
        The folder.

    Raises:
        UsageError: The folder is not empty.
        MissingError: There is no such archive.
        DataError: The archive is cut, corrupt, encrypted or too large, or has a member that is no plain file, comes
            twice, or leads out of the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("the folder to unpack into is not empty", where=folder, remedy="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _members(archive) as members:
            for member in members:
                _write(member, draft / member.name, archive)
        draft.chmod(0o755)  # mkdtemp's own is for its maker alone
        return draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[Member]]:
    """The regular files of an archive. What a broken archive raises here, and in the block, becomes a `DataError`."""
    if not archive.is_file():
        raise MissingError("there is no such archive", where=archive, remedy="check the path")
    with _wrapped_errors(archive, ""):
        kind = archive_kind(archive)
        if kind in {"", "7z", "rar"} or (kind == "zip" and not zipfile.is_zipfile(archive)):
            raise not_an_archive(archive, kind)
        allowance = Allowance(archive)
        bar: dict[str, Any] = {"desc": archive.name[:40], "mininterval": 0.5, "ascii": True}
        with archive.open("rb") as file, tqdm.wrapattr(file, "read", archive.stat().st_size, **bar) as counting:
            watched = cast("IO[bytes]", counting)
            if kind == "zip":
                yield zip_members(watched, archive, allowance)
            else:
                yield tar_members(decompressed(watched, kind), archive, allowance)


def _write(member: Member, target: Path, archive: Path) -> None:
    with _wrapped_errors(archive, f" at '{member.name}'"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.writelines(member.chunks())


@contextmanager
def _wrapped_errors(archive: Path, item: str) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except _BROKEN as error:
        full = isinstance(error, OSError) and error.filename is None and error.errno is not None
        raise DataError(
            f"the archive cannot be unpacked{item}: {error or type(error).__name__}",
            where=archive,
            remedy="see that there is room on the disk" if full else "get it again, whole",
        ) from error
