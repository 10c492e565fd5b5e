"""The kind of an archive, told by its first bytes, and its decompression in bounded memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import IO

import zstandard

from pipeline.data.archives.archive_members import Readable
from pipeline.errors import DataError

_SUPPORTED = "a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst archive"
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
_PIECE = 1 << 13  # bytes that are decompressed at a time
_MEMORY = 1 << 27  # bytes a decoder may take for its window; the tools' own defaults stay below


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


def not_an_archive(path: Path, kind: str) -> DataError:
    """The error for a file that cannot be unpacked."""
    start = _start(path)
    remedy = "get it again, whole"
    if kind == "zip":
        problem = "the zip archive is cut off: its end is missing"
    elif kind in {"7z", "rar"}:
        problem, remedy = f"{kind} archives cannot be read", "pack it again"
    elif start.lstrip().startswith(b"<"):
        problem, remedy = "the file is a web page, not an archive: the URL may want a login", "open it in a browser"
    else:
        problem = "the file is not an archive" if start else "the file is empty, and not an archive"
    return DataError(problem, where=path, expected=_SUPPORTED, remedy=remedy)


def decompressed(file: IO[bytes], kind: str) -> Readable:
    """The tar archive in a file of a kind, as a stream."""
    if kind == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")
    if kind == "bzip2":
        return bz2.BZ2File(file)
    if kind == "xz":
        return _Xz(file)
    if kind == "zstd":
        decoder = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
        return decoder.stream_reader(file, read_across_frames=True, closefd=False)
    return file


class _Xz:
    """An xz stream; unlike `lzma.LZMAFile` it does not give a header as much memory as that asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder = file, self._new()

    def read(self, size: int) -> bytes:
        while True:
            data = b""
            if self._decoder.eof:
                data = (self._decoder.unused_data or self._file.read(_PIECE)).lstrip(b"\0")
                if not data:
                    return b""
                self._decoder = self._new()  # another stream after the first
            elif self._decoder.needs_input:
                data = self._file.read(_PIECE)
                if not data:
                    raise EOFError("the compressed data end early")
            if out := self._decoder.decompress(data, size):
                return out

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(tarfile.BLOCKSIZE)
