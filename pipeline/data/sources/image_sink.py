"""Images and boxes of any source: safe names, formats, records merged by image, sizes, and one COCO file."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import PIL.Image
from tqdm import tqdm

from pipeline.data.coco import write_coco
from pipeline.data.fetch.http_client import is_web_page
from pipeline.data.image_conversion import UnreadableError, convert, detect_format
from pipeline.data.image_names import leads_out, numbered, safe_name
from pipeline.data.images import is_image_name, upright_size
from pipeline.data.parsed import ParsedImage, to_coco
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.errors import DataError

Transfer = Literal["copy", "link", "move"]

ANNOTATIONS = "annotations.json"
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold an image of the largest size, decoded
_OWN_FIELDS = frozenset({"id", "file_name", "width", "height", "subset"})  # that COCO and the split write themselves
DIFFERS = object()  # a field of an image that cannot be kept: it is bytes, or differs between the image's records


@dataclass(slots=True)
class _Entry:
    """An image, and what all records so far say about it. `name` is its name in annotations, `file` on disk."""

    where: str
    name: str = ""
    file: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = "no record has its image"
    content: str = ""  # the path, or the digest of the bytes: the same in all records
    notes: tuple[str, ...] = ()  # what the conversion left out or changed
    subset: str = ""
    records: list[ParsedImage] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class ImageSink:
    """Takes a source's images and boxes; boxes that are not `in_pixels` are in fractions of the image's size.

    Images go to disk at once; only names, boxes and fields are kept in memory. The order of the records makes no
    difference to what is written.
    """

    def __init__(self, images: Path, *, in_pixels: bool = True) -> None:
        self._images, self._in_pixels = images, in_pixels
        self._entries: dict[str, _Entry] = {}
        self._transfer: Transfer = "copy"
        self._keeps_unreadable = False
        self.names: Collection[str] = ()  # all of the source, where known: no converted image takes one of them
        self.skipped: list[Skipped] = []
        self.remarks: list[str] = []

    def add(self, record: ParsedImage, content: bytes | Path | None, *, where: str, problem: str = "") -> None:
        """Take an image, or a further record of it.

        Args:
            record: Its name is a path below the images folder, to which a suffix is added where the format needs one.
                Its size is what the boxes refer to; zeros stand for the file's own. A field that cannot be kept is
                `DIFFERS`.
            content: The file, its bytes, or None if another record has them.
            where: The record's place in the source, for messages.
            problem: Why there is no content.
        """
        name = _checked_name(record.name, where)
        entry = self._entries.setdefault(name, _Entry(where))
        if content is not None:
            identity = str(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
            if entry.content not in {"", identity}:
                raise DataError(f"the image '{name}' differs from that of {entry.where}", where=where)
            if not entry.content:
                entry.content = identity
                self._store(entry, name, content, where)
        elif problem and not entry.content:
            entry.problem = problem
        if record.subset and entry.subset not in {"", record.subset}:
            raise DataError(f"the image '{name}' is in two splits: {entry.subset} and {record.subset}", where=where)
        entry.subset = entry.subset or record.subset
        entry.records.append(record)
        for own, value in record.extra.items():
            key = f"source_{own}" if own in _OWN_FIELDS else own
            if value is DIFFERS or entry.extra.setdefault(key, value) != value:
                entry.extra[key] = DIFFERS

    def add_files(self, files: Mapping[str, Path], transfer: Transfer) -> None:
        """Take images without annotations, by their names, several at a time.

        Files that are named as images and cannot be identified as such are kept, for validation to report.
        """
        PIL.Image.init()  # not safe in several threads at once
        places = safe_places(files)
        self.names, self._transfer, self._keeps_unreadable = {*files, *places.values()}, transfer, True
        self._entries = {place: _Entry(name, name) for name, place in places.items()}
        with ThreadPoolExecutor(_WORKERS) as pool:
            stored = pool.map(self._store, self._entries.values(), self._entries, files.values(), files)
            list(tqdm(stored, "taking images", len(files), unit="file", mininterval=0.5, ascii=True))

    def skip(self, item: str, reason: str) -> None:
        """Record that something in the source is not taken."""
        self.skipped.append(Skipped(item, reason))

    def finish(self, kind: str, url: str, sha256: str = "", *, annotations: Path | None = None) -> LoadedSource:
        """Describe what was taken.

        With the folder `annotations`, write `annotations.json` there, a COCO file with all images, boxes and fields.
        A source whose annotations are files of their own gives none.
        """
        written = sorted((each for each in self._entries.values() if each.file), key=lambda each: each.name)
        self.skipped += [Skipped(each.where, each.problem) for each in self._entries.values() if not each.file]
        converted = [Skipped(each.where, note) for each in written for note in each.notes]
        lost = Counter(key for each in written for key, value in each.extra.items() if value is DIFFERS)
        for key, count in lost.items():
            self.skip(f"field '{key}'", f"it holds bytes, or differs between records of one image: {count} images")
        if annotations:
            write_coco(to_coco(map(self._merged, written)), annotations / ANNOTATIONS)
        fields = {each.file: each.extra for each in written if each.extra and not annotations}
        return LoadedSource(
            kind,
            url,
            sha256,
            images=len(written),
            bytes=sum((self._images / each.file).stat().st_size for each in written),
            skipped=tuple(sorted(self.skipped, key=lambda each: (each.item, each.reason))),
            converted=tuple(converted),
            remarks=tuple(self.remarks),
            renamed={each.name: each.file for each in written if each.name != each.file},
            fields=dict(sorted(fields.items())),
        )

    def _merged(self, entry: _Entry) -> ParsedImage:
        sizes = {(each.width, each.height) for each in entry.records}
        size = sizes.pop() if len(sizes) == 1 else (0, 0)
        width, height = size if all(size) else entry.size
        boxes = [box for each in entry.records for box in each.boxes]
        boxes.sort(key=lambda each: (each.label, json.dumps([each.bbox, each.iscrowd, each.segmentation])))
        if not self._in_pixels:
            boxes = [each.scaled(width, height) for each in boxes]
        annotated = any(each.annotated for each in entry.records)
        left_out = sum((Counter(each.left_out) for each in entry.records), Counter[str]())
        extra = {key: value for key, value in entry.extra.items() if value is not DIFFERS}
        return ParsedImage(entry.name, width, height, boxes, entry.subset, annotated, left_out, extra)

    def _store(self, entry: _Entry, name: str, content: bytes | Path, where: str) -> None:
        """Write an image, converted if the service would refuse it; `entry` gets its file, or the problem with it."""
        found = detect_format(content, named_as_image=is_image_name(name))
        if found.problem or not (found.name or self._keeps_unreadable):
            entry.problem = found.problem or unreadable_reason(content)
            return
        if found.stays:
            entry.file = self._write(name, found.suffix_for(name), content, where)
            entry.name = entry.name or entry.file
        else:
            try:
                made = convert(content)
            except UnreadableError as error:
                if not (found.is_deep and self._keeps_unreadable):
                    entry.problem = str(error)
                    return
                entry.file = self._write(name, found.suffix_for(name), content, where)  # for validation to report
                return
            suffix = found.suffix_for(name) if found.is_deep else made.suffix
            entry.file = self._write(name, suffix, made.data, where)
            entry.name, entry.notes = entry.name or name, made.notes
            if self._keeps_unreadable and made.orientation != 1:  # separate annotations may be for the file as stored
                entry.extra["orientation"] = made.orientation
        if not self._keeps_unreadable:
            entry.size = upright_size(self._images / entry.file)

    def _write(self, name: str, suffix: str, content: bytes | Path, where: str) -> str:
        """Write an image; returns its name, which has a number where another image of the source has that name."""
        file, number = name + suffix, 1
        while suffix and file in self.names:
            number += 1
            file = f"{name}.{number}{suffix}"
        target = self._images / file
        if target.exists() or any(parent.is_file() for parent in target.parents):
            raise DataError(f"the name '{file}' is that of another image, or inside one's", where=where)
        place(content, target, self._transfer)
        return file


def place(content: bytes | Path, target: Path, transfer: Transfer) -> None:
    """Write bytes, or copy, move or link a file, to a place whose folders are made."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            target.write_bytes(content)
        elif transfer == "move":
            content.replace(target)
        else:
            if transfer == "link":
                with suppress(OSError):  # another file system, or one without links
                    os.link(content, target)
                    return
            shutil.copyfile(content, target)
    except OSError as error:
        problem = f"the file cannot be written: {error.strerror or error}"
        raise DataError(problem, where=target.name, remedy="make room on the disk") from error


def unreadable_reason(content: bytes | Path) -> str:
    """Why a file cannot be identified as an image, as far as its first bytes tell."""
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        start = file.read(1024)
    if is_web_page(start):
        return "a web page came instead of an image: the URL may want a login"
    return "it is no image that can be read" if start else "the file is empty"


def safe_places(names: Collection[str]) -> dict[str, str]:
    """Where files are stored, by their names in the source: under safe names, with a number where that is taken."""
    places, taken = dict[str, str](), set(names)
    for name in names:
        safe = safe_name(name)
        places[name] = safe if safe == name else numbered(safe, taken)
        taken.add(places[name])
    return places


def _checked_name(name: str, where: str) -> str:
    """The safe name of an image in its plain form, if it stays in the images folder."""
    if leads_out(name) or any(part.startswith(".") for part in PurePosixPath(name).parts):
        expected = "a path inside the images folder, no part of it hidden"
        raise DataError(f"the image's name cannot be used: {name[:80]!r}", where=where, expected=expected)
    return safe_name(str(PurePosixPath(name)))
