"""Records and their pictures as the raw form: image files under safe names, and one COCO file."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pipeline.data.coco import Annotation, Category, CocoDataset, Image, unsafe_name, write_coco
from pipeline.data.image_conversion import UnreadableError, convert
from pipeline.data.parsed import UNANNOTATED_FIELD, UNUSABLE_FIELD
from pipeline.data.sources.api_images import Picture
from pipeline.data.sources.api_records import Record, Shape
from pipeline.data.sources.loaded_source import Raw, Skipped
from pipeline.errors import DataError

ANNOTATIONS = "annotations.json"
_LONGEST = 200  # bytes of a part of a path; file systems take 255, and a suffix may be added


@dataclass(frozen=True)
class _Entry:
    """An image of the data set, with all records that are of it, as one."""

    record: Record
    picture: Picture


def write_raw(
    found: Iterable[tuple[Record, Picture]], images: Path, markup: Path, *, url: str, skipped: Sequence[Skipped] = ()
) -> Raw:
    """Copy the images and write `annotations.json`. The order of the records makes no difference.

    Records with the same image and the same name are one image with the boxes of all. Where the source gives no names,
    images whose names would be the same get a part of their key into theirs. Boxes are those of the upright image.

    Args:
        found: The records, each with its picture.
        images: Where the images go.
        markup: Where the COCO file goes.
        url: The source, as it may be shown.
        skipped: What could not be taken.

    Raises:
        DataError: There is no image, two have the same name, or a name leads out of the folder.
    """
    left_out = list(skipped)
    written: dict[str, tuple[_Entry, str]] = {}
    named = _named(_merged(found))
    for name, entry in named.items():
        try:
            written[name] = entry, _write(entry.picture, name, images, named)
        except UnreadableError as error:
            left_out.append(Skipped(entry.record.where, str(error)))
    if not written:
        reason = f": {left_out[0].item}: {left_out[0].reason}" if left_out else ""
        raise DataError(f"There are no images{reason}", where=url, remedy="check the URL and the settings under api")
    write_coco(_dataset({name: entry for name, (entry, _) in written.items()}), markup / ANNOTATIONS)
    size = sum((images / file).stat().st_size for _, file in written.values())
    renamed = {name: file for name, (_, file) in written.items() if name != file}
    left_out.sort(key=lambda each: (each.item, each.reason))
    return Raw("api", url, "", len(written), size, tuple(left_out), renamed)


def _write(picture: Picture, name: str, images: Path, names: Collection[str]) -> str:
    """Write an image, converted where it has to be; returns the file's name."""
    target = images / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if picture.look.stays:
        shutil.copyfile(picture.path, target)
        return name
    made = convert(picture.path)
    free = f"{name}{made.suffix}"
    while free in names:
        free += made.suffix
    (images / free).write_bytes(made.data)
    return free


def _merged(found: Iterable[tuple[Record, Picture]]) -> list[_Entry]:
    groups: dict[tuple[str, str], list[tuple[Record, Picture]]] = {}
    for record, picture in found:
        groups.setdefault((picture.key, record.name), []).append((record, picture))
    return [_Entry(_as_one([record for record, _ in group]), group[0][1]) for _, group in sorted(groups.items())]


def _as_one(records: list[Record]) -> Record:
    """Records of one image as one: all boxes, those that several name once; of the rest what all agree on."""
    first = records[0]
    if len(records) == 1:
        return first
    most: Counter[Shape] = Counter()
    for record in records:
        most |= Counter(record.shapes)
    subsets = sorted({record.subset for record in records if record.subset})
    if len(subsets) > 1:
        raise DataError(f"The image is in two splits: {' and '.join(subsets)}", where=first.where)
    same = all(record.size == first.size for record in records)
    agreed = {
        key: value for key, value in first.extra.items() if all(other.extra.get(key) == value for other in records)
    }
    return Record(
        min(record.where for record in records),
        url=min(record.url for record in records),
        name=first.name,
        hint=min(record.hint for record in records),
        size=first.size if same else (0, 0),
        shapes=tuple(most.elements()),
        subset=subsets[0] if subsets else "",
        extra=agreed,
        left_out=tuple(each for record in records for each in record.left_out),
        annotated=any(record.annotated for record in records),
    )


