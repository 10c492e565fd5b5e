"""The regular files of zip and tar archives: every name is checked, and every byte counted.

`tarfile` only parses headers here and extracts nothing. `_TarStream` bounds what headers make it do in some of the
Python versions that this project takes: move backwards without end (CVE-2025-8194), search long numbers in quadratic
time (CVE-2024-6232), and take headers of any length into memory.
"""

from __future__ import annotations

import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from pipeline.data.image_names import leads_out
from pipeline.errors import DataError

_MAX_BYTES = 1 << 36  # 64 GiB: COCO's largest archive, train2017.zip, unpacks to 18 GiB
_MAX_FILES = 1_000_000
_MAX_RATIO = 200.0  # bytes out per byte of archive; images stay near 1, annotation files near 10, bombs near 1000
_FREE_BYTES = 1 << 24  # allowed whatever the ratio: a small archive does no harm, and a blank image packs well
_CHUNK = 1 << 20
_ENCRYPTED, _IS_UTF8 = 0x1, 0x800  # of the general purpose flags: APPNOTE 6.3.10, 4.4.4
_UNICODE_PATH = 0x7075
_LABEL = b"V"  # GNU tar's name of a volume
_LONGEST_HEADER = 1 << 20  # bytes of all the headers of one file: its names and attributes
_LONG_NUMBER = re.compile(rb"\d{300}")  # longer than any file's name

# A checked name, in which lone surrogates stand for bytes of an unknown code page; and the bytes, which are read before
# the next member's.
Member = tuple[str, Iterator[bytes]]


class Allowance:
    """Counts the files and bytes that come out of an archive. What headers announce only refuses it sooner."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._limit = min(_MAX_BYTES, max(_FREE_BYTES, int(archive.stat().st_size * _MAX_RATIO)))
        self._left = self._limit
        self._names: set[str] = set()

    def take(self, size: int, name: str = "") -> None:
        """Count bytes that came out, and refuse the archive where they are too many."""
        self._left -= size
        self.expect(0, name)

    def expect(self, size: int, name: str = "") -> None:
        """Refuse the archive where so many announced bytes, of the file `name`, are more than may still come."""
        if size > self._left or self._left < 0:
            problem = f"the archive unpacks to more than {self._limit} bytes{f', with {name!r}' if name else ''}"
            remedy = "if you trust it, unpack it yourself and name the folder"
            raise DataError(problem, where=self._archive, remedy=remedy)

    def admit(self, name: str) -> str:
        """A file's name in its plain form; refuses a name that was there before, and too many files."""
        plain = str(PurePosixPath(name))
        if plain in self._names:
            raise DataError(f"the archive holds '{plain}' twice", where=self._archive, remedy="pack it again")
        self._names.add(plain)
        if len(self._names) > _MAX_FILES:
            expected = f"at most {_MAX_FILES} files"
            raise DataError("the archive holds more files", where=self._archive, expected=expected, remedy="split it")
        return plain


def zip_members(file: IO[bytes], archive: Path, allowance: Allowance) -> Iterator[Member]:
    """Give the regular files of a zip archive, all of them checked before the first."""
    with zipfile.ZipFile(file) as opened:
        files: list[tuple[str, zipfile.ZipInfo]] = []
        for info in opened.infolist():
            name = _zip_name(info)
            if not _is_wanted(name, info.filename, archive):
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _not_plain(name, archive)
            if info.flag_bits & _ENCRYPTED:
                remedy = "unpack it with its password, and name the folder"
                raise DataError(f"the archive is encrypted: {name!r}", where=archive, remedy=remedy)
            if not name.endswith("/"):
                files.append((allowance.admit(name), info))
        largest = max(files, key=lambda each: each[1].file_size, default=("", None))[0]
        allowance.expect(sum(info.file_size for _, info in files), largest)
        for name, info in files:
            yield name, _zip_chunks(opened, info, allowance)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A name with slashes. Only ASCII is certain where neither a flag nor a field says that it is in UTF-8."""
    name = info.filename
    if not info.flag_bits & _IS_UTF8 and not name.isascii():
        data = name.encode("cp437")  # as which zipfile has read it
        name = _unicode_path(info.extra, data) or _of_bytes(data)
    # APPNOTE 6.3.10, 4.4.17, which some tools on Windows ignore; but the second byte of a letter may be a backslash
    return name.replace("\\", "/") if is_certain(name) else name


def _unicode_path(extra: bytes, name: bytes) -> str:
    """The name in UTF-8 that 7-Zip and others add to one in a code page: APPNOTE 6.3.10, 4.6.9."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[1:5] == struct.pack("<I", zlib.crc32(name)):
            return field[5:].decode("utf-8", "replace")
    return ""


def _of_bytes(name: bytes) -> str:
    return name.decode("ascii", "surrogateescape")


