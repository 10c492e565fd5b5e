"""The files of a folder from outside by what they are: images, annotations, clips, and what is left."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.data.archives.archive_types import looks_like_archive
from pipeline.data.coco import unsafe_name
from pipeline.data.image_conversion import look
from pipeline.data.image_names import is_image_name
from pipeline.data.sources.loaded_source import NEITHER, Skipped

MARKUP_SUFFIXES = frozenset({".json", ".xml", ".txt", ".csv", ".yaml", ".yml", ".names", ".labels"})
CLIP_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".m4v", ".webm"})
# Cameras' raw files are TIFF with a small preview, which is not the picture; the others are read by nothing here.
_UNREAD_IMAGES = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}) | {
    ".svg",
    ".exr",
    ".hdr",
    ".jxl",
    ".eps",
    ".wmf",
}
_PAPERS = re.compile(r"(readme|licen[cs]e|copying|changelog|notice)(\.[\w-]+)*\.txt", re.IGNORECASE)
_LITTER = frozenset({"Thumbs.db", "desktop.ini", "ehthumbs.db"})


@dataclass(frozen=True)
class Sorted:
    """The files of a folder, as POSIX paths relative to it, in order of their names."""

    images: tuple[str, ...]
    markup: tuple[str, ...]
    clips: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    @property
    def depth(self) -> int:
        """How many single folders at the top hold everything that is to be taken."""
        return common_depth([*self.images, *self.markup, *self.clips])


def common_depth(names: Iterable[str]) -> int:
    """How many folders all of the paths have in common at their beginning.

    >>> common_depth(["data/images/a.jpg", "data/labels/a.txt"])
    1
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    levels = enumerate(zip(*folders, strict=False))  # as deep as the shortest path
    least = min(map(len, folders), default=0)
    return next((depth for depth, level in levels if len(set(level)) > 1), least)


def sort_files(folder: Path) -> Sorted:
    """Tell what each file in a folder is, by its name, and where that says nothing, by its content.

    Hidden files and macOS's own are none. Links are followed only to files within the folder.
    """
    groups: dict[str, list[str]] = {"image": [], "markup": [], "clip": []}
    skipped: list[Skipped] = []
    for name in _names(folder, skipped):
        kind, reason = _kind(folder, name)
        if reason:
            skipped.append(Skipped(name, reason))
        else:
            groups[kind].append(name)
    in_order = sorted(skipped, key=lambda each: each.item)
    return Sorted(tuple(groups["image"]), tuple(groups["markup"]), tuple(groups["clip"]), tuple(in_order))


def kind_by_name(name: str) -> str:
    """`image`, `markup`, `clip`, or empty where a file's name does not tell."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in MARKUP_SUFFIXES:
        return "" if _PAPERS.fullmatch(PurePosixPath(name).name) else "markup"
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
    return name.startswith(".") or name == "__MACOSX" or name in _LITTER


def _kind(folder: Path, name: str) -> tuple[str, str]:
    """What a file is, or why it is not taken."""
    path = folder / name
    if unsafe_name(name) or not name.isprintable():  # the latter are also bytes that are no UTF-8
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
    if PurePosixPath(name).suffix.lower() in _UNREAD_IMAGES:
        return "", "an image format that is not read: convert it to JPEG or PNG"
    found = look(path, named_as_image=False)
    if found.format or found.problem:
        return "image", ""
    return "", NEITHER
