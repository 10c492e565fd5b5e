"""Whether a clip's file holds all the bytes that its container says it has.

FFmpeg plays a cut clip as far as it goes, leaves out what it cannot follow, and reports neither, so the sizes that
containers declare are read here:
ISO base media boxes (ISO/IEC 14496-12, section 4.2: MP4, MOV, M4V), RIFF chunks (AVI, OpenDML) and EBML elements
(RFC 8794, sections 5 and 6: Matroska, WebM).
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_ISO_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
_EBML_HEADER, _SEGMENT, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1F43B675
_IN_SEGMENT = frozenset(  # RFC 9559, section 5.1
    {_CLUSTER, 0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF}
)
_IN_CLUSTER = frozenset({0xE7, 0x5854, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0xEC, 0xBF})  # and the deprecated


def missing_bytes(clip: Path) -> int:
    """How many bytes the file is short of what its container declares.

    Returns:
        0 for a whole file, for one that does not say its size (a live recording), and for no known container.
    """
    size = clip.stat().st_size
    with clip.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        if start.startswith(b"RIFF"):
            declared = _riff_end(file, size)
        elif int.from_bytes(start[:4], "big") == _EBML_HEADER:
            declared = _segment(file)[1]
        elif start[4:8] in _ISO_FIRST:
            declared = _iso_end(file, size)
        else:
            declared = 0
    return max(0, declared - size)


def damaged_at(clip: Path) -> int:
    """The byte at which a Matroska or WebM file's elements stop fitting into one another; -1 where all do.

    FFmpeg looks for the next cluster then, and the frames between are lost. Other containers have an index of frames.
    """
    with clip.open("rb") as file:
        start, end = _segment(file)
        return _first_wrong(file, start, end or clip.stat().st_size, _IN_SEGMENT) if start else -1


def _iso_end(file: BinaryIO, size: int) -> int:
    """Where the last box at the top ends; a box of size 0 reaches to the end of the file."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(16)
        if len(header) < 8:
            return end + 8
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or not header[4:8].isascii():  # to the end, or something put after the clip
            return size
        end += length
    return end


def _riff_end(file: BinaryIO, size: int) -> int:
    """Where the last RIFF chunk ends: files over 1 GiB have several."""
    end = 0
    while end < size:
        file.seek(end)
        header = file.read(8)
        length = int.from_bytes(header[4:8], "little")
        if not header.startswith(b"RIFF") or length in {0, 0xFFFFFFFF}:  # something else, or never closed
            return min(end, size)
        end += 8 + length
    return end


def _segment(file: BinaryIO) -> tuple[int, int]:
    """Where the content of the segment, which holds everything, begins and ends; 0 where it does not say."""
    header = _element(file, 0)
    if header is None or header[0] != _EBML_HEADER or header[2] < 0:
        return 0, 0
    segment = _element(file, header[1] + header[2])
    if segment is None or segment[0] != _SEGMENT:
        return 0, 0
    _, start, length = segment
    return start, start + length if length >= 0 else 0


def _first_wrong(file: BinaryIO, position: int, end: int, known: frozenset[int]) -> int:
    while position < end:
        element = _element(file, position)
        if element is None or element[0] not in known:
            return position
        identifier, start, length = element
        if length < 0:  # unknown: a live recording
            return -1
        if start + length > end:
            return position
        inside = _first_wrong(file, start, start + length, _IN_CLUSTER) if identifier == _CLUSTER else -1
        if inside >= 0:
            return inside
        position = start + length
    return -1


def _element(file: BinaryIO, position: int) -> tuple[int, int, int] | None:
    """An element's identifier, where its content begins, and its length, -1 for unknown; None where there is none.

    Both numbers have a variable size: the leading zeros of the first byte say how many bytes follow.
    """
    file.seek(position)
    header = file.read(12)
    first = 8 - header[0].bit_length() + 1 if header and header[0] else 0
    if not 1 <= first <= 4 or len(header) <= first or not header[first]:
        return None
    more = 8 - header[first].bit_length() + 1
    size = header[first : first + more]
    if len(size) < more:
        return None
    length = int.from_bytes(size, "big") & ((1 << 7 * more) - 1)
    unknown = length == (1 << 7 * more) - 1
    return int.from_bytes(header[:first], "big"), position + first + more, -1 if unknown else length
