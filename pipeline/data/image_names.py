"""Names of files from outside, made safe to store on every system.

What a file system holds is taken under its own name where that is usable everywhere, blanks of any kind included. Other
names are stored under a safe one. A name and its safe name are the same name when annotations are compared with files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from pathlib import PurePosixPath, PureWindowsPath

_LONGEST = 190  # bytes of a part's stem; file systems take 255 a part, and suffixes are added
_LONGEST_SUFFIX = 10  # bytes
# Control characters, line and paragraph separators, backslashes, what stands for bytes that are not UTF-8, and the
# colon of a drive.
_ODD = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\\\\\ud800-\udfff]|(?<![^/])([^/]):")


def safe_name(name: str) -> str:
    r"""The name under which a file is stored: usable on every system, and the same each time.

    What cannot be used everywhere is written as `%5C`, the bytes in hexadecimal: control characters, line separators,
    backslashes, bytes that are not UTF-8, and a drive's colon. A part of the path that is too long is cut, and
    gets a digest of what it was; its suffix stays, so that an image and its label keep the same stem. A safe name is
    its own safe name. Two names may have the same one.

    `name` is a relative path with slashes. That it stays in its folder is not checked: see `leads_out`.
    """
    escaped = _ODD.sub(_escaped, name)
    if len(escaped) * 4 <= _LONGEST:
        return escaped
    return "/".join(map(_cut, escaped.split("/")))


def leads_out(name: str) -> bool:
    """Whether a relative path could lead out of the folder that it is joined to, on any system, or is no path."""
    parts, windows = PurePosixPath(name).parts, PureWindowsPath(name)
    return not parts or parts[0] == "/" or ".." in parts or ".." in windows.parts or bool(windows.root)


def numbered(name: str, taken: Container[str]) -> str:
    """A name, or with a number before its suffix the first that is not taken: `a.jpg`, `a.2.jpg`."""
    path, number, free = PurePosixPath(name), 1, name
    while free in taken:
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}").as_posix()
    return free


def _escaped(found: re.Match[str]) -> str:
    if found[1]:
        return f"{found[1]}%3A"
    byte_or_letter = ord(found[0])
    if 0xDC80 <= byte_or_letter <= 0xDCFF:
        return f"%{byte_or_letter - 0xDC00:02X}"
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _cut(part: str) -> str:
    stem, dot, suffix = part.rpartition(".")
    if not stem or len(suffix.encode()) >= _LONGEST_SUFFIX:
        stem, dot, suffix = part, "", ""
    if len(data := stem.encode()) <= _LONGEST:
        return part
    digest = hashlib.sha256(data).hexdigest()[:8]
    return data[: _LONGEST - 9].decode(errors="ignore") + f"~{digest}{dot}{suffix}"
