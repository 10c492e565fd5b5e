"""Archives from outside, unpacked without trust in their contents.

An archive's kind is told by its first bytes. No file leaves the target folder, no archive grows beyond what is allowed,
and a broken one leaves nothing behind.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from tqdm import tqdm

from pipeline.data.archives.archive_members import Allowance, tar_members, zip_members
from pipeline.errors import DataError, PipelineError

_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")
_STARTS = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # of no files
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "rar",
}
_WINDOW = 1 << 27  # bytes that zstd may keep in memory; the tool's own default stays below
_BROKEN = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, zstandard.ZstdError, struct.error),
    *(EOFError, MemoryError, RuntimeError, ValueError, OverflowError, OSError),
)


def archive_kind(path: Path) -> str:
    """`zip`, `tar`, `gzip`, `bzip2`, `xz`, `zstd`, `7z`, `rar`, or empty for anything else."""
    start = _start(path)
    for mark, kind in _STARTS.items():
        if start.startswith(mark):
            return kind
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return "zip" if zipfile.is_zipfile(path) else ""  # something may stand before a zip archive
    return "tar"


def looks_like_archive(name: str) -> bool:
    """Whether a file's name has the suffix of an archive."""
    return name.lower().endswith(_SUFFIXES)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst file into a new folder, which is returned: all or nothing.

    Raises:
        DataError: The archive is cut, corrupt, encrypted or too large, or has a member that is no plain file, comes
            twice, or leads out of the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    bar: dict[str, Any] = {"desc": archive.name[:40], "mininterval": 0.5, "ascii": True}
    member = ""
    try:
        with archive.open("rb") as file, tqdm.wrapattr(file, "read", archive.stat().st_size, **bar) as counting:
            kind, allowance = _checked_kind(archive), Allowance(archive)
            content = _decompressed(cast("IO[bytes]", counting), kind)
            for member, chunks in (zip_members if kind == "zip" else tar_members)(content, archive, allowance):
                (draft / member).parent.mkdir(parents=True, exist_ok=True)
                with (draft / member).open("xb") as target:
                    target.writelines(chunks)
        draft.chmod(0o755)  # mkdtemp's own is for its maker alone
        return draft.replace(folder)
    except PipelineError:
        raise
    except _BROKEN as error:
        place = f" at '{member}'" if member else ""
        problem = f"the archive cannot be unpacked{place}: {error or type(error).__name__}"
        remedy = "get it again, whole, and see that there is room on the disk"
        raise DataError(problem, where=archive, remedy=remedy) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _checked_kind(archive: Path) -> str:
    kind, start = archive_kind(archive), _start(archive)
    if kind in {"7z", "rar"}:
        problem, remedy = f"{kind} archives cannot be read", "pack it again"
    elif kind and (kind != "zip" or zipfile.is_zipfile(archive)):
        return kind
    elif kind == "zip":
        problem, remedy = "the zip archive is cut off: its end is missing", "get it again, whole"
    elif start.lstrip().startswith(b"<"):
        problem, remedy = "the file is a web page, not an archive", "open the URL in a browser: does it want a login?"
    else:
        problem, remedy = f"the file is {'not an archive' if start else 'empty'}", "get it again, whole"
    expected = "a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst archive"
    raise DataError(problem, where=archive, expected=expected, remedy=remedy)


def _decompressed(file: IO[bytes], kind: str) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind == "bzip2":
        return bz2.BZ2File(file)
    if kind == "xz":
        return lzma.LZMAFile(file)
    if kind == "zstd":
        decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return decoder.stream_reader(file, read_across_frames=True, closefd=False)
    return file


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(tarfile.BLOCKSIZE)
