"""Images and boxes from an HTTP API that settings describe: page after page, item after item."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.data.fetch.http_client import HttpClient, HttpStatusError, JsonResponse
from pipeline.data.fetch.image_cache import image_cache
from pipeline.data.sources.api_images import FetchedImage, ImageFetcher, write_records
from pipeline.data.sources.api_records import ApiRecord, read_record
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.sources.json_paths import ABSENT, find, kind, need, suggestion
from pipeline.data.sources.loaded_source import LoadedSource
from pipeline.data.sources.source import ApiSource, FetchOptions
from pipeline.errors import DataError

log = logging.getLogger(__name__)

_MOST_PAGES = 100_000
_ENDS = (None, "", False)  # what APIs write if there is no next page


@dataclass(frozen=True)
class _Page:
    """A page's items, the URL that a relative one in it starts from, and the page's name for messages."""

    items: list[Any]
    url: str
    where: str


def load_http_api(source: ApiSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take images and boxes from an HTTP API.

    Images are kept in the cache, so that an interrupted run continues.

    Args:
        source: The API.
        images: The folder for images.
        annotations: The folder for `annotations.json`.
        options: How to fetch.

    Raises:
        UsageError: The environment variable of the token is not set, or the server wants another token.
        MissingError: There is nothing at the URL, or the server keeps failing.
        DataError: The server sends no JSON, or a path of the settings leads nowhere.
    """
    settings = source.settings
    found: list[tuple[ApiRecord, FetchedImage]] = []
    first: tuple[Any, str] | None = None
    has_boxes = False
    with (
        closing(source.client(options)) as client,
        image_cache(options.cache / source.cache_name) as cache,
        ImageFetcher(client, cache) as fetcher,
    ):
        for page in _pages(client, settings):
            places = [f"{page.where}, item {index}" for index in range(len(page.items))]
            items = list(zip(page.items, places, strict=True))
            has_boxes |= _has_boxes(items, settings)
            first = first or next(iter(items), None)
            found += fetcher.fetch([read_record(item, settings, where=where) for item, where in items], page.url)
        if settings.boxes and not has_boxes and first:
            need(first[0], settings.boxes, setting="boxes", where=first[1])
        loaded = write_records(found, fetcher, source, images, annotations)
        cache.finish()
    return loaded


def _has_boxes(items: list[tuple[Any, str]], settings: ApiSettings) -> bool:
    """Whether any item has boxes. If one has only a similar key, the path is refused."""
    if not settings.boxes:
        return False
    if any(find(item, settings.boxes) is not ABSENT for item, _ in items):
        return True
    for item, where in items:
        if suggestion(item, settings.boxes, cutoff=0.75):
            need(item, settings.boxes, setting="boxes", where=where)
    return False


def _pages(client: HttpClient, settings: ApiSettings) -> Iterator[_Page]:
    """Ask for page after page until the last: by the next one's URL, or by number.

    Raises:
        DataError: A page is not JSON or has no list of items, or the pages form a circle.
        UsageError: The server wants another token.
        MissingError: There is nothing at a page's URL.
    """
    numbered = bool(settings.page_parameter)
    number = settings.first_page
    start = client.access.endpoint
    shown = client.access.shown(start)
    url = _with_parameter(start, settings.page_parameter, str(number)) if numbered else start
    asked: set[str] = set()
    digest = ""
    for count in range(1, _MOST_PAGES + 1):
        where = f"page {count} of {shown}"
        if url in asked:
            problem = "the next page was already read"
            raise DataError(problem, where=where, remedy="check api.next: does it lead to the next page?")
        asked.add(url)
        answer = _ask(client, url, settings, last_may_be_missing=numbered and count > 1)
        items = _items(answer.data, settings, where) if answer else []
        if answer:
            yield _Page(items, answer.url, where)
        if not numbered:
            url = _next(client, answer, settings, where, first=count == 1) if answer else ""
        else:
            digest = _new_digest(items, digest, settings, where)
            number += settings.page_step
            url = _with_parameter(start, settings.page_parameter, str(number)) if items else ""
        if not url:
            return
    raise DataError(f"there are more than {_MOST_PAGES} pages", where=shown, remedy="check the paging")


def _ask(client: HttpClient, url: str, settings: ApiSettings, *, last_may_be_missing: bool) -> JsonResponse | None:
    try:
        return client.json(url, max_bytes=settings.max_page_mb << 20)
    except HttpStatusError as error:
        if last_may_be_missing and error.status == 404:  # how many servers say that there is no further page
            return None
        raise


def _items(data: Any, settings: ApiSettings, where: str) -> list[Any]:
    items = need(data, settings.items, setting="items", where=where)
    if isinstance(items, list):
        return items
    path = f"at '{settings.items}' of the page" if settings.items else "in the page itself"
    lists = [key for key, value in data.items() if isinstance(value, list)] if isinstance(data, dict) else []
    remedy = f"set api.items to {' or '.join(lists[:3])}" if lists else "set api.items to the path of the list"
    raise DataError(f"there is {kind(items)} {path}", where=where, expected="the list of items", remedy=remedy)


def _next(client: HttpClient, answer: JsonResponse, settings: ApiSettings, where: str, *, first: bool) -> str:
    """The URL of the next page, or an empty text."""
    if not settings.next:
        return client.access.absolute(answer.next_link, answer.url) if answer.next_link else ""
    value = find(answer.data, settings.next)
    if value is ABSENT and first:
        if suggestion(answer.data, settings.next, cutoff=0.75):
            need(answer.data, settings.next, setting="next", where=where)  # a slip would lose all pages but one
        log.warning("%s: it has no '%s', so it is taken for the only page", where, settings.next)
    if value is ABSENT or any(value is end for end in _ENDS) or value == "":
        return ""
    if not isinstance(value, str) or not value.startswith(("http://", "https://", "/", "?", "./")):
        found = "no URL" if isinstance(value, str) else kind(value)
        problem = f"there is {found} at '{settings.next}', the path of api.next"
        raise DataError(
            problem, where=where, expected="a URL", remedy="set api.next to the path of the next page's URL"
        )
    return client.access.absolute(value, answer.url)


def _new_digest(items: list[Any], last: str, settings: ApiSettings, where: str) -> str:
    digest = hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()
    if items and digest == last:
        problem = "the page is the same as the one before"
        remedy = f"check api.page_parameter: does the server know '{settings.page_parameter}'?"
        raise DataError(problem, where=where, remedy=remedy)
    return digest


def _with_parameter(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    others = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(parts._replace(query=urlencode([*others, (name, value)])))
