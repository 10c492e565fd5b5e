"""Images and boxes from an HTTP API that settings describe: page after page, item after item."""

from __future__ import annotations

import base64
import binascii
import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pipeline.data.fetch.http_client import HttpClient, HttpStatusError, JsonResponse
from pipeline.data.parsed import NOT_A_BOX, ParsedBox, ParsedImage, subset_named
from pipeline.data.sources.api_images import ApiRecord, as_number, load_records, read_extra
from pipeline.data.sources.api_settings import ABSENT, ApiSettings, find, is_misspelt, kind, listed, need
from pipeline.data.sources.loaded_source import LoadedSource, Skipped
from pipeline.data.sources.source import ApiSource, FetchOptions
from pipeline.errors import DataError

log = logging.getLogger(__name__)

_SHORTEST_IMAGE = 48  # characters: the smallest GIF takes as many
# The start of a JPEG, PNG, GIF, WebP or TIFF in base64, which no URL looks like.
_BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK")


def load_http_api(source: ApiSource, images: Path, annotations: Path, options: FetchOptions) -> LoadedSource:
    """Take images and boxes from an HTTP API; see `load_records`."""
    settings = source.settings

    def pages(client: HttpClient) -> Iterator[tuple[list[ApiRecord | Skipped], str]]:
        first, has_boxes = None, not settings.boxes
        for items, url, where in _pages(client, settings):
            first = first or ((items[0], f"{where}, item 0") if items else None)
            has_boxes = has_boxes or any(find(item, settings.boxes) is not ABSENT for item in items)
            if first and not has_boxes and is_misspelt(first[0], settings.boxes):
                break
            places = [(item, f"{where}, item {index}") for index, item in enumerate(items)]
            yield [each for item, place in places for each in read_record(item, settings, where=place)], url
        if first and not has_boxes:
            need(first[0], settings.boxes, setting="boxes", where=first[1])

    return load_records(source, images, annotations, options, pages, in_pixels=settings.units == "pixels")


def _pages(client: HttpClient, settings: ApiSettings) -> Iterator[tuple[list[Any], str, str]]:
    """The items of each page, its URL, and its name for messages: by the next one's URL, or by number."""
    start, counter = client.access.endpoint, settings.page_parameter
    parts = urlsplit(start)
    others = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != counter]
    url, asked, last = start, set[str](), None
    for count in itertools.count(1):
        where = f"page {count} of {client.access.shown(start)}"
        if counter:
            url = urlunsplit(parts._replace(query=urlencode([*others, (counter, str(count))])))
        elif url in asked:
            raise DataError("the next page was already read", where=where, remedy="check api.next")
        asked.add(url)
        try:
            answer = client.json(url)
        except HttpStatusError as error:
            if counter and count > 1 and error.status == 404:  # for many servers there is no page then
                return
            raise
        items = need(answer.data, settings.items, setting="items", where=where)
        if not isinstance(items, list):
            keys = answer.data.items() if isinstance(answer.data, dict) else ()
            lists = [key for key, value in keys if isinstance(value, list)]
            raise _wrong_path("items", items, where, "the list of items", " or ".join(lists[:3]))
        yield items, answer.url, where
        if counter and items and items == last:
            raise DataError("the page is the same as the one before", where=where, remedy="check api.page_parameter")
        last = items
        url = url if counter else _next(client, answer, settings, where, is_first=count == 1)
        if not url or (counter and not items):
            return


def _next(client: HttpClient, answer: JsonResponse, settings: ApiSettings, where: str, *, is_first: bool) -> str:
    """The URL of the next page, or an empty text."""
    if not settings.next:
        return client.access.absolute(answer.next_link, answer.url) if answer.next_link else ""
    value = find(answer.data, settings.next)
    if value is ABSENT and is_first:
        if is_misspelt(answer.data, settings.next):
            need(answer.data, settings.next, setting="next", where=where)  # a slip would lose all pages but one
        log.warning("%s: it has no '%s', so it is taken for the only page", where, settings.next)
    if value is ABSENT or value is None or value is False or value == "":
        return ""
    if not isinstance(value, str) or not value.startswith(("http://", "https://", "/", "?", "./")):
        raise _wrong_path("next", value, where, "the next page's URL")
    return client.access.absolute(value, answer.url)


