"""A query's rows, one after the other, as image files and one COCO data set."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, unsafe_name
from pipeline.data.fetch.credentials import redact
from pipeline.data.fetch.fetching import fetch
from pipeline.data.image_conversion import UnreadableError, convert, look
from pipeline.data.image_headers import upright_size
from pipeline.data.image_names import is_image_name
from pipeline.data.parsed import UNANNOTATED_FIELD
from pipeline.data.sources.database_columns import Labelled, Row
from pipeline.data.sources.loaded_source import Skipped
from pipeline.errors import DataError, MissingError, UsageError

logger = logging.getLogger(__name__)

_DIFFERS = object()  # stands for a value that is not the same in all rows of an image
_LONGEST = 200  # bytes of a part of a path: file systems take 255, and a suffix may be added; letters in messages


@dataclass
class _Entry:
    """An image and all that the rows so far say of it; `name` is what the data set calls it, `file` what is written."""

    row: int
    mark: str = ""  # of its bytes, or its path: the same in all rows
    name: str = ""
    file: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str = "no row has its image"
    subset: str = ""
    boxes: list[Labelled] = field(default_factory=list)
    annotated: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


class Gathering:
    """Takes rows in; images go to disk at once, the rest is kept until the end.

    Args:
        images: Where the images go.
        cache: Where downloads are kept.
        base: The folder that relative paths start from.
        shown: The database, as it may be shown.
    """

    def __init__(self, images: Path, cache: Path, base: Path, shown: str) -> None:
        self._images, self._cache, self._base, self._shown = images, cache, base, shown
        self._entries: dict[str, _Entry] = {}

    def take(self, rows: Iterable[Row]) -> None:
        """Take rows in.

        Raises:
            DataError: Rows contradict one another, a name cannot be used, or a file cannot be fetched; names the row.
        """
        with tempfile.TemporaryDirectory(prefix=f".{self._images.name}.", dir=self._images.parent) as draft:
            for row in rows:
                self._take(row, Path(draft) / "image")

    @property
    def renamed(self) -> dict[str, str]:
        """Name in the data set to name in the folder, of images that had to be converted."""
        return {each.name: each.file for each in self._written() if each.name != each.file}

    @property
    def bytes(self) -> int:
        """Size of the images' files together."""
        return sum((self._images / each.file).stat().st_size for each in self._written())

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Images that cannot be read, and columns that could not be kept, in order of their names."""
        left = [(name, each) for name, each in sorted(self._entries.items()) if not each.file]
        images = [Skipped(f"row {each.row}, '{name}'", each.problem) for name, each in left]
        counts = Counter(key for each in self._written() for key, value in each.extra.items() if value is _DIFFERS)
        why = "it holds bytes, or differs between the rows of one image; so for"
        columns = [Skipped(f"column '{key}'", f"{why} {count} images") for key, count in sorted(counts.items())]
        return (*images, *columns)

    def dataset(self) -> CocoDataset:
        """What the rows tell, in an order that does not depend on theirs."""
        written = self._written()
        labels = sorted({box.label for entry in written for box in entry.boxes})
        ids = {label: i for i, label in enumerate(labels, 1)}
        images: list[Image] = []
        annotations: list[Annotation] = []
        for number, entry in enumerate(written, 1):
            extra = {key: value for key, value in entry.extra.items() if value is not _DIFFERS}
            extra |= {"subset": entry.subset} if entry.subset else {}
            extra |= {} if entry.annotated else {UNANNOTATED_FIELD: True}
            images.append(Image(number, entry.name, *entry.size, extra))
            for each in sorted(entry.boxes, key=lambda box: (box.label, json.dumps(box.box), box.iscrowd)):
                area = each.box[2] * each.box[3]
                own = len(annotations) + 1
                annotations.append(Annotation(own, number, ids[each.label], each.box, area, each.iscrowd))
        return CocoDataset(tuple(images), tuple(annotations), tuple(Category(ids[each], each) for each in labels))

    def _written(self) -> list[_Entry]:
        return sorted((each for each in self._entries.values() if each.file), key=lambda each: each.name)

    def _take(self, row: Row, draft: Path) -> None:
        name = self._name(row)
        entry = self._entries.setdefault(name, _Entry(row.number))
        mark = row.path if row.data is None else hashlib.sha256(row.data).hexdigest()
        if mark and not entry.mark:
            entry.mark = mark
            self._write(row, name, entry, draft)
        elif mark and mark != entry.mark:
            raise self._wrong(row, f"The image '{name}' is another than in row {entry.row}", "give each its own name")
        if row.subset and entry.subset not in {"", row.subset}:
            raise self._wrong(row, f"The image '{name}' is in two splits: {entry.subset} and {row.subset}")
        entry.subset = entry.subset or row.subset
        entry.boxes += row.boxes
        entry.annotated |= row.annotated
        for key, value in row.extra.items():
            if value is None or entry.extra.setdefault(key, value) != value:
                entry.extra[key] = _DIFFERS

    def _name(self, row: Row) -> str:
        name = row.name or _name_of(row.path)
        parts = PurePosixPath(name).parts
        too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST for part in parts)
        if unsafe_name(name) or too_long or any(part.startswith(".") for part in parts) or not name.isprintable():
            expected = "a path inside the images folder, no part of it hidden or longer than 200 bytes"
            raise self._wrong(row, f"The image's name cannot be used: {name[:80]!r}", expected)
        return str(PurePosixPath(name))

    def _write(self, row: Row, name: str, entry: _Entry, draft: Path) -> None:
        """Have an image in its place, converted where it has to be, or say why not."""
        source = self._file(row) if row.data is None else _drafted(row.data, draft)
        entry.problem = f"there is no file {redact(row.path)[:_LONGEST]}" if source is None else ""
        if source is None:
            return
        seen = look(source, named_as_image=is_image_name(name))
        if seen.problem or not seen.format:
            entry.problem = seen.problem or "it is no image that can be read"
            return
        suffix = seen.suffix_for(name) if seen.stays else ""
        try:
            made = None if seen.stays else convert(source)
        except UnreadableError as error:
            entry.problem = str(error)
            return
        if made:
            source = _drafted(made.data, draft)
        file = name + (made.suffix if made else suffix)
        self._place(row, source, file, ours=source == draft)
        entry.name, entry.file, entry.size = name + suffix, file, upright_size(self._images / file)

    def _place(self, row: Row, source: Path, file: str, *, ours: bool) -> None:
        target = self._images / file
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise FileExistsError(target)
        except (FileExistsError, NotADirectoryError):
            raise self._wrong(row, f"The name '{file}' is that of another image, or inside one's") from None
        if ours:
            source.replace(target)
        else:
            shutil.copyfile(source, target)

    def _file(self, row: Row) -> Path | None:
        """The file at a row's path; None where there is none on this machine."""
        if "${" in row.path:  # data does not get to read the environment
            raise self._wrong(row, "The path has a placeholder, which is not for paths out of a database")
        is_remote = "://" in row.path and not row.path.lower().startswith("file://")
        url = row.path if "://" in row.path else str(self._base / row.path)
        try:
            found = fetch(url, self._cache)
        except MissingError as error:
            if not is_remote:
                return None
            raise self._unreachable(row, error) from None
        except (DataError, UsageError) as error:
            raise self._unreachable(row, error) from None
        return found.path if found.path.is_file() else None

    def _unreachable(self, row: Row, error: DataError | MissingError | UsageError) -> DataError:
        remedy = "run it again, what came is kept; or leave the row out in the query"
        return self._wrong(row, f"The image {redact(row.path)} cannot be fetched: {error.problem}", remedy=remedy)

    def _wrong(self, row: Row, problem: str, expected: str = "", remedy: str = "") -> DataError:
        return DataError(problem, where=f"{self._shown}, row {row.number}", expected=expected, remedy=remedy)


def _drafted(data: bytes, draft: Path) -> Path:
    draft.unlink(missing_ok=True)  # a new file: to write over one can make the file system wait for the disk
    draft.write_bytes(data)
    return draft


def _name_of(path: str) -> str:
    """What an image is called where only its path is known: that path, where it is relative; else its last part."""
    if "://" in path:
        try:
            return unquote(urlsplit(path).path).rpartition("/")[2]
        except ValueError:  # no URL: refused with the row when it is fetched
            return unquote(path).rpartition("/")[2]
    return PurePosixPath(path).name if unsafe_name(path) else path
