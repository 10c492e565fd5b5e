"""Settings of an HTTP API: how to ask, and the dotted paths to what is needed in its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.errors import DataError, UsageError, did_you_mean

ABSENT = object()  # stands for a missing value, which null is not
_HIDE_IT = "put the secret into an environment variable, and the variable's name into api.token_env"


class ApiSettings(BaseModel):
    """How to read an API. Paths are dotted, `data.results` or `files.0.url`; `.` is the thing itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    items: str = ""  # the list of items in a page; empty if the page is the list
    next: str = ""  # the next page's URL in a page; empty to follow a `Link: rel="next"` header
    page_parameter: str = ""  # the query parameter that counts pages, from 1 until one is empty
    image: str = Field("image", min_length=1)  # in an item: the URL, which may be relative to the page, or base64
    name: str = ""  # in an item: the image's file name; empty to take it from the URL
    boxes: str = ""  # in an item: the list of boxes; empty if there are none, `.` if an item is a box
    box: str = "bbox"  # in a box: four numbers, or four paths with commas between
    box_format: Literal["xywh", "xyxy", "cxcywh"] = "xywh"  # x and y are the top left corner, cx and cy the centre
    units: Literal["pixels", "fraction", "percent"] = "pixels"  # fractions and percent are of the image's size
    label: str = Field("label", min_length=1)  # in a box: the name of the class
    subset: str = ""  # in an item: its split, such as `train` or `validation`; other words stand for none
    metadata: str = ""  # in an item: paths with commas between, kept with the image
    token_env: str = Field("", pattern=r"^([A-Z_][A-Z0-9_]*)?$")  # the environment variable that holds the token
    token_scheme: str = Field("Bearer", pattern=r"^[A-Za-z][A-Za-z0-9-]{0,19}$")  # what stands before the token
    requests_per_second: float = Field(10.0, ge=0, allow_inf_nan=False)  # at most; 0 for no limit
    wait_minutes: float = Field(60.0, ge=0, allow_inf_nan=False)  # at most, for an export

    @model_validator(mode="after")
    def _agrees(self) -> ApiSettings:
        if self.page_parameter and self.next:
            raise ValueError("page_parameter and next exclude each other")
        if len(listed(self.box)) not in {1, 4}:
            raise ValueError("box is neither one path of four numbers nor four paths")
        return self


def parse_settings(settings: Mapping[str, str]) -> ApiSettings:
    """Parse settings. Errors do not show values, which might be a secret."""
    known = ApiSettings.model_fields
    for name in settings:
        if name not in known:
            remedy = did_you_mean(name, known, otherwise=f"there are: {', '.join(known)}")
            is_secret = re.search("token|key|secret|password|auth|header", name, re.IGNORECASE)
            raise UsageError(f"there is no API setting '{name}'", remedy=_HIDE_IT if is_secret else remedy)
    try:
        return ApiSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        name = ".".join(["api", *map(str, first["loc"])])
        remedy = _HIDE_IT if "token" in name else ""
        raise UsageError(f"{name}: {first['msg'].removeprefix('Value error, ')}", remedy=remedy) from None


def listed(paths: str) -> list[str]:
    """The paths of a setting that may name several."""
    return [part for each in paths.split(",") if (part := each.strip())]


def find(value: Any, path: str) -> Any:
    """The value at a path, or `ABSENT`. A number is an index; an empty path and `.` mean the value itself."""
    return _follow(value, path)[2]


def need(value: Any, path: str, *, setting: str, where: str) -> Any:
    """The value at the path that a setting names."""
    last, step, found = _follow(value, path)
    if found is not ABSENT:
        return found
    keys = [key[:40] for key in last][:12] if isinstance(last, dict) else []
    there = f"with the keys {', '.join(keys)}" if keys else "without keys"
    raise DataError(
        f"the path '{path}' of api.{setting} leads nowhere: there is no '{step}' in {kind(last)} {there}",
        where=where,
        remedy=did_you_mean(step, keys, otherwise=f"set api.{setting} to the right path"),
    )


def is_misspelt(value: Any, path: str) -> bool:
    """Whether a path leads nowhere, and a key much like its own is there."""
    last, step, found = _follow(value, path)
    return found is ABSENT and isinstance(last, dict) and bool(did_you_mean(step, last, cutoff=0.75))


def kind(value: Any) -> str:
    """A JSON value's kind in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _follow(value: Any, path: str) -> tuple[Any, str, Any]:
    """The last value on a path that exists, the step from there, and where that leads: to a value or `ABSENT`."""
    step = ""
    for step in filter(None, path.split(".")):
        is_index = isinstance(value, list) and re.fullmatch("[0-9]{1,9}", step) and int(step) < len(value)
        found = value[int(step)] if is_index else value.get(step, ABSENT) if isinstance(value, dict) else ABSENT
        if found is ABSENT:
            return value, step, ABSENT
        value = found
    return value, step, value
