"""Archives from outside, unpacked without trust in their contents.

An archive's kind is told by its first bytes. No file leaves the target folder, no archive grows beyond what is allowed,
and a broken one leaves nothing behind.
"""

from __future__ import annotations

import bz2
import gzip
import logging
import lzma
import shlex
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, cast

import zstandard
from tqdm import tqdm

from pipeline.data.archives.archive_members import Allowance, in_code_page, is_certain, tar_members, zip_members
from pipeline.data.archives.code_pages import LIKELY, tell_code_page
from pipeline.data.image_names import safe_name
from pipeline.errors import DataError, PipelineError

log = logging.getLogger(__name__)

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
_LONGEST_PART = 255  # bytes, of a path on most file systems
_TEXTS, _TEXT_BYTES = {".json", ".xml", ".csv", ".txt", ".yaml", ".yml"}, 1 << 26  # that may hold names
_MOST_TEXTS = 200
_WESTERN = {True: "cp437", False: "cp1252"}  # of zip archives, and of others, on western machines
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


def unpack(archive: Path, folder: Path, *, say: Callable[[str], object] = log.info) -> Path:
    """Unpack a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst file into a new folder, which is returned: all or nothing.

    If the archive does not say how its names are encoded, `say` is told what they are read as. Names that are too long
    are stored under their safe names.

    Raises:
        DataError: The archive is cut, corrupt, encrypted or too large, has a member that is no plain file, comes
            twice, or leads out of the folder, or has names in a code page that cannot be told.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    bar: dict[str, Any] = {"desc": archive.name[:40], "mininterval": 0.5, "ascii": True}
    member = ""
    uncertain: dict[str, str] = {}  # names that are not certain, by where they are for now
    try:
        with archive.open("rb") as file, tqdm.wrapattr(file, "read", archive.stat().st_size, **bar) as counting:
            kind, allowance = _checked_kind(archive), Allowance(archive)
            content = _decompressed(cast("IO[bytes]", counting), kind)
            for member, chunks in (zip_members if kind == "zip" else tar_members)(content, archive, allowance):
                place = _stored(member)
                if not is_certain(member):
                    uncertain[place] = member
                (draft / place).parent.mkdir(parents=True, exist_ok=True)
                with (draft / place).open("xb") as target:
                    target.writelines(chunks)
        if uncertain:
            _name_anew(draft, uncertain, archive, say, is_zip=kind == "zip")
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


def _stored(name: str) -> str:
    """The name of a file where every file system takes it."""
    is_short = all(len(part.encode("utf-8", "replace")) <= _LONGEST_PART for part in name.split("/"))
    return name if is_short and is_certain(name) else safe_name(name)


def _name_anew(
    folder: Path, uncertain: Mapping[str, str], archive: Path, say: Callable[[str], object], *, is_zip: bool
) -> None:
    """Give files the names that they have in the code page that fits them and the texts in the archive."""
    raw = [name.encode("utf-8", "surrogateescape") for name in uncertain.values()]
    page, candidates = tell_code_page(raw, _texts(folder), _WESTERN[is_zip])
    if not page:
        raise _unknown_page(archive, candidates, is_zip=is_zip)
    names = {place: in_code_page(name, page, archive, is_zip=is_zip) for place, name in uncertain.items()}
    for place, name in names.items():
        target = folder / _stored(name)
        if not name:
            (folder / place).unlink()
            continue
        if target.exists():
            raise DataError(f"the archive holds '{name}' twice", where=archive, remedy="pack it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / place).rename(target)
    if page not in {"utf-8", _WESTERN[is_zip]}:
        example = next(filter(None, names.values()), "")
        say(f"the archive does not say how its names are encoded: they are read as {page}, such as {example}")


def _unknown_page(archive: Path, candidates: Mapping[str, str], *, is_zip: bool) -> DataError:
    page, path = next(iter(candidates), "gbk"), shlex.quote(str(archive))
    command = f"python -m zipfile --metadata-encoding {page} -e {path} FOLDER"
    if not is_zip:
        code = f"import tarfile; tarfile.open({str(archive)!r}, encoding={page!r}).extractall('FOLDER')"
        command = f"python -c {shlex.quote(code)}"
    there = ", or ".join(f"{shown} in {each}" for each, shown in candidates.items())
    return DataError(
        "the archive does not say how its names are encoded" + (f": they may be {there}" if there else ""),
        where=archive,
        expected="names in UTF-8, or in one code page that can be told",
        remedy=f"unpack it with the code page of the machine that packed it ({', '.join(candidates or LIKELY)}), such "
        f"as {command}, and name the folder",
    )


def _texts(folder: Path) -> Iterator[bytes]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _TEXTS and path.is_file())
    for path in found[:_MOST_TEXTS]:
        if path.stat().st_size <= _TEXT_BYTES:
            yield path.read_bytes()


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