def _named(entries: list[_Entry]) -> dict[str, _Entry]:
    """Entries by file name, sorted."""
    first_choice = [_file_name(entry) for entry in entries]
    often = Counter(first_choice)
    named: dict[str, _Entry] = {}
    for entry, name in zip(entries, first_choice, strict=True):
        if often[name] > 1 and not entry.record.name:
            path = PurePosixPath(name)
            name = str(path.with_name(f"{path.stem}-{entry.picture.key[:12]}{path.suffix}"))
        if name in named:
            both = f"{named[name].record.where} and {entry.record.where}"
            remedy = "name another field in api.name, or leave it empty to name images by their URLs"
            raise DataError(f"Two images have the name '{name}'", where=both, remedy=remedy)
        named[name] = entry
    for name, entry in named.items():
        if any(str(parent) in named for parent in PurePosixPath(name).parents):
            raise DataError(f"The name '{name}' is inside that of another image", where=entry.record.where)
    return dict(sorted(named.items()))


def _file_name(entry: _Entry) -> str:
    record = entry.record
    name = record.name or _from_url(record.hint or record.url) or entry.picture.key[:16]
    parts = PurePosixPath(name).parts
    too_long = any(len(part.encode("utf-8", "replace")) > _LONGEST for part in parts)
    if unsafe_name(name) or too_long or any(part.startswith(".") for part in parts) or not name.isprintable():
        expected = "a path inside the images folder, no part of it hidden or longer than 200 bytes"
        raise DataError(f"The image's name cannot be used: {name[:80]!r}", where=record.where, expected=expected)
    path = str(PurePosixPath(name))
    return path + entry.picture.look.suffix_for(path) if entry.picture.look.stays else path


def _from_url(url: str) -> str:
    last = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    clean = re.sub(r"[^\w.-]", "_", last).lstrip(".")
    return clean.encode()[-_LONGEST:].decode(errors="ignore")


def _dataset(entries: dict[str, _Entry]) -> CocoDataset:
    labels = sorted({shape.label for entry in entries.values() for shape in entry.record.shapes})
    ids = {label: index for index, label in enumerate(labels, 1)}
    images: list[Image] = []
    annotations: list[Annotation] = []
    for image_id, (name, entry) in enumerate(entries.items(), 1):
        record = entry.record
        width, height = size = record.size if all(record.size) else entry.picture.size
        extra = dict(record.extra) | ({"subset": record.subset} if record.subset else {})
        extra |= {} if record.annotated else {UNANNOTATED_FIELD: True}
        extra |= {UNUSABLE_FIELD: True} if record.left_out else {}
        images.append(Image(image_id, name, width, height, extra))
        for shape in sorted(record.shapes, key=lambda each: (each.label, json.dumps(each.box), repr(each.polygon))):
            annotations.append(_annotation(shape, len(annotations) + 1, image_id, ids[shape.label], size))
    categories = tuple(Category(ids[label], label) for label in labels)
    return CocoDataset(tuple(images), tuple(annotations), categories)


def _annotation(shape: Shape, own_id: int, image_id: int, category_id: int, size: tuple[int, int]) -> Annotation:
    across, down = (1.0, 1.0) if shape.in_pixels else (float(size[0]), float(size[1]))
    x, y, width, height = shape.box
    box = (x * across, y * down, width * across, height * down)
    area = shape.area * across * down if shape.area >= 0 else box[2] * box[3]
    outline = [[value for x, y in shape.polygon for value in (x * across, y * down)]] if shape.polygon else None
    return Annotation(own_id, image_id, category_id, box, area, segmentation=outline)
