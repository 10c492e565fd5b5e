"""From a request's body to image files and parameters: a form, one raw image, or a JSON object with base64.

BentoML's own reading of requests takes bodies of any length, fetches a URL that is sent instead of a file, and
unpickles. Here a body is read within limits, and nothing in it is anything but bytes of an image, or a parameter.
"""

from __future__ import annotations

import binascii
import json
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from pipeline.errors import did_you_mean
from pipeline.serving.api_types import MOST_CLASSES, PredictParameters
from pipeline.serving.service_errors import ServiceError
from pipeline.serving.settings import Settings

FIELD = "images"
RAW_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
FORM_TYPE = "multipart/form-data"
JSON_TYPE = "application/json"

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_PARAMETERS = tuple(PredictParameters.model_fields)
_OPTIONAL = tuple(name for name, each in PredictParameters.model_fields.items() if each.default is None)
_MOST_VALUES = 4096  # of a JSON body, apart from its images; each would take a hundred times its length in memory
_LONGEST_FIELD = 64 * 2**10  # of a form, in bytes, apart from its files
_MOST_FIELDS = MOST_CLASSES + len(_PARAMETERS)  # of a query, and of a form apart from its files

Files = list[tuple[str, bytes | memoryview]]
"""Image files of a request with their names, in order."""


async def read_upload(
    headers: Mapping[str, str],
    query: bytes,
    read_body: Callable[[], Awaitable[bytes]],
    settings: Settings,
    check: Callable[[PredictParameters], None],
) -> tuple[Files, PredictParameters]:
    """Read the image files and the parameters of a request. Those in its query go before those in its body.

    Args:
        headers: By name in lower case.
        query: The query string.
        read_body: Reads the body, once its media type is known to be right.
        settings: The limits.
        check: Raises a `ServiceError` for parameters that are wrong for this model.

    Raises:
        ServiceError: The request is wrong.
    """
    media_type, options = parse_options_header(headers.get("content-type", ""))
    kind = media_type.decode("latin-1").strip().lower()
    if kind not in {FORM_TYPE, JSON_TYPE, *RAW_TYPES}:
        given = f"not {kind[:80]}" if kind else "and has no content type"
        message = f"the body must be {FORM_TYPE} with files named '{FIELD}', one image, or {JSON_TYPE}, {given}"
        raise ServiceError(415, "unsupported_media_type", message)
    values: dict[str, Any] = {}
    try:
        asked = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise ServiceError(400, "invalid_parameter", f"more than {_MOST_FIELDS} parameters") from None
    for name, text in asked:
        _collect(values, name, text)
    body = await read_body()
    files: Files
    if kind == FORM_TYPE:
        files, members = _read_form(body, options.get(b"boundary", b""), settings)
    elif kind == JSON_TYPE:
        files, members = _read_json(body, settings)
    else:
        files, members = [("", body)], {}
    if members:
        check(_validated(members))  # also what the query replaces
    wanted = _validated(members | values)
    check(wanted)
    return files, wanted


def _collect(values: dict[str, Any], name: str, value: Any) -> None:
    """Add a parameter; `classes` may come several times."""
    if name not in _PARAMETERS:
        hint = did_you_mean(name, _PARAMETERS, otherwise=f"there are {', '.join(_PARAMETERS)}")
        raise ServiceError(400, "unknown_parameter", f"unknown parameter '{name[:40]}': {hint}")
    if name == "classes" and not isinstance(value, list):
        value = [*values.get(name, []), value]
    elif name in values:
        raise ServiceError(400, "invalid_parameter", f"{name} is given twice")
    values[name] = value


def _validated(values: dict[str, Any]) -> PredictParameters:
    try:
        return PredictParameters.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name, given = str(first["loc"][0]), repr(first["input"])[:60]
        message = f"{name}: {first['msg'][0].lower()}{first['msg'][1:]}, not {given}"
        raise ServiceError(400, "invalid_parameter", message) from None