def is_certain(name: str) -> bool:
    """Whether all bytes of a member's name could be read."""
    return name.isascii() or not any("\udc80" <= each <= "\udcff" for each in name)


def in_code_page(name: str, page: str, archive: Path, *, is_zip: bool) -> str:
    """The checked name of a member, of which not all bytes were certain, in a code page; empty if it is not wanted."""
    written = name.encode("utf-8", "surrogateescape").decode(page)
    decoded = written.replace("\\", "/") if is_zip else written
    return str(PurePosixPath(decoded)) if _is_wanted(decoded, written, archive) else ""


def _zip_chunks(opened: zipfile.ZipFile, info: zipfile.ZipInfo, allowance: Allowance) -> Iterator[bytes]:
    with opened.open(info) as source:
        while chunk := source.read(_CHUNK):
            allowance.take(len(chunk), info.filename)
            yield chunk


def tar_members(stream: Any, archive: Path, allowance: Allowance) -> Iterator[Member]:
    """Give the regular files of a decompressed tar archive one after the other."""
    source = _TarStream(stream, archive, allowance)
    for info in _tar_headers(source):
        name = info.name if "path" in info.pax_headers else _of_bytes(info.name.encode("utf-8", "surrogateescape"))
        if info.type == _LABEL or not _is_wanted(name, name, archive):
            continue
        if info.issym() or info.islnk() or info.isdev():
            raise _not_plain(name, archive)
        if info.isdir() or name.endswith("/"):
            continue
        has_holes = info.issparse() or any(key.startswith("GNU.sparse.") for key in info.pax_headers)
        if not info.isreg() or has_holes or info.size < 0:
            problem = f"the archive has a file of a kind that cannot be read: {name!r}"
            raise DataError(problem, where=archive, expected="plain files, without holes", remedy="pack it again")
        allowance.expect(info.size, name)
        source.seek(info.offset_data)
        yield allowance.admit(name), source.pieces(info.size)
    source.drain()


def _tar_headers(source: _TarStream) -> Iterator[tarfile.TarInfo]:
    try:
        opened: Any = tarfile.TarFile(fileobj=cast("IO[bytes]", source), encoding="utf-8")
        while (info := opened.next()) is not None:
            opened.members = []  # or it keeps them all
            source.header = 0
            yield info
    except (tarfile.TarError, RecursionError) as error:
        raise source.broken() from error
    if any(source.last):  # tarfile takes a broken header for the end, which is a block of zeros
        raise source.broken()


class _TarStream:
    """A file as `tarfile` reads it: forward only, every byte counted, and headers of bounded size."""

    def __init__(self, stream: Any, archive: Path, allowance: Allowance) -> None:
        self._stream, self._archive, self._allowance, self._position = stream, archive, allowance, 0
        self.header, self.last = 0, b""  # bytes of headers read since it was last set to 0, and the last piece of one

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        distance = position - self._position
        if distance < 0:
            raise ValueError("a header with a negative size")
        self._allowance.expect(distance)
        for _ in self.pieces(distance):
            pass

    def read(self, size: int) -> bytes:
        self.header += size
        if size < 0 or self.header > _LONGEST_HEADER:
            problem = f"the archive has a header of {self.header} bytes"
            raise DataError(problem, where=self._archive, expected=f"at most {_LONGEST_HEADER}", remedy="pack it again")
        self.last = b"".join(self.pieces(size))
        if _LONG_NUMBER.search(self.last):
            raise ValueError("a number of more than 300 digits in a header")
        return self.last

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._stream.read(min(size, _CHUNK))
            if not piece:
                raise EOFError("it ends early")
            self._allowance.take(len(piece))
            self._position += len(piece)
            size -= len(piece)
            yield piece

    def drain(self) -> None:
        """Read to the end, where the checksum of a compressed stream is compared."""
        while piece := self._stream.read(_CHUNK):
            self._allowance.take(len(piece))

    def broken(self) -> DataError:
        problem = "no tar archive" if self._position <= tarfile.BLOCKSIZE else f"a broken header at {self._position}"
        remedy = "get it again, or pack it again as a tar"
        return DataError(f"the archive holds {problem}", where=self._archive, remedy=remedy)


def _is_wanted(name: str, written: str, archive: Path) -> bool:
    """Whether a file is neither the folder that was packed, nor there only because macOS packed the archive."""
    parts = PurePosixPath(name).parts
    if not parts or "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._"):
        return False
    if leads_out(name):
        problem = f"the archive has a file that leads out of the folder: {written!r}"
        remedy = "pack it again from within its folder"
        raise DataError(problem, where=archive, expected="plain files under relative names", remedy=remedy)
    return True


def _not_plain(name: str, archive: Path) -> DataError:
    remedy = "pack it again with the files themselves: tar --dereference, or zip without -y"
    return DataError(f"the archive has a link or device: {name!r}", where=archive, remedy=remedy)
