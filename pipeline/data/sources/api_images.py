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
    """
    sink = ImageSink(images, in_pixels=in_pixels)
    found: dict[str, DetectedFormat | str] = {}  # by key: the image's format, or why it cannot be had
    taken: list[tuple[ApiRecord, str, str]] = []  # with the image's key, and a first choice of its name
    with (
        closing(source.client(options)) as client,
        image_cache(options.cache / source.cache_name) as cache,
        tqdm(desc="images from the API", unit="image", mininterval=0.5, ascii=True) as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        PIL.Image.init()  # not safe in several threads at once

        def load(key: str, url: str) -> DetectedFormat | str:
            try:
                if url:
                    cache.fetch(client, url, key)
            except HttpStatusError as error:
                return error.problem
            bar.update()
            form = detect_format(cache.path(key), named_as_image=False)
            return form if form.name and not form.problem else form.problem or unreadable_reason(cache.path(key))

        for records, base in pages(client):
            sink.skipped += [each for each in records if isinstance(each, Skipped)]
            wanted = [(each, *_address(each, base, client, cache)) for each in records if isinstance(each, ApiRecord)]
            urls = {key: url for record, key, url in wanted if (url or record.data) and key not in found}
            found |= zip(urls, pool.map(load, urls, urls.values()), strict=True)
            for record, key, url in wanted:
                form = found.get(key, key)
                if isinstance(form, str):
                    sink.skip(f"{record.where} ({client.access.shown(url)})" if url else record.where, form)
                    continue
                name = record.image.name or _name_in(record.hint or url) or key[:16]
                name += form.suffix_for(name) if form.stays else ""
                taken.append((replace(record, data=b""), key, name))
        keys: dict[str, set[str]] = defaultdict(set)
        for _, key, name in taken:
            keys[name].add(key)
        names = [
            name if record.image.name or len(keys[name]) == 1 else f"{Path(name).stem}-{key[:12]}{Path(name).suffix}"
            for record, key, name in taken
        ]
        sink.names = frozenset(names)
        seen: dict[str, Counter[str]] = defaultdict(Counter)
        for (record, key, _), name in zip(taken, names, strict=True):
            given = Counter(map(repr, record.image.boxes))
            by_text = {repr(each): each for each in record.image.boxes}
            unseen = [by_text[each] for each in (given - seen[name]).elements()]
            seen[name] |= given
            sink.add(replace(record.image, name=name, boxes=unseen), cache.path(key), where=record.where)
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


def _address(record: ApiRecord, base: str, client: HttpClient, cache: ImageCache) -> tuple[str, str]:
    """The key of an image, and its URL if it has to be fetched; or the reason why there is none, and no URL."""
    if record.data:
        return cache.keep(record.data), ""
    if not record.url:
        return "it has no image", ""
    try:
        url = client.access.absolute(record.url, base)
    except DataError:
        return "its URL is not valid", ""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return f"its URL, of the kind '{parts.scheme[:20]}', cannot be fetched", ""
    return key_of(url), url


def _name_in(url: str) -> str:
    last = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    clean = re.sub(r"[^\w.-]", "_", last).lstrip(".")
    return clean.encode()[-_LONGEST:].decode(errors="ignore")
