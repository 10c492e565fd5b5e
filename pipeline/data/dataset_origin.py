"""Where a dataset comes from and what it holds: its source, format, description and licences.

Loading records the source in the dataset's `info`, which is kept through preparation. `licenses` and each image's
`license`, as COCO has them, say who may use it. A subset keeps the whole list of licences, so that the ids in its
images mean what they meant in the source; which of them its images have is counted here.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.fetch.credentials import redact, redact_text

LOADED_FROM = "loaded_from"  # the key in `info`

_LOCAL = ("file", "local")
_CHAIN = re.compile(r"::(?![0-9A-Fa-f:.]*(?:%\w+)?\])")  # between the parts of an fsspec URL; not that in [::1]
_PUBLISHED = ("url", "version", "year", "contributor", "date_created")  # of COCO's `info`


@dataclass(frozen=True, slots=True)
class ImageLicence:
    """A licence that a dataset states."""

    name: str
    url: str  # empty where none is stated
    images: int  # of the dataset that have it; 0 if it is stated for the dataset as a whole


@dataclass(frozen=True)
class DatasetOrigin:
    """What a dataset says of its origin, and how much it holds.

    Texts are empty where nothing is recorded. They can be written as UTF-8, and no URL in them has a secret.
    """

    source: str = ""  # the URL without credentials; of a local path the last name
    annotations: str = ""  # likewise, where they were not beside the images
    format: str = ""  # that the annotations were read as; empty for sources whose annotations are not files
    description: str = ""
    published: Mapping[str, str] = field(default_factory=dict)  # what else the source states, as url, version and year
    licences: tuple[ImageLicence, ...] = ()  # those of the images, the most frequent first; else those stated for all
    unlicensed: int = 0  # images for which no licence is stated
    images: int = 0
    objects: int = 0  # boxes, without regions that are not judged
    classes: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: CocoDataset) -> DatasetOrigin:
        """The origin of a dataset in memory."""
        info = dataset.info
        loaded = info.get(LOADED_FROM)
        recorded = loaded if isinstance(loaded, dict) else {}
        licences, unlicensed = _licences(dataset)
        return cls(
            source=_text(recorded.get("source")),
            annotations=_text(recorded.get("annotations")),
            format=_text(recorded.get("format")),
            description=_text(info.get("description")),
            published={name: text for name in _PUBLISHED if (text := _text(info.get(name)))},
            licences=licences,
            unlicensed=unlicensed,
            images=len(dataset.images),
            objects=sum(not each.iscrowd for each in dataset.annotations),
            classes=tuple(_as_utf8(name) for name in dataset.classes),
        )

    @property
    def name(self) -> str:
        """What to call the dataset: its description, else the last part of its source, else an empty text."""
        return self.description or self.source.rstrip("/").rpartition("/")[2]


def read_origin(folder: Path) -> DatasetOrigin:
    """The origin of a dataset's folder, which holds `annotations.json`.

    Raises:
        MissingError: There is no such file.
        DataError: It is not a COCO instances file.
    """
    return DatasetOrigin.of(read_coco(folder / "annotations.json"))


def with_source(dataset: CocoDataset, source: str, *, annotations: str = "", format: str = "") -> CocoDataset:  # noqa: A002
    """The dataset with its source recorded in `info`, in place of one that was recorded before.

    The record is the same on every machine, as its bytes are part of the dataset's digest.

    Args:
        dataset: The dataset.
        source: URL or path of the images.
        annotations: That of the annotations, if they were not beside the images.
        format: What the annotations were read as.
    """
    record = {"source": portable(source), "annotations": portable(annotations), "format": format}
    return replace(dataset, info={**dataset.info, LOADED_FROM: {key: text for key, text in record.items() if text}})


def portable(url: str) -> str:
    """A URL without credentials, query and fragment; of a path on this machine, in any scheme, only the last name."""
    return "::".join(_portable(part) for part in _CHAIN.split(redact(url)))


def _portable(part: str) -> str:
    scheme, separator, place = part.partition("://")
    if not separator or scheme.lower() in _LOCAL:
        place = place if separator else part
        name = place.rstrip("/").rpartition("/")[2]
        if name in (".", ".."):  # they name nothing elsewhere
            name = Path(os.path.abspath(place)).name  # noqa: PTH100, a link keeps its own name
        return name or place[:1]
    if place.startswith("/"):  # no host: a file, such as a database's
        return f"{scheme}:///{place.rpartition('/')[2]}"
    return part


def _licences(dataset: CocoDataset) -> tuple[tuple[ImageLicence, ...], int]:
    """The licences, and how many images have none."""
    known: dict[str, Mapping[str, Any]] = {}
    for each in dataset.licenses:
        if _text(each.get("name")) or _text(each.get("url")):  # some tools write an empty licence
            known.setdefault(_line(each.get("id")), each)
    named = Counter(_line(image.extra.get("license")) for image in dataset.images)
    counts = {number: named[number] for number in known if number}
    shown = [number for number in counts if counts[number]] or list(known)
    found = [
        ImageLicence(_text(known[i].get("name")) or _text(known[i].get("url")), _text(known[i].get("url")), named[i])
        for i in shown
    ]
    found.sort(key=lambda each: -each.images)
    return tuple(found), len(dataset.images) - sum(counts.values())


def _text(value: Any) -> str:
    """A text or a number of the source as it may be shown and written: in one line, its URLs without secrets."""
    return _as_utf8(redact_text(_line(value)))


def _as_utf8(text: str) -> str:
    """The text with ? for a lone surrogate, which JSON can hold, and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _line(value: Any) -> str:
    """A text or a number in one line; anything else is no text."""
    is_text = isinstance(value, str | int | float) and not isinstance(value, bool)
    return " ".join(str(value).split()) if is_text else ""
