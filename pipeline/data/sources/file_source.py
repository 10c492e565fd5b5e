"""Images and annotations from files: a folder, an archive, or a single file, at a path or behind any fsspec URL."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from PIL import Image
from tqdm import tqdm

from pipeline.data.archives.archive_types import archive_kind, looks_like_archive
from pipeline.data.archives.unpacking import unpack
from pipeline.data.coco import unsafe_name
from pipeline.data.fetch.credentials import expand
from pipeline.data.fetch.fetching import Fetched, fetch
from pipeline.data.image_conversion import UnreadableError, convert, look
from pipeline.data.image_names import is_image_name
from pipeline.data.sources.file_placement import place, write
from pipeline.data.sources.file_sorting import Sorted, kind_by_name, sort_files
from pipeline.data.sources.loaded_source import Raw, Skipped
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

Frames = Callable[[Path, Path, str], Mapping[str, Mapping[str, Any]]]

_WORKERS = min(4, os.cpu_count() or 1)  # each may hold a picture of the largest size, decoded


def load_files(
    url: str,
    images: Path,
    markup: Path,
    *,
    cache: Path,
    sha256: str = "",
    frames: Frames | None = None,
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> Raw:
    """Take images, annotations and clips out of files from outside.

    They keep their paths relative to the source, less single folders at the top that hold everything taken. Images
    that the service takes stay byte for byte; others are converted, and get a suffix more. Files of the user's are
    copied, never linked.

    Args:
        url: A folder, an archive, or one image, annotation file or clip: a path or URL, as for `fetch`.
        images: Where the images go; new or empty.
        markup: Where the annotation files go; new or empty.
        cache: Where downloads are kept.
        sha256: What the digest of the one file at the URL must be; empty to accept any.
        frames: Takes a clip, the folder for images, and the clip's name there; writes the clip's frames into a folder
            of that name, and gives what is known of each, by its name in the folder for images. Clips are skipped
            where it is None.
        timeout: Seconds to wait for an answer.
        backoff: Seconds before the second attempt at a download.

    Returns:
        What was taken, of kind `folder`, `archive` or `file`; the EXIF orientation of converted images, where it was
        not 1, as the field `orientation`: their pixels are turned, and so must be boxes drawn on them as stored.

    Raises:
        UsageError: The URL's kind or the digest's form is wrong.
        MissingError: There is nothing at the URL.
        DataError: The archive is broken or unsafe, the digest is another, or there is nothing that can be used.
    """
    found = fetch(url, cache, sha256=sha256, timeout=timeout, backoff=backoff)
    images.mkdir(parents=True, exist_ok=True)
    markup.mkdir(parents=True, exist_ok=True)
    is_ours = not _is_local(expand(url))
    with _source(found, images, is_ours=is_ours) as source:
        how = "move" if source.kind == "archive" else "link" if is_ours and source.kind == "folder" else "copy"
        if not (source.files.images or source.files.markup or source.files.clips):
            raise _nothing(found.url, source.files.skipped)
        taking = _Taking(source, images, markup, how)
        taking.images()
        taking.markup()
        taking.clips(frames)
    for each in taking.skipped[:5]:
        logger.info("skipped %s: %s", each.item, each.reason)
    if len(taking.skipped) > 5:
        logger.info("skipped %d more", len(taking.skipped) - 5)
    size = sum((images / name).stat().st_size for name in taking.written)
    skipped = tuple(sorted(taking.skipped, key=lambda each: (each.item, each.reason)))
    return Raw(
        source.kind,
        found.url,
        found.sha256,
        len(taking.written),
        size,
        skipped,
        dict(sorted(taking.renamed.items())),
        dict(sorted(taking.fields.items())),
    )


@dataclass(frozen=True)
class _Source:
    """Files to take: below `folder`, or with one file only at `single`."""

    kind: str
    folder: Path
    files: Sorted
    single: Path | None = None

    def path(self, name: str) -> Path:
        return self.single or self.folder / name


@contextmanager
def _source(found: Fetched, images: Path, *, is_ours: bool) -> Iterator[_Source]:
    if found.path.is_dir():
        yield _Source("folder", found.path, sort_files(found.path))
        return
    name = _original_name(found) if is_ours else found.path.name
    kind = kind_by_name(name)
    if archive_kind(found.path) or looks_like_archive(name) or not (kind or _is_image(found.path)):
        with tempfile.TemporaryDirectory(prefix=f".{images.name}.", dir=images.parent) as draft:
            folder = unpack(found.path, Path(draft) / "unpacked")
            yield _Source("archive", folder, sort_files(folder))
        return
    groups = {each: (name,) if each == (kind or "image") else () for each in ("image", "markup", "clip")}
    files = Sorted(groups["image"], groups["markup"], groups["clip"], ())
    yield _Source("file", found.path.parent, files, found.path)


def _is_image(path: Path) -> bool:
    return bool(look(path, named_as_image=False).format)


def _is_local(url: str) -> bool:
    return "://" not in url or url.lower().startswith("file:")


def _original_name(found: Fetched) -> str:
    """The name that a downloaded file has at its source, where that can be a file's name here."""
    name = unquote(found.url.rstrip("/").rpartition("/")[2])
    return found.path.name if unsafe_name(name) or not name.isprintable() or name.startswith(".") else name


