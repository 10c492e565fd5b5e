"""Archives from outside, unpacked without trusting a word of them.

No file leaves the target folder, no archive grows beyond what is allowed, and a broken one leaves nothing behind. What
comes from an archive passes through `_members`: a further format is a further reader of members there.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from pipeline.data.coco import unsafe_name
from pipeline.errors import DataError, MissingError, PipelineError, UsageError

MAX_BYTES = 1 << 36  # 64 GiB: COCO's largest archive, train2017.zip, unpacks to 18 GiB
MAX_FILES = 1_000_000
MAX_RATIO = 200.0  # bytes out per byte of archive; pictures stay near 1, annotation files near 10, bombs near 1000
_CHUNK = 1 << 20
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


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive."""

    name: str
    open: Callable[[], IO[bytes]]


class _Allowance:
    """Counts the bytes that really come out of an archive; what its headers promise is not asked."""

    def __init__(self, archive: Path, max_bytes: int, max_ratio: float) -> None:
        by_ratio = int(archive.stat().st_size * max_ratio)
        self._archive, self._left, self._limit = archive, min(max_bytes, by_ratio), min(max_bytes, by_ratio)

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise DataError(
                f"The archive unpacks to more than {self._limit} bytes",
                where=self._archive,
                expected="an archive of pictures or annotations, which grow little",
                remedy="unpack it yourself, if it is to be trusted, and name the folder",
            )


def unpack(
    archive: Path,
    folder: Path,
    *,
    max_bytes: int = MAX_BYTES,
    max_files: int = MAX_FILES,
    max_ratio: float = MAX_RATIO,
) -> Unpacked:
    """Unpack a zip archive into a new folder, all of it or nothing.

    Args:
        archive: The file; its kind is told from its content.
        folder: Where to; must not exist, or be empty.
        max_bytes: How much may come out.
        max_files: How many files may.
        max_ratio: How many times the archive's own size may.

    Raises:
        UsageError: The folder holds something already.
        MissingError: There is no such archive.
        DataError: The archive is cut, corrupt, encrypted, too large, or has a member that leads out of the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("The folder to unpack into is not empty", where=folder, remedy="name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with _members(archive, max_files) as members:
            allowance = _Allowance(archive, max_bytes, max_ratio)
            bar = tqdm(members, desc=archive.name[:40], unit="file", mininterval=0.5, ascii=True)
            sizes = {member.name: _write(member, draft / member.name, allowance) for member in bar}
        draft.chmod(0o755)  # mkdtemp's own is for its maker alone
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Unpacked(folder, tuple(sorted(sizes)), sum(sizes.values()))


def extract(archive: Path, member: str, target: Path, *, max_ratio: float = MAX_RATIO) -> None:
    """Take one file out of a zip archive, reading no other.

    Raises:
        MissingError: There is no such archive, or no such member in it; names the nearest ones.
        DataError: As for `unpack`.
    """
    draft = target.with_name(f".{target.name}.draft")
    draft.unlink(missing_ok=True)
    try:
        with _members(archive) as members:
            named = {each.name: each for each in members}
            if member not in named:
                raise _no_member(archive, member, list(named))
            _write(named[member], draft, _Allowance(archive, MAX_BYTES, max_ratio))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _no_member(archive: Path, member: str, names: list[str]) -> MissingError:
    ending = [name for name in names if PurePosixPath(name).suffix == PurePosixPath(member).suffix]
    same_name = [name for name in ending if PurePosixPath(name).name == PurePosixPath(member).name]
    near = (same_name or get_close_matches(member, names, 3, 0.4) or ending)[:3]
    there = f"it has {', '.join(near)}" if near else f"none of its {len(names)} files is like it"
    return MissingError(f"The archive has no member '{member}'", where=archive, remedy=f"name the one meant: {there}")


@contextmanager
def _members(archive: Path, max_files: int = MAX_FILES) -> Iterator[list[_Member]]:
    """The regular files of an archive, every name checked, readable within this context.

    All that a broken archive can raise, here or while its members are read, comes out as one kind of error.
    """
    if not archive.is_file():
        raise MissingError("There is no such archive", where=archive)
    try:
        if not zipfile.is_zipfile(archive):
            raise _not_a_zip(archive)
        with zipfile.ZipFile(archive) as opened:
            yield _zip_members(opened, archive, max_files)
    except PipelineError:
        raise
    except _BROKEN as error:
        problem = f"The archive cannot be unpacked: {error or type(error).__name__}"
        raise DataError(problem, where=archive, remedy="get it again, whole") from error


def _zip_members(opened: zipfile.ZipFile, archive: Path, max_files: int) -> list[_Member]:
    infos = [info for info in opened.infolist() if not _is_junk(info.filename)]
    if len(infos) > max_files:
        raise DataError(f"The archive holds {len(infos)} files", where=archive, expected=f"at most {max_files}")
    members: dict[str, _Member] = {}
    for info in infos:
        _check(info, archive)
        name = str(PurePosixPath(info.filename))
        if info.is_dir():
            continue
        if name in members:
            raise DataError(f"The archive holds '{name}' twice", where=archive)
        members[name] = _Member(name, partial(opened.open, info))
    return list(members.values())


def _check(info: zipfile.ZipInfo, archive: Path) -> None:
    mode = info.external_attr >> 16
    if unsafe_name(info.filename):
        problem = f"The archive has a file that leads out of the folder: {info.filename!r}"
    elif stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        problem = f"The archive has a link or device where files were expected: {info.filename!r}"
    elif info.flag_bits & 0x1:
        problem = f"The archive is encrypted: {info.filename!r}"
    else:
        return
    raise DataError(problem, where=archive, expected="plain files under relative names")


def _is_junk(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or bool(parts and parts[-1] == ".DS_Store")


def _not_a_zip(archive: Path) -> DataError:
    with archive.open("rb") as file:
        start = file.read(512)
    if start.startswith(b"PK\x03\x04"):
        problem = "The zip archive is cut off: its end is missing"
    elif start.lstrip().startswith(b"<"):
        problem = "The file is a web page, not an archive: the URL may want a login"
    else:
        problem = "The file is not a zip archive"
    return DataError(problem, where=archive, expected="a zip archive", remedy="get it again, whole")


def _write(member: _Member, target: Path, allowance: _Allowance) -> int:
    target.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with member.open() as source, target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            allowance.take(len(chunk))
            size += file.write(chunk)
    return size
