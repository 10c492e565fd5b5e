"""The images that an API's records name: fetched several at a time, named, and written with their boxes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from pipeline.data.fetch.http_client import HttpClient, HttpStatusError
from pipeline.data.fetch.image_cache import ImageCache, key_of
from pipeline.data.image_conversion import DetectedFormat, detect_format
from pipeline.data.parsed import ParsedBox
from pipeline.data.sources.api_records import ApiRecord
from pipeline.data.sources.image_files import unreadable_reason
from pipeline.data.sources.image_sink import ImageSink
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.data.sources.source import ApiSource
from pipeline.errors import DataError

_THREADS = 4
_LONGEST = 200  # bytes of a name taken from a URL


@dataclass(frozen=True)
class FetchedImage:
    """An image file on this machine: a key for its origin, its path, and its format by its header."""

    key: str
    path: Path
    format: DetectedFormat


class ImageFetcher:
    """Fetches the images of records, each once; `skipped` lists what could not be had.

    A context manager, which shows the progress.
    """

    def __init__(self, client: HttpClient, cache: ImageCache) -> None:
        self._client, self._cache = client, cache
        self._fetched: dict[str, FetchedImage | str] = {}  # or why there is none
        self.skipped: list[Skipped] = []

    def __enter__(self) -> ImageFetcher:
        self._bar = tqdm(desc="images from the API", unit="image", mininterval=0.5, ascii=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def fetch(self, records: Iterable[ApiRecord], base: str) -> list[tuple[ApiRecord, FetchedImage]]:
        """Fetch the images of a page.

        Args:
            records: The page's records; those whose image cannot be had are skipped.
            base: The URL that relative ones start from.

        Raises:
            UsageError: The endpoint wants another token.
            MissingError: The server keeps failing.
        """
        wanted = [(record, *self._location(record, base)) for record in records]
        self._fetch_all({key: url for _, key, url in wanted if url})
        taken = []
        for record, key, url in wanted:
            found = self._fetched.get(key, key)
            if isinstance(found, FetchedImage):
                taken.append((replace(record, url=url, data=b""), found))
            else:
                shown = f" ({self._client.access.shown(url)})" if url else ""
                self.skipped.append(Skipped(f"{record.where}{shown}", found))
            self.skipped += record.left_out
        return taken

    def _location(self, record: ApiRecord, base: str) -> tuple[str, str]:
        """The key of an image, and its URL if it has to be fetched; or the reason why there is none, and no URL."""
        if record.data:
            key = self._cache.keep(record.data)
            if key not in self._fetched:
                self._fetched[key] = _identified(self._cache.path(key), key)
                self._bar.update()
            return key, ""
        if not record.url:
            return "it has no image", ""
        try:
            url = self._client.access.absolute(record.url, base)
        except DataError:
            return "its URL is not valid", ""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            return f"its URL is of the kind '{parts.scheme[:20]}', which cannot be fetched", ""
        return (key_of(url), url) if parts.hostname else ("its URL has no host", "")

    def _fetch_all(self, urls: dict[str, str]) -> None:
        missing = [(key, url) for key, url in urls.items() if key not in self._fetched]
        with ThreadPoolExecutor(_THREADS) as pool:
            for (key, _), problem in zip(missing, pool.map(self._fetch, missing), strict=True):
                self._fetched[key] = problem or _identified(self._cache.path(key), key)
                self._bar.update()

    def _fetch(self, wanted: tuple[str, str]) -> str:
        """Fetch an image into the cache; returns why it cannot be had, or an empty text."""
        key, url = wanted
        try:
            self._cache.fetch(self._client, url, key)
        except HttpStatusError as error:
            return error.problem
        return ""


def write_records(
    found: list[tuple[ApiRecord, FetchedImage]],
    fetcher: ImageFetcher,
    source: ApiSource,
    images: Path,
    annotations: Path,
) -> LoadedSource:
    """Write images and `annotations.json`. The order of the records makes no difference.

    Records with the same image and the same name are one image; a box that several of them have is one box. If the
    source gives no names, images whose names would be equal get a part of their key into theirs.

    Raises:
        DataError: There is no image, two have the same name, or a name leads out of the folder.
    """
    names = _names(found)
    sink = ImageSink(images, names=frozenset(names.values()))
    sink.skipped += fetcher.skipped
    boxes: dict[str, Counter[str]] = {}
    for record, image in sorted(found, key=lambda each: each[0].where):
        name = names[image.key, record.name]
        seen = boxes.setdefault(name, Counter())
        sink.add(
            name,
            image.path,
            boxes=_unseen(record.boxes, seen),
            in_pixels=record.in_pixels,
            subset=record.subset,
            extra=record.extra,
            declared=record.size,
            annotated=record.annotated,
            unusable=bool(record.left_out),
            where=record.where,
        )
    sink.write_annotations(annotations, url=source.shown)
    return sink.finish("api", source.shown)


def _unseen(boxes: tuple[ParsedBox, ...], seen: Counter[str]) -> list[ParsedBox]:
    """The boxes that exceed those of the image's other records, which are then counted as seen."""
    own: Counter[str] = Counter()
    unseen = []
    for each in boxes:
        own[repr(each)] += 1
        if own[repr(each)] > seen[repr(each)]:
            unseen.append(each)
    seen |= own
    return unseen


def _names(found: list[tuple[ApiRecord, FetchedImage]]) -> dict[tuple[str, str], str]:
    """File names by the image's key and the name that the source gives it."""
    hints: dict[tuple[str, str], str] = {}
    images: dict[tuple[str, str], FetchedImage] = {}
    for record, image in found:
        group = image.key, record.name
        hint = record.hint or record.url
        hints[group] = min(hints.get(group, hint), hint)
        images[group] = image
    first_choice = {
        group: _with_suffix(group[1] or _from_url(hints[group]) or group[0][:16], images[group]) for group in hints
    }
    often = Counter(first_choice.values())
    names = {}
    for group, name in first_choice.items():
        path = PurePosixPath(name)
        unique = f"{path.stem}-{group[0][:12]}{path.suffix}"
        names[group] = name if group[1] or often[name] == 1 else str(path.with_name(unique))
    return names


def _with_suffix(name: str, image: FetchedImage) -> str:
    return name + image.format.suffix_for(name) if image.format.stays else name


def _from_url(url: str) -> str:
    last = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    clean = re.sub(r"[^\w.-]", "_", last).lstrip(".")
    return clean.encode()[-_LONGEST:].decode(errors="ignore")


def _identified(path: Path, key: str) -> FetchedImage | str:
    found = detect_format(path, named_as_image=False)
    if found.problem or not found.name:
        return found.problem or unreadable_reason(path)
    return FetchedImage(key, path, found)