def _nothing(shown: str, skipped: tuple[Skipped, ...]) -> DataError:
    first = "; ".join(f"{each.item}: {each.reason}" for each in skipped[:3])
    return DataError(
        "There are no images and no annotations" + (f", but {first}" if first else ""),
        where=shown,
        expected="images, annotations (.json .xml .txt .csv .yaml) or clips (.mp4 .avi .mkv .mov .webm)",
    )


class _Taking:
    """What brings files into their places, and keeps account of it."""

    def __init__(self, source: _Source, images: Path, markup: Path, how: str) -> None:
        self._source, self._images, self._markup, self._how = source, images, markup, how
        self._depth = source.files.depth
        self._names = {self._inside(name) for name in source.files.images}
        self.skipped = list(source.files.skipped)
        self.written: list[str] = []
        self.renamed: dict[str, str] = {}
        self.fields: dict[str, Mapping[str, Any]] = {}

    def images(self) -> None:
        """Take the images, converting those that have to be."""
        Image.init()  # which is not for several threads at once
        names = self._source.files.images
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                done = pool.map(self._prepared, names)
                bar = tqdm(done, "taking images", len(names), unit="file", mininterval=0.5, ascii=True)
                for name, prepared in zip(names, bar, strict=True):
                    self._account(name, prepared)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def markup(self) -> None:
        """Take the annotation files."""
        for name in self._source.files.markup:
            place(self._source.path(name), self._markup / self._inside(name), self._how)

    def clips(self, frames: Frames | None) -> None:
        """Have the clips' frames written."""
        names = [self._inside(name) for name in self._source.files.clips]
        stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
        folders = {str(parent) for name in self.written for parent in PurePosixPath(name).parents}
        for original, name, stem in zip(self._source.files.clips, names, stems, strict=True):
            if frames is None:
                self.skipped.append(Skipped(original, "a clip, and no frames were asked for"))
                continue
            own = name if stems.count(stem) > 1 or stem in folders else stem  # never into a folder that is in use
            fields = frames(self._source.path(original), self._images, own)
            self.fields |= fields
            self.written += sorted(fields)

    def _inside(self, name: str) -> str:
        return "/".join(PurePosixPath(name).parts[self._depth :])

    def _prepared(self, name: str) -> _Prepared:
        path = self._source.path(name)
        seen = look(path, named_as_image=is_image_name(name))
        if seen.problem:
            return _Prepared("", 1, (seen.problem,))
        if seen.stays:
            target = self._free_name(self._inside(name), seen.suffix_for(name))
            place(path, self._images / target, self._how)
            return _Prepared(target, 1, ())
        try:
            made = convert(path)
        except UnreadableError as error:
            return _Prepared("", 1, (str(error),))
        target = self._free_name(self._inside(name), made.suffix)
        write(made.data, self._images / target)
        said = ("only the first of its frames is taken",) * made.first_of_many
        return _Prepared(target, made.orientation, (*said, made.brightness) if made.brightness else said)

    def _account(self, name: str, prepared: _Prepared) -> None:
        self.skipped += [Skipped(name, reason) for reason in prepared.reasons]
        if not prepared.target:
            return
        self.written.append(prepared.target)
        if prepared.target != self._inside(name):
            self.renamed[self._inside(name)] = prepared.target
        if prepared.orientation != 1:
            self.fields[prepared.target] = {"orientation": prepared.orientation}

    def _free_name(self, name: str, suffix: str) -> str:
        """The name with the suffix added, and where another image of the source has that one, with a number."""
        if not suffix:
            return name
        numbered = (f"{name}{f'.{number}' if number > 1 else ''}{suffix}" for number in range(1, len(self._names) + 2))
        return next(each for each in numbered if each not in self._names)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """An image in its place, under a name relative to the folder, or none; its orientation; what there is to say."""

    target: str
    orientation: int
    reasons: tuple[str, ...]
