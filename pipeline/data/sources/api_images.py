"""The images that an API's records name: fetched a few at a time, measured, and left out where they cannot be had."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.http_responses import RefusedError, is_web_page
from pipeline.data.fetch.image_cache import ImageCache, key_of
from pipeline.data.image_conversion import Look, look
from pipeline.data.image_headers import UNREADABLE, upright_size
from pipeline.data.sources.api_records import Record
from pipeline.data.sources.loaded_source import Skipped
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

_THREADS = 4
_TOLD = 5  # of what is skipped; all of it is in the result


@dataclass(frozen=True)
class Picture:
    """An image file at hand.

    Attributes:
        key: Stands for where it came from.
        path: The file.
        size: Width and height in pixels, upright: the EXIF orientation is applied.
        look: What it is by its header.
    """

    key: str
    path: Path
    size: tuple[int, int]
    look: Look


@dataclass(frozen=True)
class _Place:
    """Where an image is: its key; its URL, unless its bytes came with the record; or why it is nowhere."""

    key: str = ""
    url: str = ""
    problem: str = ""


class Pictures:
    """Fetches the images of records, each once. `skipped` tells what could not be had.

    Use as a context manager, which shows the progress.
    """

    def __init__(self, client: HttpClient, cache: ImageCache) -> None:
        self._client, self._cache = client, cache
        self._at_hand: dict[str, Picture | str] = {}  # or the reason why it is not
        self.skipped: list[Skipped] = []

    def __enter__(self) -> Pictures:
        self._bar = tqdm(desc="images from the API", unit="image", mininterval=0.5, ascii=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def get(self, records: Iterable[Record], base: str) -> list[tuple[Record, Picture]]:
        """Fetch the images of a page.

        Args:
            records: The page's records; those whose image cannot be had are left out.
            base: The URL that relative ones start from.

        Raises:
            UsageError: The endpoint wants another token.
            DataError: The server keeps failing.
        """
        wanted = [(record, self._place(record, base)) for record in records]
        self._fetch_all({place.key: place.url for _, place in wanted if place.url})
        taken = []
        for record, place in wanted:
            found = place.problem or self._at_hand[place.key]
            if isinstance(found, Picture):
                taken.append((replace(record, url=place.url, data=b""), found))
            else:
                self._skip(record, found, place)
            self.skipped += record.left_out
        return taken

    def _place(self, record: Record, base: str) -> _Place:
        if record.data:
            key = self._cache.keep(record.data)
            if key not in self._at_hand:
                self._at_hand[key] = _open(self._cache.path(key), key)
                self._bar.update()
            return _Place(key)
        if not record.url:
            return _Place(problem="it has no image")
        try:
            url = self._client.access.absolute(record.url, base)
        except DataError:
            return _Place(problem="its URL is none")
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"}:
            return _Place(problem=f"its URL is of the kind '{parts.scheme[:20]}', which cannot be fetched")
        return _Place(key_of(url), url) if parts.hostname else _Place(problem="its URL has no host")

    def _fetch_all(self, urls: dict[str, str]) -> None:
        todo = [(key, url) for key, url in urls.items() if key not in self._at_hand]
        with ThreadPoolExecutor(_THREADS) as pool:
            for (key, _), problem in zip(todo, pool.map(self._fetch, todo), strict=True):
                self._at_hand[key] = problem or _open(self._cache.path(key), key)
                self._bar.update()

    def _fetch(self, wanted: tuple[str, str]) -> str:
        """Have an image here; returns why it cannot be had, or nothing."""
        key, url = wanted
        try:
            self._cache.fetch(self._client, url, key)
        except RefusedError as error:
            return error.problem
        return ""

    def _skip(self, record: Record, reason: str, place: _Place) -> None:
        item = f"{record.where} ({self._client.access.shown(place.url)})" if place.url else record.where
        if len(self.skipped) < _TOLD:
            logger.warning("skipped %s: %s", item, reason)
        self.skipped.append(Skipped(item, reason))


def _open(path: Path, key: str) -> Picture | str:
    """Measure an image from its header, or say why it is of no use."""
    seen = look(path, named_as_image=False)
    if seen.problem or not seen.format:
        return seen.problem or _why_not(path)
    try:
        size = upright_size(path)
    except UNREADABLE:
        return _why_not(path)
    return Picture(key, path, size, seen)


def _why_not(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(1024)
    if is_web_page(start):
        return "a web page came instead of an image: the URL may want a login"
    return "it is no image that can be read" if start else "the file is empty"
