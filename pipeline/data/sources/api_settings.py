"""What the config says of an HTTP API: where in its answers the items, images and boxes are, and how to ask."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from pipeline.errors import UsageError

_CHOICES = {
    "box_format": ("xywh", "xyxy", "cxcywh"),
    "units": ("pixels", "fraction", "percent"),
}
_LEAST = {"first_page": 0, "page_step": 1, "max_page_mb": 1, "wait_minutes": 0, "requests_per_second": 0}


@dataclass(frozen=True)
class ApiSettings:
    """How to read an API. Paths are dotted, `data.results` or `files.0.url`; `.` is the thing itself.

    Attributes:
        items: Path of the list of items in a page; empty where the page is the list.
        next: Path of the next page's URL, or of the cursor, in a page; empty to follow a `Link: rel="next"` header.
        cursor_parameter: The query parameter that takes the cursor; empty where `next` is a URL.
        page_parameter: The query parameter that counts pages, until one is empty.
        first_page: What it starts at.
        page_step: What it grows by: 1 for pages, the page's length where it is an offset.
        image: In an item: the image's URL, which may be relative to the page, or its data in base64.
        name: In an item: the image's file name; empty to take it from the URL.
        width: In an item: the image's declared width in pixels; empty to measure the file.
        height: In an item: its declared height.
        boxes: In an item: the list of boxes; empty where there are none, `.` where an item is a box.
        box: In a box: the path of four numbers, or four paths with commas between.
        box_format: `xywh` and `xyxy` from the top left corner, or `cxcywh` from the centre.
        units: `pixels`, `fraction` (0 to 1) or `percent` (0 to 100) of the image's size.
        label: In a box: the class's name.
        subset: In an item: the split it belongs to, such as `train` or `validation`; other words stand for none.
        metadata: In an item: paths with commas between, kept with the image.
        token_env: Name of the environment variable that holds the token.
        token_scheme: What stands before the token in the `Authorization` header.
        requests_per_second: How often to ask at most; 0 for no limit.
        max_page_mb: How large a page may be.
        wait_minutes: How long a server may take to make an export.
    """

    items: str = ""
    next: str = ""
    cursor_parameter: str = ""
    page_parameter: str = ""
    first_page: int = 1
    page_step: int = 1
    image: str = "image"
    name: str = ""
    width: str = ""
    height: str = ""
    boxes: str = ""
    box: str = "bbox"
    box_format: str = "xywh"
    units: str = "pixels"
    label: str = "label"
    subset: str = ""
    metadata: str = ""
    token_env: str = ""
    token_scheme: str = "Bearer"  # noqa: S105 - no secret
    requests_per_second: float = 10.0
    max_page_mb: int = 64
    wait_minutes: float = 60.0

    @property
    def box_paths(self) -> tuple[str, ...]:
        """One path of four numbers, or four paths."""
        return _listed(self.box)

    @property
    def metadata_paths(self) -> tuple[str, ...]:
        """What is to be kept of each item."""
        return _listed(self.metadata)


def parse_settings(
    settings: Mapping[str, str], *, allowed: Collection[str] = (), source: str = "", defaults: Mapping[str, Any] = {}
) -> ApiSettings:
    """Read the config's flat texts.

    Args:
        settings: Name to value.
        allowed: Which names the source has a use for; empty for all.
        source: What to call the source where it has no use for a name.
        defaults: Values that take the place of the usual ones.

    Raises:
        UsageError: A name is unknown or of no use, a value is no number or none of those there are, or two exclude
            each other. Values are not shown where they might be a secret.
    """
    known = [each.name for each in fields(ApiSettings)]
    for name in settings:
        if name not in known:
            raise _unknown(name, known)
        if allowed and name not in allowed:
            raise UsageError(f"api.{name} means nothing for {source}", expected=f"of {', '.join(sorted(allowed))}")
    values = dict(defaults) | {name: _value(name, str(text).strip()) for name, text in settings.items()}
    return _checked(ApiSettings(**values))


def _unknown(name: str, known: list[str]) -> UsageError:
    if re.search(r"token|key|secret|password|auth|header", name, re.IGNORECASE):
        remedy = "put the secret into an environment variable, and that one's name into api.token_env"
    else:
        near = get_close_matches(name, known, 1, 0.5)
        remedy = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
    return UsageError(f"There is no API setting '{name}'", remedy=remedy)


def _value(name: str, text: str) -> Any:
    kind = type(getattr(ApiSettings, name))
    if kind is str:
        return text
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < _LEAST[name]:
        whole = "a whole number" if kind is int else "a number"
        raise UsageError(f"api.{name} is '{text[:40]}'", expected=f"{whole}, {_LEAST[name]} or more")
    return number


def _checked(settings: ApiSettings) -> ApiSettings:
    for name, choices in _CHOICES.items():
        value = getattr(settings, name)
        if value not in choices:
            near = get_close_matches(value, choices, 1, 0.3)
            remedy = f"did you mean {near[0]}?" if near else ""
            raise UsageError(f"api.{name} is '{value[:40]}'", expected=" or ".join(choices), remedy=remedy)
    if settings.token_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", settings.token_env):
        raise UsageError(
            "api.token_env is no name of an environment variable (not shown: it may be the token itself)",
            expected="capital letters, digits and underscores, such as LABELS_TOKEN",
            remedy="put the token into an environment variable, and that one's name here",
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,19}", settings.token_scheme):
        raise UsageError("api.token_scheme is no such word", expected="Bearer, Token, or what the server wants there")
    if settings.page_parameter and (settings.next or settings.cursor_parameter):
        raise UsageError("api.page_parameter excludes api.next and api.cursor_parameter", remedy="leave one out")
    if settings.cursor_parameter and not settings.next:
        raise UsageError(
            "api.cursor_parameter wants api.next", remedy="set api.next to the path of the cursor in a page"
        )
    if len(settings.box_paths) not in {1, 4}:
        raise UsageError(f"api.box is '{settings.box[:80]}'", expected="one path of four numbers, or four paths")
    if not settings.image or not settings.label:
        raise UsageError(f"api.{'label' if settings.image else 'image'} is empty", expected="a path in an item")
    return settings


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for each in text.split(",") if (part := each.strip()))
