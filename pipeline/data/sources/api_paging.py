"""The pages of an HTTP API, one after the other: by the next one's URL, by a cursor, or by number."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.data.fetch.http_client import HttpClient
from pipeline.data.fetch.http_responses import JsonResponse, RefusedError
from pipeline.data.sources.api_settings import ApiSettings
from pipeline.data.sources.json_paths import ABSENT, find, kind, nearest, need
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

_MOST_PAGES = 100_000
_ENDS = (None, "", False)  # what APIs write where there is no next page


@dataclass(frozen=True)
class Page:
    """The items of a page, the URL that a relative one in it starts from, and how to call the page in messages."""

    items: list[Any]
    url: str
    where: str


def pages(client: HttpClient, settings: ApiSettings) -> Iterator[Page]:
    """Ask for page after page until the last.

    Raises:
        DataError: A page is no JSON or has no list of items, or the pages lead round in a circle.
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
            problem = "The page that should come next has been there before"
            raise DataError(problem, where=where, remedy="check api.next: does it lead to the next page?")
        asked.add(url)
        answer = _ask(client, url, settings, last_may_be_missing=numbered and count > 1)
        items = _items(answer.data, settings, where) if answer else []
        if answer:
            yield Page(items, answer.url, where)
        if not numbered:
            url = _next(client, answer, settings, where, first=count == 1) if answer else ""
        else:
            digest = _new_digest(items, digest, settings, where)
            number += settings.page_step
            url = _with_parameter(start, settings.page_parameter, str(number)) if items else ""
        if not url:
            return
    raise DataError(f"There are more than {_MOST_PAGES} pages", where=shown, remedy="check the paging")


def _ask(client: HttpClient, url: str, settings: ApiSettings, *, last_may_be_missing: bool) -> JsonResponse | None:
    try:
        return client.json(url, max_bytes=settings.max_page_mb << 20)
    except RefusedError as error:
        if last_may_be_missing and error.status == 404:  # how many servers say that there is no such page any more
            return None
        raise


def _items(data: Any, settings: ApiSettings, where: str) -> list[Any]:
    items = need(data, settings.items, setting="items", where=where)
    if isinstance(items, list):
        return items
    path = f"at '{settings.items}' of the page" if settings.items else "in the page itself"
    lists = [key for key, value in data.items() if isinstance(value, list)] if isinstance(data, dict) else []
    remedy = f"set api.items to {' or '.join(lists[:3])}" if lists else "set api.items to the path of the list"
    problem = f"There is {kind(items)} {path} where the list of items was expected"
    raise DataError(problem, where=where, remedy=remedy)


def _next(client: HttpClient, answer: JsonResponse, settings: ApiSettings, where: str, *, first: bool) -> str:
    """The URL of the next page, or nothing."""
    if not settings.next:
        return client.access.absolute(answer.next_link, answer.url) if answer.next_link else ""
    value = find(answer.data, settings.next)
    if value is ABSENT and first:
        if nearest(answer.data, settings.next, cutoff=0.75):
            need(answer.data, settings.next, setting="next", where=where)  # a slip would lose all pages but one
        logger.warning("%s: it has no '%s', so it is taken for the only one", where, settings.next)
    if value is ABSENT or any(value is end for end in _ENDS) or value == "":
        return ""
    if isinstance(value, dict | list | bool):
        expected = "a cursor" if settings.cursor_parameter else "a URL"
        problem = f"There is {kind(value)} at '{settings.next}', the path of api.next"
        raise DataError(problem, where=where, expected=expected)
    if settings.cursor_parameter:
        return _with_parameter(client.access.endpoint, settings.cursor_parameter, str(value))
    text = str(value)
    if not text.startswith(("http://", "https://", "/", "?", "./")):
        remedy = "if it is a cursor, name the query parameter that takes it in api.cursor_parameter"
        raise DataError(f"What is at '{settings.next}', the path of api.next, is no URL", where=where, remedy=remedy)
    return client.access.absolute(text, answer.url)


def _new_digest(items: list[Any], last: str, settings: ApiSettings, where: str) -> str:
    digest = hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()
    if items and digest == last:
        problem = "The page is the same as the one before"
        remedy = f"check api.page_parameter: does the server know '{settings.page_parameter}'?"
        raise DataError(problem, where=where, remedy=remedy)
    return digest


def _with_parameter(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    others = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != name]
    return urlunsplit(parts._replace(query=urlencode([*others, (name, value)])))
