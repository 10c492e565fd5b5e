"""Images and boxes of any source: safe names, records merged by image, sizes, and one COCO file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import PIL.Image
from tqdm import tqdm

from pipeline.data.boxes import scale
from pipeline.data.coco import unsafe_name, write_coco
from pipeline.data.images import upright_size
from pipeline.data.parsed import ParsedBox, ParsedImage, to_coco
from pipeline.data.sources.image_files import ImageFolder, StoredImage, Transfer
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.errors import DataError

log = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"
_LONGEST = 200  # bytes of a part of a path; file systems take 255, and a suffix may be added
_LOGGED = 5  # skipped items
_WORKERS = min(4, os.cpu_count() or 1)  # each may hold an image of the largest size, decoded
_NO_FIELDS: Mapping[str, Any] = MappingProxyType({})
DIFFERS = object()
"""The value of an image's field that cannot be kept: it is bytes, or differs between the records of the image."""


@dataclass(slots=True)
class _Entry:
    """An image, and what all records so far say about it. `name` is its name in annotations, `file` on disk."""

    where: str
    name: str = ""
    file: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = "no record has its image"
    content: str = ""  # the path, or the digest of the bytes: the same in all records
    orientation: int = 1
    declared: tuple[int, int] | None = None
    subset: str = ""
    boxes: list[ParsedBox] = field(default_factory=list)
    in_pixels: bool = True
    annotated: bool = False
    unusable: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        return self.extra | ({"orientation": self.orientation} if self.orientation != 1 else {})


class ImageSink:
    """Takes a source's images and boxes.

    Images go to disk at once; only names, boxes and fields are kept in memory. The order of the records makes no
    difference to what is written.

    Args:
        images: The folder for images.
        names: As for `ImageFolder`, like the other arguments.
    """

    def __init__(
        self,
        images: Path,
        *,
        names: Collection[str] = (),
        transfer: Transfer = "copy",
        keep_unreadable: bool = False,
    ) -> None:
        self._images = ImageFolder(images, names, transfer, keep_unreadable)
        self._entries: dict[str, _Entry] = {}
        self._has_annotations = False
        self.skipped: list[Skipped] = []

    def add(
        self,
        name: str,
        content: bytes | Path | None,
        *,
        boxes: Sequence[ParsedBox] = (),
        in_pixels: bool = True,
        subset: str = "",
        extra: Mapping[str, Any] = _NO_FIELDS,
        declared: tuple[int, int] = (0, 0),
        annotated: bool = True,
        unusable: bool = False,
        where: str = "",
        problem: str = "",
    ) -> None:
        """Take an image, or a further record of it.

        Args:
            name: Its path below the images folder; a suffix is added where the format needs one.
            content: The file, its bytes, or None if another record has them.
            boxes: The objects in it, on the upright image.
            in_pixels: Whether boxes are in pixels; otherwise in fractions of the image's size.
            subset: `train`, `eval` or `test`; empty if the source does not say.
            extra: Other fields, kept with the image; `DIFFERS` for a value that cannot be kept.
            declared: Width and height in pixels that the boxes refer to; zeros for the file's own size.
            annotated: Whether the source says what is in the image, if only that nothing is.
            unusable: Whether something is drawn on it that cannot be used as a box.
            where: The record's place in the source, for messages.
            problem: Why there is no content.

        Raises:
            DataError: The name cannot be used or is that of another image, or two records contradict each other.
        """
        name = _checked_name(name, where)
        entry = self._entries.setdefault(name, _Entry(where))
        if content is not None:
            self._take_content(entry, name, content, where)
        elif problem and not entry.content:
            entry.problem = problem
        if subset and entry.subset not in {"", subset}:
            raise DataError(f"the image '{name}' is in two splits: {entry.subset} and {subset}", where=where)
        entry.subset = entry.subset or subset
        entry.declared = declared if entry.declared in {None, declared} else (0, 0)
        entry.boxes += boxes
        entry.in_pixels = in_pixels
        entry.annotated |= annotated
        entry.unusable |= unusable
        for key, value in extra.items():
            if value is DIFFERS or entry.extra.setdefault(key, value) != value:
                entry.extra[key] = DIFFERS

    def add_files(self, files: Mapping[str, Path]) -> None:
        """Take images without annotations, several at a time.

        Args:
            files: The file of each image, by its name.
        """
        PIL.Image.init()  # not safe in several threads at once
        with ThreadPoolExecutor(_WORKERS) as pool:
            try:
                stored = pool.map(self._images.store, files, files.values())
                bar = tqdm(stored, "taking images", len(files), unit="file", mininterval=0.5, ascii=True)
                for name, each in zip(files, bar, strict=True):
                    entry = self._entries[name] = _Entry(name)
                    self._record(entry, each)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def skip(self, item: str, reason: str) -> None:
        """Record that something in the source is not taken."""
        self.skipped.append(Skipped(item, reason))

    @property
    def has_entries(self) -> bool:
        """Whether any image was added, readable or not."""
        return bool(self._entries)

    def write_annotations(self, folder: Path, *, url: str) -> None:
        """Write `annotations.json`, a COCO file with all images, boxes and fields.

        Args:
            folder: Where to.
            url: The source, for messages.

        Raises:
            DataError: There is no image.
        """
        self._has_annotations = True
        written = self._written()
        if not written:
            self._skip_unwritten()
            reason = f": {self.skipped[0].item}: {self.skipped[0].reason}" if self.skipped else ""
            raise DataError(f"there are no images{reason}", where=url, remedy="check the URL and the source's options")
        write_coco(to_coco(map(_parsed, written)), folder / ANNOTATIONS)

    def finish(self, kind: str, url: str, sha256: str = "") -> LoadedSource:
        """Describe what was taken."""
        written = self._written()
        self._skip_unwritten()
        self.skipped.sort(key=lambda each: (each.item, each.reason))
        for each in self.skipped[:_LOGGED]:
            log.info("skipped %s: %s", each.item, each.reason)
        if len(self.skipped) > _LOGGED:
            log.info("skipped %d more", len(self.skipped) - _LOGGED)
        fields = {} if self._has_annotations else {each.file: each.fields for each in written}
        return LoadedSource(
            kind,
            url,
            sha256,
            images=len(written),
            bytes=sum((self._images.path / each.file).stat().st_size for each in written),
            skipped=tuple(self.skipped),
            renamed={each.name: each.file for each in written if each.name != each.file},
            fields={file: own for file, own in sorted(fields.items()) if own},
        )

    def _take_content(self, entry: _Entry, name: str, content: bytes | Path, where: str) -> None:
        identity = str(content) if isinstance(content, Path) else hashlib.sha256(content).hexdigest()
        if entry.content not in {"", identity}:
            problem = f"the image '{name}' differs from that of {entry.where}"
            raise DataError(problem, where=where, remedy="give each image its own name")
        if not entry.content:
            entry.content = identity
            self._record(entry, self._images.store(name, content, where))

    def _record(self, entry: _Entry, stored: StoredImage) -> None:
        entry.problem, entry.name, entry.file = stored.problem, stored.name, stored.file
        entry.orientation = stored.orientation
        if stored.file and not self._images.keep_unreadable:
            entry.size = upright_size(self._images.path / stored.file)
        for note in stored.notes:
            self.skip(entry.where, note)

    def _written(self) -> list[_Entry]:
        return sorted((each for each in self._entries.values() if each.file), key=lambda each: each.name)

    def _skip_unwritten(self) -> None:
        for name in [name for name, entry in self._entries.items() if not entry.file]:
            entry = self._entries.pop(name)
            self.skip(entry.where, entry.problem)
        lost = Counter(key for each in self._written() for key, value in each.extra.items() if value is DIFFERS)
        for key, count in lost.items():
            self.skip(f"field '{key}'", f"it holds bytes, or differs between records of one image: {count} images")


