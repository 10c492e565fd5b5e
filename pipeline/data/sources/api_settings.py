"""Settings of an HTTP API: how to ask, and where in its answers the items, images and boxes are."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.errors import UsageError, did_you_mean

_CHOICES = {
    "box_format": ("xywh", "xyxy", "cxcywh"),
    "units": ("pixels", "fraction", "percent"),
}
_LEAST = {"first_page": 0, "page_step": 1, "max_page_mb": 1, "wait_minutes": 0, "requests_per_second": 0}


@dataclass(frozen=True)
class ApiSettings:
    """How to read an API. Paths are dotted, `data.results` or `files.0.url`; `.` is the thing itself.

    Attributes:
        items: Path of the list of items in a page; empty if the page is the list.
        next: Path of the next page's URL in a page; empty to follow a `Link: rel="next"` header.
        page_parameter: The query parameter that counts pages, until one is empty.
        first_page: Its first value.
        page_step: Its increment: 1 for pages, the page's length if it is an offset.
        image: In an item: the image's URL, which may be relative to the page, or its data in base64.
        name: In an item: the image's file name; empty to take it from the URL.
        width: In an item: the image's declared width in pixels; empty to measure the file.
        height: In an item: its declared height.
        boxes: In an item: the list of boxes; empty if there are none, `.` if an item is a box.
        box: In a box: the path of four numbers, or four paths with commas between.
        box_format: `xywh` and `xyxy` from the top left corner, or `cxcywh` from the centre.
        units: `pixels`, `fraction` (0 to 1) or `percent` (0 to 100) of the image's size.
        label: In a box: the name of the class.
        subset: In an item: the split it belongs to, such as `train` or `validation`; other words stand for none.
        metadata: In an item: paths with commas between, kept with the image.
        token_env: Name of the environment variable that holds the token.
        token_scheme: The word before the token in the `Authorization` header.
        requests_per_second: Most requests a second; 0 for no limit.
        max_page_mb: Largest size of a page.
        wait_minutes: Longest time to wait for an export.
    """

    items: str = ""
    next: str = ""
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
        """The fields of an item to keep."""
        return _listed(self.metadata)


def parse_settings(
    settings: Mapping[str, str], *, allowed: Collection[str] = (), source: str = "", defaults: Mapping[str, Any] = {}
) -> ApiSettings:
    """Parse settings.

    Args:
        settings: Texts by the settings' names.
        allowed: The names that the source uses; empty for all.
        source: The name of the source, for messages.
        defaults: Values that replace the usual ones.

    Raises:
        UsageError: A name is unknown or unused, a value is of the wrong type or not among the choices, or two settings
            exclude each other. Values that might be a secret are not shown.
    """
    known = [each.name for each in fields(ApiSettings)]
    for name in settings:
        if name not in known:
            raise _unknown(name, known)
        if allowed and name not in allowed:
            raise UsageError(f"{source} does not use api.{name}", expected=f"some of {', '.join(sorted(allowed))}")
    values = dict(defaults) | {name: _value(name, str(text).strip()) for name, text in settings.items()}
    return _checked(ApiSettings(**values))


def _unknown(name: str, known: list[str]) -> UsageError:
    remedy = did_you_mean(name, known, otherwise=f"there are: {', '.join(known)}")
    if re.search(r"token|key|secret|password|auth|header", name, re.IGNORECASE):
        remedy = "put the secret into an environment variable, and the variable's name into api.token_env"
    return UsageError(f"there is no API setting '{name}'", remedy=remedy)


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
            remedy = did_you_mean(value, choices, cutoff=0.3)
            raise UsageError(f"api.{name} is '{value[:40]}'", expected=" or ".join(choices), remedy=remedy)
    if settings.token_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", settings.token_env):
        raise UsageError(
            "api.token_env is not the name of an environment variable (not shown: it may be the token itself)",
            expected="capital letters, digits and underscores, such as LABELS_TOKEN",
            remedy="put the token into an environment variable, and the variable's name here",
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,19}", settings.token_scheme):
        expected = "Bearer, Token, or the word that the server wants there"
        raise UsageError("api.token_scheme is not a single word (not shown: it may hold the token)", expected=expected)
    if settings.page_parameter and settings.next:
        raise UsageError("api.page_parameter and api.next exclude each other", remedy="leave one out")
    if len(settings.box_paths) not in {1, 4}:
        raise UsageError(f"api.box is '{settings.box[:80]}'", expected="one path of four numbers, or four paths")
    if not settings.image or not settings.label:
        raise UsageError(f"api.{'label' if settings.image else 'image'} is empty", expected="a path in an item")
    return settings


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part for each in text.split(",") if (part := each.strip()))
