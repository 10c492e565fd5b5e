"""Images of an API with their boxes: fetched page by page, several at a time, named, and written."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import PIL.Image
from tqdm import tqdm

from pipeline.data.fetch.http_client import HttpClient, HttpStatusError
from pipeline.data.fetch.image_cache import ImageCache, image_cache, key_of
from pipeline.data.image_conversion import DetectedFormat, detect_format
from pipeline.data.parsed import ParsedImage
from pipeline.data.sources.api_settings import ABSENT, ApiSettings, find, listed
from pipeline.data.sources.image_sink import ImageSink, unreadable_reason
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.data.sources.source import ApiSource, FetchOptions
from pipeline.errors import DataError

_THREADS = 4
_LONGEST = 200  # bytes of a name taken from a URL


@dataclass(frozen=True)
class ApiRecord:
    """An image of an API, not fetched yet."""

    where: str  # its place in the source, for messages
    image: ParsedImage  # what the source says of it; its name is empty if the source gives none
    url: str  # relative to the page or not; empty if `data` holds its bytes
    data: bytes = b""
    hint: str = ""  # the URL or path to take a name from if it has none; empty for `url`


Pages = Callable[[HttpClient], Iterable[tuple[list[ApiRecord | Skipped], str]]]


def load_records(
    source: ApiSource, images: Path, annotations: Path, options: FetchOptions, pages: Pages, *, in_pixels: bool
) -> LoadedSource:
    """Take the images and boxes of an API's records.

    Images are kept in the cache, so that an interrupted run continues. Records with the same image and the same name
    are one image; a box that several of them have is one box. If the source gives no names, images whose names would be
    equal get a part of their key into theirs. The order of the records makes no difference.

    `pages` asks for records, page by page, each with the URL that relative ones in it start from. Boxes that are not
    `in_pixels` are in fractions of the image's size.

    Raises:
        UsageError: The environment variable of the token is not set, or the server wants another token.
        MissingError: The server keeps failing.
        DataError: There is no image, two have the same name, or a name leads out of the folder.
    """
    sink = ImageSink(images, in_pixels=in_pixels)
    with (
        closing(source.client(options)) as client,
        image_cache(options.cache / source.cache_name) as cache,
        tqdm(desc="images from the API", unit="image", mininterval=0.5, ascii=True) as bar,
    ):
        PIL.Image.init()  # not safe in several threads at once
        fetcher = _Fetcher(client, cache, bar, sink)
        for records, base in pages(client):
            fetcher.fetch(records, base)
        keys: dict[str, set[str]] = defaultdict(set)
        for _, key, name in fetcher.taken:
            keys[name].add(key)
        names = [
            name if record.image.name or len(keys[name]) == 1 else f"{Path(name).stem}-{key[:12]}{Path(name).suffix}"
            for record, key, name in fetcher.taken
        ]
        sink.names = frozenset(names)
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for (record, key, _), name in zip(fetcher.taken, names, strict=True):
            given = Counter(map(repr, record.image.boxes))
            by_text = {repr(each): each for each in record.image.boxes}
            unseen = [by_text[each] for each in (given - seen[name]).elements()]
            seen[name] |= given
            image = replace(record.image, name=name, boxes=unseen)
            sink.add(image, cache.path(key), where=record.where)
        loaded = sink.finish("api", source.shown, annotations=annotations)
        cache.finish()
    return loaded


def read_extra(value: Any, settings: ApiSettings) -> dict[str, Any]:
    """The fields to keep of an item, by their paths."""
    return {path: found for path in listed(settings.metadata) if (found := find(value, path)) is not ABSENT}


def as_number(value: Any) -> float | None:
    """A number, or a text that is one; otherwise None. NaN and infinity pass: validation finds them."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


class _Fetcher:
    """Fetches the images of records, each once.

    `taken` are the records whose image is in the cache, each with the image's key and a first choice of its name.
    """

    def __init__(self, client: HttpClient, cache: ImageCache, bar: tqdm[Any], sink: ImageSink) -> None:
        self._client, self._cache, self._bar, self._sink = client, cache, bar, sink
        self._found: dict[str, DetectedFormat | str] = {}  # by key: the image's format, or why it cannot be had
        self.taken: list[tuple[ApiRecord, str, str]] = []

    def fetch(self, records: list[ApiRecord | Skipped], base: str) -> None:
        """Fetch the images of a page; `base` is the URL that relative ones start from."""
        self._sink.skipped += [each for each in records if isinstance(each, Skipped)]
        wanted = [(each, *self._address(each, base)) for each in records if isinstance(each, ApiRecord)]
        urls = {key: url for record, key, url in wanted if (url or record.data) and key not in self._found}
        with ThreadPoolExecutor(_THREADS) as pool:
            self._found |= zip(urls, pool.map(self._image, urls, urls.values()), strict=True)
        for record, key, url in wanted:
            found = self._found.get(key, key)
            if isinstance(found, str):
                shown = f" ({self._client.access.shown(url)})" if url else ""
                self._sink.skip(f"{record.where}{shown}", found)
                continue
            name = record.image.name or _name_in(record.hint or url) or key[:16]
            suffix = found.suffix_for(name) if found.stays else ""
            self.taken.append((replace(record, data=b""), key, name + suffix))

    def _address(self, record: ApiRecord, base: str) -> tuple[str, str]:
        """The key of an image, and its URL if it has to be fetched; or the reason why there is none, and no URL."""
        if record.data:
            return self._cache.keep(record.data), ""
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

    def _image(self, key: str, url: str) -> DetectedFormat | str:
        """Fetch an image into the cache, where one without a URL already is; its format, or why it cannot be had."""
        try:
            if url:
                self._cache.fetch(self._client, url, key)
        except HttpStatusError as error:
            return error.problem
        self._bar.update()
        found = detect_format(self._cache.path(key), named_as_image=False)
        return found if found.name and not found.problem else found.problem or unreadable_reason(self._cache.path(key))


def _name_in(url: str) -> str:
    last = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    clean = re.sub(r"[^\w.-]", "_", last).lstrip(".")
    return clean.encode()[-_LONGEST:].decode(errors="ignore")