@dataclass
class _Part:
    """A part of a form: its headers, and where its content lies in the body."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    spans: list[tuple[int, int]] = field(default_factory=list)
    name: str = ""
    file_name: str | None = None

    def content(self, body: bytes) -> bytes | memoryview:
        if len(self.spans) == 1:
            return memoryview(body)[slice(*self.spans[0])]
        return b"".join(body[start:end] for start, end in self.spans)


class _Form:
    """The parts of a form, found by python-multipart in one pass over the body."""

    def __init__(self, body: bytes, boundary: bytes, most: int) -> None:
        self.parts: list[_Part] = []
        self._most = most
        self.is_complete = False
        self._header: list[bytes] = [b"", b""]
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_part_data": lambda _, start, end: self.parts[-1].spans.append((start, end)),
                "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
                "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
                "on_header_end": self._end_header,
                "on_end": self._end,
            },
        )
        parser.write(body)
        parser.finalize()

    def _begin(self) -> None:
        if len(self.parts) == self._most:
            raise ServiceError(
                413, "too_many_parts", f"more than {self._most} parts in one form", limit_parts=self._most
            )
        self.parts.append(_Part())

    def _add(self, place: int, data: bytes) -> None:
        self._header[place] += data

    def _end_header(self) -> None:
        name, value = self._header
        self.parts[-1].headers[name.lower()] = value
        self._header = [b"", b""]

    def _end(self) -> None:
        self.is_complete = True


def _read_form(body: bytes, boundary: bytes, settings: Settings) -> tuple[Files, dict[str, Any]]:
    """Read a form. A part without a file name must be a parameter: as an image it could be text, JSON or a URL."""
    try:
        if not boundary:
            raise FormParserError("there is no boundary")
        form = _Form(body, boundary, settings.max_images + _MOST_FIELDS)
        for part in form.parts:
            _, options = parse_options_header(part.headers.get(b"content-disposition", b""))
            part.name = options[b"name"].decode("utf-8", "replace")
            if b"filename" in options:
                part.file_name = options[b"filename"].decode("utf-8", "replace")
    except (FormParserError, KeyError) as error:
        reason = "a part has no name" if isinstance(error, KeyError) else str(error)
        raise ServiceError(400, "malformed_form", f"the multipart form cannot be read: {reason}") from None
    if not form.is_complete:
        raise ServiceError(400, "malformed_form", "the multipart form ends before its last boundary")
    files: Files = []
    fields: dict[str, list[str]] = {}
    for index, part in enumerate(form.parts):
        if part.file_name is not None:
            if part.name != FIELD:
                message = f"part {index} is named '{part.name[:40]}': files must be named '{FIELD}'"
                raise ServiceError(400, "unexpected_field", message, index=index)
            files.append((part.file_name, part.content(body)))
        elif part.name == FIELD:
            message = f"part {index} ('{part.name}') is not a file: give it a file name"
            raise ServiceError(400, "not_a_file", message, index=index)
        else:
            content = part.content(body)
            if len(content) > _LONGEST_FIELD:
                message = f"the field '{part.name[:40]}' is longer than {_LONGEST_FIELD} bytes"
                raise ServiceError(413, "field_too_large", message, limit_bytes=_LONGEST_FIELD)
            fields.setdefault(part.name, []).append(bytes(content).decode("utf-8", "replace"))
    _check_count(len(files), settings, f"the form has no file named '{FIELD}'")
    return files, _parameters_of(fields)


def _parameters_of(fields: Mapping[str, list[str]]) -> dict[str, Any]:
    """The parameters of a form. A value may be JSON, as BentoML's client writes it, with null for what is not given."""
    members: dict[str, Any] = {}
    for name, texts in fields.items():
        if texts == ["null"] and name in _OPTIONAL:
            continue
        for text in texts:
            value: Any = text
            if text[:1] in {'"', "["}:
                with suppress(ValueError):
                    value = json.loads(text)
            _collect(members, name, value)
    return members


def _read_json(body: bytes, settings: Settings) -> tuple[Files, dict[str, Any]]:
    if sum(map(body.count, (b",", b"[", b"{"))) > 2 * settings.max_images + _MOST_VALUES:  # none is part of base64
        raise ServiceError(413, "too_many_values", f"more than {_MOST_VALUES} values beside the images")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServiceError(400, "malformed_json", f"the body is not JSON: {str(error)[:100]}") from None
    if not isinstance(content, dict) or not isinstance(images := content.pop(FIELD, None), list):
        message = f"the body must be a JSON object with a list '{FIELD}' of files in base64"
        raise ServiceError(400, "malformed_json", message)
    _check_count(len(images), settings, f"'{FIELD}' is empty")
    files: Files = []
    for index, text in enumerate(images):
        try:
            if not isinstance(text, str):
                raise TypeError
            start = match.end() if (match := _DATA_URL.match(text)) else 0
            files.append(("", b64decode(text[start:], validate=True)))
        except (TypeError, ValueError, binascii.Error):
            message = f"image {index} is not base64; URLs are not fetched"
            raise ServiceError(400, "invalid_base64", message, index=index) from None
    members: dict[str, Any] = {}
    for name, value in content.items():
        if value is not None or name not in _OPTIONAL:
            _collect(members, name, value)
    return files, members


def _check_count(count: int, settings: Settings, none: str) -> None:
    if not count:
        raise ServiceError(400, "no_images", none)
    if count > settings.max_images:
        limit = settings.max_images
        message = f"more than {limit} images in one request"
        raise ServiceError(413, "too_many_images", message, limit_images=limit)
