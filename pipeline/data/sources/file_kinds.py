"""The files of a folder by what they are: images, annotation files, clips, and skipped ones."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.data.archives.archive_types import looks_like_archive
from pipeline.data.coco import unsafe_name
from pipeline.data.image_conversion import detect_format
from pipeline.data.images import is_image_name
from pipeline.data.sources.loaded_source import NEITHER, Skipped

FileKind = Literal["image", "annotations", "clip", ""]

ANNOTATION_SUFFIXES = frozenset({".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".names", ".labels"})
CLIP_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm"})
# Raw files of cameras are TIFF with a small preview, which is not the image; nothing here reads the others.
_UNSUPPORTED_IMAGES = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}) | {
    ".svg",
    ".exr",
    ".hdr",
    ".jxl",
    ".eps",
    ".wmf",
}
_PAPERS = re.compile(r"(readme|licen[cs]e|copying|changelog|notice)(\.[\w-]+)*\.txt", re.IGNORECASE)
_SYSTEM_FILES = frozenset({"Thumbs.db", "desktop.ini", "ehthumbs.db"})


@dataclass(frozen=True)
class SourceFiles:
    """The files of a folder, as POSIX paths relative to it, sorted by name."""

    images: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    clips: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()

    @property
    def taken(self) -> tuple[str, ...]:
        """All files but the skipped ones."""
        return self.images + self.annotations + self.clips


def common_depth(names: Iterable[str]) -> int:
    """The number of leading folders that all of the paths share.

    >>> common_depth(["data/images/a.jpg", "data/labels/a.txt"])
    1
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    levels = enumerate(zip(*folders, strict=False))  # as deep as the shortest path
    least = min(map(len, folders), default=0)
    return next((depth for depth, level in levels if len(set(level)) > 1), least)


def list_files(folder: Path) -> SourceFiles:
    """List the files of a folder by kind, told by their names, or else by their content.

    Hidden files and those of the operating system are left out. Links are followed only to files within the folder.
    """
    groups: dict[FileKind, list[str]] = {"image": [], "annotations": [], "clip": []}
    skipped: list[Skipped] = []
    for name in _names(folder, skipped):
        kind, reason = _kind(folder, name)
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            groups[kind].append(name)
    in_order = sorted(skipped, key=lambda each: each.item)
    images, annotations, clips = (tuple(group) for group in groups.values())
    return SourceFiles(images, annotations, clips, tuple(in_order))


def single_file(name: str, kind: FileKind) -> SourceFiles:
    """A source that is one file."""
    one = (name,)
    if kind == "annotations":
        return SourceFiles(annotations=one)
    return SourceFiles(clips=one) if kind == "clip" else SourceFiles(images=one)


def kind_by_name(name: str) -> FileKind:
    """The kind of a file by its name; empty if the name does not tell."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in ANNOTATION_SUFFIXES:
        return "" if _PAPERS.fullmatch(PurePosixPath(name).name) else "annotations"
    return "clip" if suffix in CLIP_SUFFIXES else "image" if is_image_name(name) else ""


def _names(folder: Path, skipped: list[Skipped]) -> list[str]:
    names: list[str] = []

    def unreadable(error: OSError) -> None:
        item = Path(str(error.filename)).relative_to(folder).as_posix()
        skipped.append(Skipped(item, f"the folder cannot be read: {error.strerror}"))

    for root, folders, files in os.walk(folder, onerror=unreadable):
        inside = Path(root).relative_to(folder)
        linked = [each for each in folders if (Path(root) / each).is_symlink()]
        skipped += [Skipped((inside / each).as_posix(), "a link to a folder") for each in linked if not _hidden(each)]
        folders[:] = [each for each in folders if not _hidden(each) and each not in linked]
        names += [(inside / each).as_posix() for each in files if not _hidden(each)]
    return sorted(names)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX" or name in _SYSTEM_FILES


def _kind(folder: Path, name: str) -> tuple[FileKind, str]:
    """The kind of a file, or the reason why it is not taken."""
    path = folder / name
    if unsafe_name(name) or not name.isprintable():  # bytes that are not UTF-8 are not printable either
        return "", "its name is not usable on every system"
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return "", "a link that leads out of the folder"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "", "no plain file"
        with path.open("rb"):
            pass
    except OSError as error:
        return "", f"it cannot be read: {error.strerror}"
    kind = kind_by_name(name)
    if kind:
        return kind, ""
    if looks_like_archive(name):
        return "", "an archive within: unpack it, or give its own URL"
    if PurePosixPath(name).suffix.lower() in _UNSUPPORTED_IMAGES:
        return "", "an image format that is not read: convert it to JPEG or PNG"
    found = detect_format(path, named_as_image=False)
    return ("image", "") if found.name or found.problem else ("", NEITHER)
