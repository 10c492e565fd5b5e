"""The regular files of a zip archive."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from pipeline.data.archives.archive_limits import CHUNK, Allowance, Member, check_name, is_junk, no_plain_file
from pipeline.errors import DataError

_ENCRYPTED = 0x1  # of the general purpose flags: APPNOTE 6.3.10, 4.4.4


def zip_members(file: IO[bytes], archive: Path, allowance: Allowance) -> Iterator[Member]:
    """Give the regular files, all of them checked before the first.

    Args:
        file: The archive, open.
        archive: Stands for it in messages.
        allowance: Counts the files' bytes as they are read.

    Raises:
        DataError: The archive is too large, encrypted, or has a member that is a link or leads out of the folder.
    """
    with zipfile.ZipFile(file) as opened:
        infos = [info for info in opened.infolist() if not is_junk(_name(info))]
        allowance.count(len(infos))
        files = [(allowance.admit(_name(info)), info) for info in infos if _is_file(info, archive)]
        largest = max(files, key=lambda each: each[1].file_size, default=("", None))[0]
        allowance.expect(sum(info.file_size for _, info in files), largest)
        for name, info in files:
            yield Member(name, info.file_size, partial(_chunks, opened, info, allowance))


def _name(info: zipfile.ZipInfo) -> str:
    """A member's name, with slashes, as APPNOTE 6.3.10, 4.4.17 wants them; some tools on Windows write backslashes."""
    return info.filename.replace("\\", "/")


def _is_file(info: zipfile.ZipInfo, archive: Path) -> bool:
    name = _name(info)
    is_folder = name.endswith("/")
    if is_folder and not PurePosixPath(name).parts:
        return False  # the folder that was packed
    check_name(name, archive, info.filename)
    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise no_plain_file(name, archive)
    if info.flag_bits & _ENCRYPTED:
        problem, remedy = f"The archive is encrypted: {name!r}", "unpack it with its password, and name the folder"
        raise DataError(problem, where=archive, expected="an archive without a password", remedy=remedy)
    return not is_folder


def _chunks(opened: zipfile.ZipFile, info: zipfile.ZipInfo, allowance: Allowance) -> Iterator[bytes]:
    with opened.open(info) as source:
        while chunk := source.read(CHUNK):
            allowance.take(len(chunk), info.filename)
            yield chunk
