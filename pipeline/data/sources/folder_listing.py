"""The files of a folder by kind, told by their names, or else by their content, and where its links lead."""

from __future__ import annotations

import re
import stat
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.data.archives.unpacking import looks_like_archive
from pipeline.data.image_conversion import detect_format
from pipeline.data.images import is_image_name
from pipeline.data.sources.image_sink import ImageSink

FileKind = Literal["image", "annotations", "clip"]
Files = dict[FileKind, dict[str, Path]]  # the files of a source by kind and by POSIX path relative to it, sorted

ANNOTATION_SUFFIXES = frozenset({".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".names", ".labels"})
CLIP_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm"})
# Raw files of cameras are TIFF with a small preview, which is not the image; nothing here reads the others.
_UNSUPPORTED_IMAGES = frozenset(
    {".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
    | {".svg", ".exr", ".hdr", ".jxl", ".eps", ".wmf"}
)
_PAPERS = re.compile(r"(readme|licen[cs]e|copying|changelog|notice)(\.[\w-]+)*\.txt", re.IGNORECASE)
_SYSTEM_FILES = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "ehthumbs.db"})
_LONGEST_LINK = 1024  # bytes of a path in a text file


def list_files(folder: Path, sink: ImageSink, *, follow_links: bool) -> Files:
    """List the files of a folder; those that are left out are skipped in the sink, but for hidden and system files.

    Links are followed to files and folders, within the folder or outside it, but never into a folder that they lie in:
    only in a folder that the user has named. Git on systems without links leaves text files with their targets; these
    are links, too.
    """
    root = folder.resolve()
    files, outside = dict[str, Path](), 0
    pending = [(root, "", frozenset({root, *root.parents}))]
    while pending:
        place, inside, above = pending.pop()
        try:
            entries = list(place.iterdir())
        except OSError as error:
            sink.skip(inside or ".", f"the folder cannot be read: {error.strerror}")
            continue
        for entry in entries:
            if _is_hidden(entry.name):
                continue
            name = f"{inside}/{entry.name}" if inside else entry.name
            target = _target(entry) if follow_links else None
            outside += target is not None and not target.is_relative_to(root)
            found = target or entry
            if not found.is_dir():
                files[name] = found
            elif found in above:
                sink.skip(name, "a link to a folder that it lies in")
            else:
                pending.append((found, name, above | {found}))
    if outside:
        sink.remarks.append(f"links that lead out of the folder, and are followed: {outside}")
    return _by_kind(files, sink)


def kind_by_name(name: str) -> FileKind | None:
    """The kind of a file by its name; None if the name does not tell."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in ANNOTATION_SUFFIXES:
        return None if _PAPERS.fullmatch(PurePosixPath(name).name) else "annotations"
    return "clip" if suffix in CLIP_SUFFIXES else "image" if is_image_name(name) else None


def _by_kind(files: dict[str, Path], sink: ImageSink) -> Files:
    found: Files = defaultdict(dict)
    for name in sorted(files):
        kind, reason = _kind(files[name], name)
        if kind:
            found[kind][name] = files[name]
        else:
            sink.skip(name, reason)
    return found


def _target(path: Path) -> Path | None:
    """Where a link leads, as far as there is something; None for anything but a link."""
    try:
        if path.is_symlink():
            return path.resolve(strict=True)
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= _LONGEST_LINK:
            return None
        text = path.read_bytes()
        if b"/" not in text or b"\n" in text:
            return None
        target = (path.parent / text.decode()).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # the last is a loop of links, before Python 3.13
        return None
    is_link = kind_by_name(path.name) is None if target.is_dir() else target.suffix == path.suffix != ""
    return target if is_link else None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES


def _kind(path: Path, name: str) -> tuple[FileKind | None, str]:
    """The kind of a file, or the reason why it is not taken."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None, "no plain file"
        with path.open("rb"):
            pass
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    if kind := kind_by_name(name):
        return kind, ""
    if looks_like_archive(name):
        return None, "an archive within: unpack it, or give its own URL"
    if PurePosixPath(name).suffix.lower() in _UNSUPPORTED_IMAGES:
        return None, "an image format that is not read: convert it to JPEG or PNG"
    found = detect_format(path, named_as_image=False)
    return ("image", "") if found.name or found.problem else (None, "neither an image nor an annotation")
