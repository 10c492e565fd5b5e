"""Images and boxes from an HTTP API: one that the config describes, a Label Studio project, or CVAT's export."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.data.fetch.credentials import expand, redact
from pipeline.data.fetch.http_access import Access, hidden_in, token_from
from pipeline.data.fetch.http_client import HttpClient, Pace
from pipeline.data.fetch.image_cache import ImageCache, image_cache
from pipeline.data.sources.api_dataset import write_raw
from pipeline.data.sources.api_images import Pictures
from pipeline.data.sources.api_paging import Page, pages
from pipeline.data.sources.api_records import read_record
from pipeline.data.sources.api_settings import ApiSettings, parse_settings
from pipeline.data.sources.cvat import load_cvat
from pipeline.data.sources.json_paths import ABSENT, find, nearest, need
from pipeline.data.sources.label_studio import load_label_studio
from pipeline.data.sources.loaded_source import Raw
from pipeline.errors import UsageError

_SOURCES = {"api": "", "label-studio": "a Label Studio project", "cvat": "a CVAT export"}
_ALLOWED = {
    "api": (),
    "label-studio": ("image", "metadata", "token_env", "token_scheme", "requests_per_second", "max_page_mb"),
    "cvat": ("token_env", "token_scheme", "requests_per_second", "wait_minutes"),
}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "api": {},
    "label-studio": {"image": ".", "token_scheme": "Token", "max_page_mb": 512},
    "cvat": {},
}


def is_api(url: str) -> bool:
    """Whether a URL is one of `api+https://…`, `label-studio+https://…`, `cvat+https://…`, or the same with `http`."""
    source, plus, rest = url.partition("+")
    return bool(plus) and source.lower() in _SOURCES and rest.lower().startswith(("http://", "https://"))


def load_api(
    url: str,
    images: Path,
    markup: Path,
    *,
    cache: Path,
    settings: Mapping[str, str],
    with_unannotated: bool = False,
    timeout: float = 30.0,
    backoff: float = 0.5,
) -> Raw:
    """Take images and boxes from an HTTP API.

    Args:
        url: `api+https://host/path`, `label-studio+https://host/projects/12`, `cvat+https://host/projects/7` or
            `cvat+https://host/tasks/7`. `${NAME}` in it stands for the value of an environment variable.
        images: Where the images go, an empty folder.
        markup: Where the annotations go: for an API and Label Studio one COCO file, for CVAT its own files.
        cache: Where what has come is kept, so that a run that broke off goes on.
        settings: See `ApiSettings`.
        with_unannotated: Whether to take, from Label Studio, tasks that nobody annotated; others come in any case.
        timeout: Seconds to wait for a connection, and for each piece of an answer.
        backoff: Seconds before the second attempt at a request, doubled for each further one.

    Raises:
        UsageError: A setting is wrong, the environment variable of the token is not set, or the server wants another
            token.
        MissingError: There is nothing at the URL.
        DataError: The server keeps failing, sends what is no JSON, or a path of the settings leads nowhere.
    """
    shown, hidden = redact(url), hidden_in(url)
    source, endpoint = _parse(expand(url), shown)
    allowed, defaults = _ALLOWED[source], _DEFAULTS[source]
    parsed = parse_settings(settings, allowed=allowed, source=_SOURCES[source], defaults=defaults)
    cache = cache / f"{source}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
    access = _access(source, endpoint, parsed, hidden)
    with closing(HttpClient(access, Pace(parsed.requests_per_second), timeout, backoff)) as client:
        if source == "cvat":
            raw = load_cvat(client, images, markup, cache=cache, settings=parsed)
        else:
            load = partial(load_label_studio, with_unannotated=with_unannotated) if source == "label-studio" else _load
            with image_cache(cache) as kept:
                raw = load(client, images, markup, cache=kept, settings=parsed)
    return replace(raw, kind="api", url=shown, sha256="")


def _parse(url: str, shown: str) -> tuple[str, str]:
    """The source's kind and its endpoint, an http(s) URL."""
    example = "api+https://host/path, label-studio+https://host/projects/12 or cvat+https://host/tasks/7"
    source, _, endpoint = url.partition("+")
    try:
        complete = is_api(url) and bool(urlsplit(endpoint).hostname) and urlsplit(endpoint).port != 0
    except ValueError:
        complete = False
    if not complete:
        raise UsageError("This is no URL of an API", where=shown, expected=example)
    return source.lower(), endpoint


def _access(source: str, endpoint: str, settings: ApiSettings, hidden: Mapping[str, str]) -> Access:
    """The token of the variable that is set, or of the one that is usual for the source."""
    variable, scheme = settings.token_env, settings.token_scheme
    if not variable and "@" not in urlsplit(endpoint).netloc:
        if source == "cvat" and os.environ.get("CVAT_TOKEN") and not os.environ.get("CVAT_ACCESS_TOKEN"):
            variable, scheme = "CVAT_TOKEN", "Token"
        elif source == "cvat":
            variable = "CVAT_ACCESS_TOKEN"
        elif source == "label-studio":
            variable = "LABEL_STUDIO_API_KEY"
    return Access(endpoint, token_from(variable), scheme, variable, "api.token_env", hidden)


def _load(client: HttpClient, images: Path, markup: Path, *, cache: ImageCache, settings: ApiSettings) -> Raw:
    found = []
    first_item: tuple[Any, str] | None = None
    has_boxes = False
    with Pictures(client, cache) as pictures:
        for page in pages(client, settings):
            has_boxes |= _has_boxes(page, settings)
            places = [f"{page.where}, item {index}" for index in range(len(page.items))]
            records = [read_record(item, settings, where=place) for item, place in zip(page.items, places, strict=True)]
            if first_item is None and page.items:
                first_item = page.items[0], places[0]
            found += pictures.get(records, page.url)
    if settings.boxes and not has_boxes and first_item:
        need(first_item[0], settings.boxes, setting="boxes", where=first_item[1])
    raw = write_raw(found, images, markup, url=client.access.shown(client.access.endpoint), skipped=pictures.skipped)
    cache.finish()
    return raw


def _has_boxes(page: Page, settings: ApiSettings) -> bool:
    """Whether the path of the boxes leads anywhere in a page; where a name just beside it does, that is an error."""
    if not settings.boxes:
        return False
    if any(find(item, settings.boxes) is not ABSENT for item in page.items):
        return True
    for index, item in enumerate(page.items):
        if nearest(item, settings.boxes, cutoff=0.75):
            need(item, settings.boxes, setting="boxes", where=f"{page.where}, item {index}")
    return False
