"""Images, annotation files and clips from files: a folder, an archive or a single file, at a path or any fsspec URL."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from pipeline.data.archives.archive_types import archive_kind, looks_like_archive
from pipeline.data.archives.unpacking import unpack
from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.image_conversion import detect_format
from pipeline.data.sources.file_kinds import SourceFiles, common_depth, kind_by_name, list_files, single_file
from pipeline.data.sources.image_sink import ImageSink, place_file
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.data.sources.source import FetchOptions, FileSource
from pipeline.data.sources.video import Sampling, extract_frames
from pipeline.errors import DataError


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
        transfer = place.transfer
        sink = ImageSink(
            images, names={names[name] for name in place.files.images}, transfer=transfer, keep_unreadable=True
        )
        sink.skipped += place.files.skipped
        sink.add_files({names[name]: place.path(name) for name in place.files.images})
        for name in place.files.annotations:
            place_file(place.path(name), annotations / names[name], transfer)
        _add_clips(place, names, sink, source.sampling)
        return sink.finish(place.kind, found.url, found.sha256)


@dataclass(frozen=True)
class _Listed:
    """The files of a source: below `folder`, or the one at `single`."""

    kind: str
    folder: Path
    files: SourceFiles
    transfer: Literal["copy", "link", "move"]
    single: Path | None = None

    def path(self, name: str) -> Path:
        return self.single or self.folder / name


@contextmanager
def _listed(found: Fetched, images: Path, *, is_local: bool) -> Iterator[_Listed]:
    if found.path.is_dir():
        yield _Listed("folder", found.path, list_files(found.path), "copy" if is_local else "link")
        return
    name = found.path.name if is_local else _original_name(found)
    kind = kind_by_name(name)
    is_image = bool(kind) or bool(detect_format(found.path, named_as_image=False).name)
    if archive_kind(found.path) or looks_like_archive(name) or not is_image:
        with tempfile.TemporaryDirectory(prefix=f".{images.name}.", dir=images.parent) as draft:
            folder = unpack(found.path, Path(draft) / "unpacked")
            yield _Listed("archive", folder, list_files(folder), "move")
        return
    source_kind = "video" if kind == "clip" else "file"
    yield _Listed(source_kind, found.path.parent, single_file(name, kind), "copy", found.path)


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
