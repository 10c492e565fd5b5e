"""What kind of archive a file is, told by its first bytes, and what is inside its compression."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from pathlib import Path
from typing import IO, Any

from pipeline.data.archives.tar import is_tar_header
from pipeline.errors import DataError, UsageError

SUPPORTED = "a zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst archive"
SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")
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
_HEADER = 512  # bytes of a tar header
_MEMORY = 1 << 27  # bytes a decoder may take for its window; the tools' own defaults stay below


def archive_kind(path: Path) -> str:
    """`zip`, `tar`, `gzip`, `bzip2`, `xz`, `zstd`, `7z`, `rar`, or empty for anything else."""
    with path.open("rb") as file:
        start = file.read(_HEADER)
    for mark, kind in _STARTS.items():
        if start.startswith(mark):
            return kind
    if is_tar_header(start):
        return "tar"
    return "zip" if zipfile.is_zipfile(path) else ""  # something may stand before a zip archive


def looks_like_archive(name: str) -> bool:
    """Whether a file's name says that it is an archive."""
    return name.lower().endswith(SUFFIXES)


def no_archive(path: Path, kind: str) -> DataError:
    """The error for a file that cannot be unpacked."""
    with path.open("rb") as file:
        start = file.read(_HEADER)
    remedy = "get it again, whole"
    if kind == "zip":
        problem = "The zip archive is cut off: its end is missing"
    elif kind in {"7z", "rar"}:
        problem, remedy = f"{kind} archives cannot be read", "pack it again"
    elif start.lstrip().startswith(b"<"):
        problem, remedy = "The file is a web page, not an archive: the URL may want a login", "open it in a browser"
    else:
        problem = "The file is not an archive" if start else "The file is empty, and not an archive"
    return DataError(problem, where=path, expected=SUPPORTED, remedy=remedy)


def decoded(file: IO[bytes], kind: str) -> IO[bytes]:
    """What a file of a kind has inside, as a stream that is read from front to back in bounded memory."""
    streams: dict[str, Any] = {
        "tar": lambda: file,
        "gzip": lambda: gzip.GzipFile(fileobj=file, mode="rb"),
        "bzip2": lambda: bz2.BZ2File(file),
        "xz": lambda: io.BufferedReader(_Xz(file)),
        "zstd": lambda: io.BufferedReader(_Zstd(file)),
    }
    stream: IO[bytes] = streams[kind]()
    return stream


class _Xz(io.RawIOBase):
    """An xz stream; unlike `lzma.LZMAFile` it does not give a header as much memory as that asks for."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self._decoder, self._rest = file, self._new(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._decoder.eof:
                self._rest = (self._decoder.unused_data or self._file.read(io.DEFAULT_BUFFER_SIZE)).lstrip(b"\0")
                if not self._rest:
                    return 0
                self._decoder, data = self._new(), self._rest  # another stream after the first
            elif self._decoder.needs_input:
                data = self._file.read(io.DEFAULT_BUFFER_SIZE)
                if not data:
                    raise EOFError("the compressed data end early")
            out = self._decoder.decompress(data, len(buffer))
            if out:
                buffer[: len(out)] = out
                return len(out)

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)


class _Zstd(io.RawIOBase):
    """A zstd stream whose errors are ordinary ones."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        try:
            import zstandard
        except ImportError:
            remedy = "pip install zstandard"
            raise UsageError("The package 'zstandard' for tar.zst archives is missing", remedy=remedy) from None
        self._error = zstandard.ZstdError
        decoder = zstandard.ZstdDecompressor(max_window_size=_MEMORY)
        self._reader = decoder.stream_reader(file, read_across_frames=True, closefd=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._reader.readinto(buffer))
        except self._error as error:
            raise ValueError(str(error)) from None
