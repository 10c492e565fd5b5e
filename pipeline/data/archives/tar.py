"""The regular files of a tar archive, read from front to back in one stream.

The formats are ustar, GNU's and pax (IEEE Std 1003.1-2017, pax, "ustar Interchange Format" and "pax Header Block").
The standard library's `tarfile` is not used: in Python versions that this project takes, its `data` filter can be led
out of the folder (CVE-2025-4517), negative sizes make it loop without end (CVE-2025-8194), and it takes headers of any
length into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.data.archives.archive_limits import CHUNK, Allowance, Member, check_name, is_junk, no_plain_file
from pipeline.errors import DataError

_BLOCK = 512
_LONGEST_EXTRA = 1 << 20  # bytes of an additional header: names and attributes of one file
_REGULAR, _FOLDER = b"0\x007", b"5"
_LINKS_AND_DEVICES = b"12346"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _LABEL = b"L", b"K", b"xX", b"g", b"V"


def is_tar_header(block: bytes) -> bool:
    """Whether 512 bytes are the header of a tar archive's member, told by their checksum."""
    if len(block) < _BLOCK or not any(block):
        return False
    try:
        declared = _number(block[148:156])
    except ValueError:
        return False
    unsigned = sum(block[:148]) + sum(block[156:_BLOCK]) + 8 * 0x20
    if declared == unsigned:
        return True
    return declared == unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:_BLOCK])  # as old tars count


def tar_members(stream: IO[bytes], archive: Path, allowance: Allowance) -> Iterator[Member]:
    """Give the regular files one after the other. Each one's bytes must be read, or left, before the next is asked for.

    Args:
        stream: The tar archive, already out of its compression.
        archive: Stands for it in messages.
        allowance: Counts all bytes of the stream, headers too.

    Raises:
        DataError: The archive is cut, corrupt or too large, or has a member that is a link or leads out of the folder.
    """
    source = _Source(stream, archive, allowance)
    count = 0
    while (header := _next_header(source)) is not None:
        count += 1
        allowance.count(count)
        if header.is_folder and not PurePosixPath(header.name).parts:
            continue  # the folder that was packed
        if is_junk(header.name):
            source.skip(header.padded)
            continue
        check_name(header.name, archive)
        if header.kind in _LINKS_AND_DEVICES:
            raise no_plain_file(header.name, archive)
        if header.is_folder:
            source.skip(header.padded)
            continue
        if header.kind not in _REGULAR or header.sparse:
            problem = f"The archive has a file of a kind that cannot be read: {header.name!r}"
            raise DataError(problem, where=archive, expected="plain files, without holes")
        allowance.expect(header.size, header.name)
        end = source.position + header.padded
        yield Member(allowance.admit(header.name), header.size, partial(source.pieces, header.size))
        source.skip(end - source.position)
    source.drain()


@dataclass(frozen=True)
class _Header:
    name: str
    kind: bytes
    size: int
    sparse: bool

    @property
    def is_folder(self) -> bool:
        return self.kind == _FOLDER or (self.kind in _REGULAR and self.name.endswith("/"))

    @property
    def padded(self) -> int:
        return 0 if self.kind in _LINKS_AND_DEVICES else -(-self.size // _BLOCK) * _BLOCK


class _Source:
    """A stream that is only read forward, and whose every byte is counted."""

    def __init__(self, stream: IO[bytes], archive: Path, allowance: Allowance) -> None:
        self._stream, self._allowance = stream, allowance
        self.archive, self.position = archive, 0

    def exactly(self, size: int) -> bytes:
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self._stream.read(min(size, CHUNK))
            if not piece:
                raise EOFError("it ends early")
            self._allowance.take(len(piece))
            self.position += len(piece)
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        self._allowance.expect(size)
        for _ in self.pieces(size):
            pass

    def drain(self) -> None:
        """Read on to the end, so that a checksum there is compared."""
        while piece := self._stream.read(CHUNK):
            self._allowance.take(len(piece))


def _next_header(source: _Source) -> _Header | None:
    """The header of the next member with what additional headers say of it; None at the end of the archive."""
    name, size, sparse = "", -1, False
    while True:
        block = source.exactly(_BLOCK)
        if not any(block):
            return None
        if not is_tar_header(block):
            problem = "no tar archive" if source.position == _BLOCK else f"a broken header at byte {source.position}"
            raise DataError(
                f"The archive holds {problem}", where=source.archive, remedy="get it again, or pack it again as a tar"
            )
        kind, own_size = block[156:157], _number(block[124:136])
        if kind in _LONG_NAME + _LONG_LINK + _PAX + _PAX_GLOBAL + _LABEL:
            extra = _extra(source, own_size)
            if kind == _LONG_NAME:
                name = _text(extra.partition(b"\0")[0])
            elif kind in _PAX:
                records = _pax_records(extra)
                name = _text(records[b"path"]) if b"path" in records else name
                size = _digits(records[b"size"]) if b"size" in records else size
                sparse = sparse or any(key.startswith(b"GNU.sparse.") for key in records)
            continue
        return _Header(name or _own_name(block), kind, own_size if size < 0 else size, sparse)


def _extra(source: _Source, size: int) -> bytes:
    if size > _LONGEST_EXTRA:
        raise DataError(f"The archive has a header of {size} bytes", where=source.archive, remedy="pack it again")
    return source.exactly(-(-size // _BLOCK) * _BLOCK)[:size]


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Records of the form `LENGTH KEY=VALUE`, each with a line's end, LENGTH counting all of it."""
    records, start = {}, 0
    while start < len(data) and data[start]:
        space = data.index(b" ", start, start + 20)
        end = start + _digits(data[start:space])
        if end <= space + 1 or end > len(data) or data[end - 1 : end] != b"\n":
            raise ValueError("a broken pax header")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise ValueError("a broken pax header")
        records[key] = value
        start = end
    return records


def _digits(field: bytes) -> int:
    if not field.isdigit():
        raise ValueError("a broken number in a header")
    return int(field)


def _own_name(block: bytes) -> str:
    name, prefix = block[:100].partition(b"\0")[0], block[345:500].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return _text(name)


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")  # as old systems wrote names


def _number(field: bytes) -> int:
    """Octal digits, or with the first bit set a binary number, as GNU tar writes large ones."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise ValueError("a negative number in a header")
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if digits and not digits.isdigit():
        raise ValueError("a broken number in a header")
    return int(digits, 8) if digits else 0