def _checked_name(name: str, where: str) -> str:
    """An image's name in its plain form.

    Raises:
        DataError: It leads out of the images folder, or is not usable on every system.
    """
    parts = PurePosixPath(name).parts
    too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST for part in parts)
    if unsafe_name(name) or too_long or any(part.startswith(".") for part in parts) or not name.isprintable():
        expected = f"a path inside the images folder, no part of it hidden or longer than {_LONGEST} bytes"
        raise DataError(f"the image's name cannot be used: {name[:80]!r}", where=where, expected=expected)
    return str(PurePosixPath(name))


def _parsed(entry: _Entry) -> ParsedImage:
    size = entry.declared if entry.declared and all(entry.declared) else entry.size
    boxes = sorted(entry.boxes, key=_order)
    if not entry.in_pixels:
        boxes = [_in_pixels(each, *size) for each in boxes]
    extra = {key: value for key, value in entry.extra.items() if value is not DIFFERS}
    return ParsedImage(entry.name, *size, boxes, entry.subset, entry.annotated, entry.unusable, extra)


def _order(box: ParsedBox) -> tuple[str, str, int, str]:
    points = [tuple(zip(outline[::2], outline[1::2], strict=True)) for outline in box.segmentation or ()]
    return box.label, json.dumps(box.bbox), box.iscrowd, ", ".join(map(repr, points))


def _in_pixels(box: ParsedBox, width: int, height: int) -> ParsedBox:
    area = None if box.area is None else box.area * width * height
    outlines = [
        [value * (height if i % 2 else width) for i, value in enumerate(each)] for each in box.segmentation or ()
    ]
    return replace(box, bbox=scale(box.bbox, width, height), area=area, segmentation=outlines or None)