def read_record(item: Any, settings: ApiSettings, *, where: str) -> list[ApiRecord | Skipped]:
    """Read an item of a page as the settings say, and list the boxes that were left out."""
    reference = need(item, settings.image, setting="image", where=where)
    if reference is not None and not isinstance(reference, str):
        raise _wrong_path("image", reference, where, "a URL, or base64 data")
    url, data = _reference(reference or "", where)
    name = need(item, settings.name, setting="name", where=where) if settings.name else ""
    if isinstance(name, bool) or not isinstance(name, str | int) or (settings.name and name == ""):
        raise _wrong_path("name", name, where, "a file name")
    found = find(item, settings.boxes) if settings.boxes else []
    given = [] if found is ABSENT or found is None else [found] if isinstance(found, dict) else found
    if not isinstance(given, list):
        raise _wrong_path("boxes", given, where, "a list of boxes")
    read = [_box(box, settings, f"{where}, box {index}") for index, box in enumerate(given)]
    boxes = [each for each in read if isinstance(each, ParsedBox)]
    left_out = [each for each in read if isinstance(each, Skipped)]
    subset = subset_named(str(find(item, settings.subset))) if settings.subset else ""
    annotated, extra = found is not ABSENT and found is not None, read_extra(item, settings)
    image = ParsedImage(
        str(name), 0, 0, boxes, subset, annotated, {NOT_A_BOX: len(left_out)} if left_out else {}, extra
    )
    return [ApiRecord(where, image, url, data), *left_out]


def _reference(reference: str, where: str) -> tuple[str, bytes]:
    """A URL, or the bytes of a `data:` URL or of bare base64."""
    text = reference.strip()
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    elif len(text) < _SHORTEST_IMAGE or not text.startswith(_BASE64):
        return text, b""
    try:
        return "", base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise DataError("the image's base64 data is broken", where=where) from None


def _box(box: Any, settings: ApiSettings, where: str) -> ParsedBox | Skipped | None:
    label = need(box, settings.label, setting="label", where=where)
    values = [need(box, path, setting="box", where=where) for path in listed(settings.box)]
    if len(values) == 1 and values != [None]:
        if not isinstance(values[0], list) or len(values[0]) != 4:
            raise _wrong_path("box", values[0], where, "a list of four numbers")
        values = values[0]
    has_label = label not in (None, "")
    if settings.boxes == "." and not has_label and all(each is None for each in values):
        return None  # an item that is a box, and has none: there is nothing in its image
    if not has_label or None in values:
        return Skipped(where, f"it has no {'place' if has_label else 'label'}")
    if not isinstance(label, str | int) or isinstance(label, bool):
        raise _wrong_path("label", label, where, "the class's name")
    scale = 0.01 if settings.units == "percent" else 1.0
    numbers = [number * scale for each in values if (number := as_number(each)) is not None]
    if len(numbers) != 4:
        raise _wrong_path("box", values, where, "four numbers")
    a, b, c, d = numbers
    if settings.box_format == "xyxy":
        c, d = c - a, d - b
    elif settings.box_format == "cxcywh":
        a, b = a - c / 2, b - d / 2
    return ParsedBox(str(label), (a, b, c, d))


def _wrong_path(setting: str, value: Any, where: str, expected: str, remedy: str = "") -> DataError:
    remedy = f"set api.{setting} to {remedy or 'the right path'}"
    return DataError(f"api.{setting} leads to {kind(value)}", where=where, expected=expected, remedy=remedy)
