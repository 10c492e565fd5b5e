"""Images, annotation files and clips from files: a folder, an archive or a single file, at a path or any fsspec URL."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from pipeline.data.archives.unpacking import archive_kind, looks_like_archive, unpack
from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.image_conversion import detect_format
from pipeline.data.images import is_image_name
from pipeline.data.parsed import ParsedImage
from pipeline.data.sources.image_sink import ImageSink, Transfer, place
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import FetchOptions, FileSource
from pipeline.data.sources.video import extract_frames
from pipeline.errors import DataError

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


def load_files(source: FileSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take images, annotation files and the frames of clips.

    They keep their paths relative to the source, without the leading folders that all of them share. Images that the
    service takes stay byte for byte; others are converted, and get an additional suffix. The user's own files are
    copied, never linked. A converted image whose EXIF orientation was not 1 has it in its field `orientation`: its
    pixels were turned, so boxes drawn on them as stored must be, too.
    """
    found = fetch(source.url, options.cache, sha256=source.sha256, timeout=options.timeout, backoff=options.backoff)
    sink = ImageSink(images)
    with tempfile.TemporaryDirectory(prefix=f".{images.name}.", dir=images.parent) as draft:
        kind, files, transfer = _listed(found, Path(draft), sink, is_local=source.is_local)
        taken = [name for group in files.values() for name in group]
        if not taken:
            first = "; ".join(f"{each.item}: {each.reason}" for each in sink.skipped[:3])
            raise DataError(
                "there are no images and no annotations" + (f", but {first}" if first else ""),
                where=found.url,
                expected="images, annotations (.json .xml .txt .csv .yaml) or clips (.mp4 .avi .mkv .mov .webm)",
            )
        depth = len(PurePosixPath(os.path.commonpath([str(PurePosixPath(name).parent) for name in taken])).parts)
        pictures, markup, clips = (
            {"/".join(PurePosixPath(name).parts[depth:]): path for name, path in files.get(kind, {}).items()}
            for kind in ("image", "annotations", "clip")
        )
        sink.add_files(pictures, transfer)
        for name, path in markup.items():
            place(path, annotations / name, transfer)
        # the frames of a clip are in a folder named after it that no image is in
        used = Counter(str(PurePosixPath(name).with_suffix("")) for name in clips)
        used.update({str(parent) for name in pictures for parent in PurePosixPath(name).parents})
        for name, path in clips.items():
            if source.sampling is None:
                sink.skip(name, "a clip, and no frames were asked for")
                continue
            stem = str(PurePosixPath(name).with_suffix(""))
            for frame, jpeg, fields in extract_frames(path, name if used[stem] > 1 else stem, source.sampling):
                sink.add(ParsedImage(frame, 0, 0, extra=fields), jpeg, where=name)
        return sink.finish(kind, found.url, found.sha256)


def _listed(found: Fetched, draft: Path, sink: ImageSink, *, is_local: bool) -> tuple[str, Files, Transfer]:
    """The kind of source, its files, and how to bring them here; an archive is unpacked into the draft."""
    if found.path.is_dir():
        return "folder", _list_files(found.path, sink), "copy" if is_local else "link"
    name = found.path.name if is_local else unquote(found.url.rstrip("/").rpartition("/")[2])
    if unsafe_name(name) or not name.isprintable() or name.startswith("."):
        name = found.path.name
    kind = _kind_by_name(name) or ("image" if detect_format(found.path, named_as_image=False).name else None)
    if archive_kind(found.path) or looks_like_archive(name) or not kind:
        return "archive", _list_files(unpack(found.path, draft / "unpacked"), sink), "move"
    return "video" if kind == "clip" else "file", {kind: {name: found.path}}, "copy"


def _list_files(folder: Path, sink: ImageSink) -> Files:
    """List the files of a folder by kind, told by their names, or else by their content.

    Hidden files and those of the operating system are left out. Links are followed only to files within the folder.
    """

    def unreadable(error: OSError) -> None:
        sink.skip(os.path.relpath(error.filename, folder), f"the folder cannot be read: {error.strerror}")

    names = []
    for root, folders, files in os.walk(folder, onerror=unreadable):
        inside = Path(root).relative_to(folder)
        visible = [each for each in folders if not _hidden(each)]
        folders[:] = [each for each in visible if not (Path(root) / each).is_symlink()]
        for each in sorted({*visible} - {*folders}):
            sink.skip((inside / each).as_posix(), "a link to a folder")
        names += [(inside / each).as_posix() for each in files if not _hidden(each)]
    found: Files = defaultdict(dict)
    for name in sorted(names):
        kind, reason = _kind(folder, name)
        if kind:
            found[kind][name] = folder / name
        else:
            sink.skip(name, reason)
    return found


def _kind_by_name(name: str) -> FileKind | None:
    """The kind of a file by its name; None if the name does not tell."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in ANNOTATION_SUFFIXES:
        return None if _PAPERS.fullmatch(PurePosixPath(name).name) else "annotations"
    return "clip" if suffix in CLIP_SUFFIXES else "image" if is_image_name(name) else None


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES


def _kind(folder: Path, name: str) -> tuple[FileKind | None, str]:
    """The kind of a file, or the reason why it is not taken."""
    path = folder / name
    if unsafe_name(name) or not name.isprintable():  # bytes that are not UTF-8 are not printable either
        return None, "its name is not usable on every system"
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        return None, "a link that leads out of the folder"
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None, "no plain file"
        with path.open("rb"):
            pass
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    if kind := _kind_by_name(name):
        return kind, ""
    if looks_like_archive(name):
        return None, "an archive within: unpack it, or give its own URL"
    if PurePosixPath(name).suffix.lower() in _UNSUPPORTED_IMAGES:
        return None, "an image format that is not read: convert it to JPEG or PNG"
    found = detect_format(path, named_as_image=False)
    return ("image", "") if found.name or found.problem else (None, "neither an image nor an annotation")
