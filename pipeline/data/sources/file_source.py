"""Images, annotation files and clips from files: a folder, an archive or a single file, at a path or any fsspec URL."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from pipeline.data.archives.unpacking import archive_kind, looks_like_archive, unpack
from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.image_conversion import detect_format
from pipeline.data.images import is_image_name
from pipeline.data.sources.image_files import Transfer, place_file
from pipeline.data.sources.image_sink import ImageSink
from pipeline.data.sources.loaded_source import NEITHER, LoadedSource, Skipped
from pipeline.data.sources.source import FetchOptions, FileSource
from pipeline.data.sources.video import Sampling, extract_frames
from pipeline.errors import DataError

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


def load_files(source: FileSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take images, annotation files and the frames of clips.

    They keep their paths relative to the source, without the leading folders that all of them share. Images that the
    service takes stay byte for byte; others are converted, and get an additional suffix. The user's own files are
    copied, never linked.

    Args:
        source: The source.
        images: The folder for images, new or empty.
        annotations: The folder for annotation files, new or empty.
        options: How to fetch.

    Returns:
        What was taken, of kind `folder`, `archive`, `file` or `video`. The EXIF orientation of a converted image, if
        it was not 1, is its field `orientation`: its pixels were turned, so boxes drawn on them as stored must be, too.

    Raises:
        UsageError: The URL's kind or the form of the digest is wrong.
        MissingError: There is nothing at the URL.
        DataError: The archive is broken or unsafe, the digest differs, or nothing there can be used.
    """
    found = fetch(source.url, options.cache, sha256=source.sha256, timeout=options.timeout, backoff=options.backoff)
    images.mkdir(parents=True, exist_ok=True)
    annotations.mkdir(parents=True, exist_ok=True)
    with _listed(found, images, is_local=source.is_local) as place:
        if not place.files.taken:
            raise _nothing(found.url, place.files.skipped)
        depth = common_depth(place.files.taken)
        names = {name: "/".join(PurePosixPath(name).parts[depth:]) for name in place.files.taken}
        own = {names[name] for name in place.files.images}
        sink = ImageSink(images, names=own, transfer=place.transfer, keep_unreadable=True)
        sink.skipped += place.files.skipped
        sink.add_files({names[name]: place.path(name) for name in place.files.images})
        for name in place.files.annotations:
            place_file(place.path(name), annotations / names[name], place.transfer)
        _add_clips(place, names, sink, source.sampling)
        return sink.finish(place.kind, found.url, found.sha256)


@dataclass(frozen=True)
class _Listed:
    """The files of a source: below `folder`, or the one at `single`."""

    kind: str
    folder: Path
    files: _SourceFiles
    transfer: Transfer
    single: Path | None = None

    def path(self, name: str) -> Path:
        return self.single or self.folder / name


@contextmanager
def _listed(found: Fetched, images: Path, *, is_local: bool) -> Iterator[_Listed]:
    if found.path.is_dir():
        yield _Listed("folder", found.path, _list_files(found.path), "copy" if is_local else "link")
        return
    name = found.path.name if is_local else _original_name(found)
    kind = _kind_by_name(name)
    is_image = bool(kind) or bool(detect_format(found.path, named_as_image=False).name)
    if archive_kind(found.path) or looks_like_archive(name) or not is_image:
        with tempfile.TemporaryDirectory(prefix=f".{images.name}.", dir=images.parent) as draft:
            folder = unpack(found.path, Path(draft) / "unpacked")
            yield _Listed("archive", folder, _list_files(folder), "move")
        return
    source_kind = "video" if kind == "clip" else "file"
    files = {"annotations": _SourceFiles(annotations=(name,)), "clip": _SourceFiles(clips=(name,))}
    single = files.get(kind, _SourceFiles(images=(name,)))
    yield _Listed(source_kind, found.path.parent, single, "copy", found.path)


def _original_name(found: Fetched) -> str:
    """The name that a downloaded file has at its source, if that can be a file name here."""
    name = unquote(found.url.rstrip("/").rpartition("/")[2])
    return found.path.name if unsafe_name(name) or not name.isprintable() or name.startswith(".") else name


def _nothing(shown: str, skipped: tuple[Skipped, ...]) -> DataError:
    first = "; ".join(f"{each.item}: {each.reason}" for each in skipped[:3])
    return DataError(
        "there are no images and no annotations" + (f", but {first}" if first else ""),
        where=shown,
        expected="images, annotations (.json .xml .txt .csv .yaml) or clips (.mp4 .avi .mkv .mov .webm)",
        remedy="check the URL",
    )


def _add_clips(place: _Listed, names: dict[str, str], sink: ImageSink, sampling: Sampling | None) -> None:
    """Add the frames of each clip, in a folder named after it that no image is in."""
    stems = [str(PurePosixPath(names[name]).with_suffix("")) for name in place.files.clips]
    used = {str(parent) for name in place.files.images for parent in PurePosixPath(names[name]).parents}
    for name, stem in zip(place.files.clips, stems, strict=True):
        if sampling is None:
            sink.skip(name, "a clip, and no frames were asked for")
            continue
        folder = names[name] if stems.count(stem) > 1 or stem in used else stem
        for frame in extract_frames(place.path(name), folder, sampling):
            sink.add(frame.name, frame.jpeg, extra=frame.fields, where=name)


@dataclass(frozen=True)
class _SourceFiles:
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


def _list_files(folder: Path) -> _SourceFiles:
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
    return _SourceFiles(images, annotations, clips, tuple(in_order))


def _kind_by_name(name: str) -> FileKind:
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
    kind = _kind_by_name(name)
    if kind:
        return kind, ""
    if looks_like_archive(name):
        return "", "an archive within: unpack it, or give its own URL"
    if PurePosixPath(name).suffix.lower() in _UNSUPPORTED_IMAGES:
        return "", "an image format that is not read: convert it to JPEG or PNG"
    found = detect_format(path, named_as_image=False)
    return ("image", "") if found.name or found.problem else ("", NEITHER)
