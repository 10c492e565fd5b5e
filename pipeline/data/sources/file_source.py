"""Images, annotation files and clips from files: a folder, an archive or a single file, at a path or any fsspec URL."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from pipeline.data.archives.unpacking import archive_kind, looks_like_archive, unpack
from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.image_conversion import detect_format
from pipeline.data.image_names import leads_out, safe_name
from pipeline.data.parsed import ParsedImage
from pipeline.data.sources.folder_listing import Files, kind_by_name, list_files
from pipeline.data.sources.image_sink import ImageSink, Transfer, place, safe_places
from pipeline.data.sources.labelme_pictures import write_pictures
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import FetchOptions, FileSource
from pipeline.data.sources.video import extract_frames
from pipeline.errors import DataError, MissingError


def load_files(source: FileSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take images, annotation files and the frames of clips.

    They keep their paths relative to the source, without the leading folders that all of them share; parts that are not
    usable on every system are replaced: see `safe_name`. Images that the service takes stay byte for byte; others are
    converted, and get an additional suffix. The user's own files are copied, never linked. A converted image whose EXIF
    orientation was not 1 has it in its field `orientation`: its pixels were turned, so boxes drawn on them as stored
    must be, too.
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
        pictures |= write_pictures(markup, pictures, Path(draft) / "pictures", sink)
        sink.add_files(pictures, transfer)
        places = safe_places(markup)
        for name, path in markup.items():
            place(path, annotations / places[name], transfer)
        member = next((places[each] for each in (source.member, safe_name(source.member)) if each in places), "")
        if source.member and not member:
            raise MissingError(f"there is no annotation file '{source.member}'", where=found.url)
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
        loaded = sink.finish(kind, found.url, found.sha256)
        shared = PurePosixPath(taken[0]).parts[:depth]
        root = unquote(found.url.rstrip("/").rpartition("/")[2]) if kind == "folder" else ""
        return replace(loaded, member=member, place="/".join((root, *shared)))


def _listed(found: Fetched, draft: Path, sink: ImageSink, *, is_local: bool) -> tuple[str, Files, Transfer]:
    """The kind of source, its files, and how to bring them here; an archive is unpacked into the draft."""
    if found.path.is_dir():
        return "folder", list_files(found.path, sink, follow_links=is_local), "copy" if is_local else "link"
    name = found.path.name if is_local else unquote(found.url.rstrip("/").rpartition("/")[2])
    if leads_out(name) or name.startswith("."):
        name = found.path.name
    kind = kind_by_name(name) or ("image" if detect_format(found.path, named_as_image=False).name else None)
    if archive_kind(found.path) or looks_like_archive(name) or not kind:
        unpacked = unpack(found.path, draft / "unpacked", say=sink.remarks.append)
        return "archive", list_files(unpacked, sink, follow_links=False), "move"
    return "video" if kind == "clip" else "file", {kind: {name: found.path}}, "copy"
