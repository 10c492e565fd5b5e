"""HTTP responses: which statuses end a request, which call for another attempt, and bodies of bounded size."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import requests

from pipeline.data.fetch.failures import TransientError
from pipeline.errors import DataError, MissingError, UsageError

_EMPTY = frozenset({201, 202, 204})  # of a successful response that may have no body


class HttpStatusError(MissingError):
    """The server answered with a status that another attempt will not change."""

    def __init__(self, status: int, where: str) -> None:
        remedy = "open the URL in a browser: has it moved, expired, or does it want a login?"
        super().__init__(f"the server answered {in_words(status)}", where=where, remedy=remedy)
        self.status = status


@dataclass(frozen=True)
class JsonResponse:
    """JSON from a server, None where there is no body, and the next page's URL from its `Link` header."""

    status: int
    data: Any
    url: str
    next_link: str = ""


@contextmanager
def http_errors(shown: str, timeout: float) -> Iterator[None]:
    """Replace errors of `requests`, whose messages hold the whole URL, and do not chain them.

    Args:
        shown: The URL without secrets, for messages.
        timeout: Seconds that were waited for an answer.

    Raises:
        MissingError: The server's certificate is wrong, or it redirects without end.
        UsageError: The URL is not valid.
        TransientError: Another attempt may succeed.
    """
    try:
        yield
    except requests.exceptions.SSLError:
        remedy = "check the host's name, or REQUESTS_CA_BUNDLE"
        raise MissingError("the server's certificate cannot be verified", where=shown, remedy=remedy) from None
    except requests.Timeout:
        raise TransientError(f"no answer within {timeout:g} s") from None
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError):
        raise TransientError("the connection broke") from None
    except requests.ConnectionError as error:
        raise TransientError(_cause(error)) from None
    except requests.TooManyRedirects:
        raise MissingError("the server redirects without end", where=shown, remedy="check the URL") from None
    except (requests.RequestException, UnicodeError):
        raise UsageError("this is no URL that can be fetched", where=shown, expected="http(s)://host/path") from None


def read_json(response: requests.Response, max_bytes: int, where: str) -> JsonResponse:
    """Read a body as JSON.

    Raises:
        DataError: It is none, or larger than `max_bytes`.
        TransientError: It was cut.
    """
    body = b"".join(body_chunks(response, max_bytes, where, "ask for smaller pages, or raise api.max_page_mb"))
    try:
        data = None if not body and response.status_code in _EMPTY else json.loads(body)
    except (ValueError, RecursionError) as error:
        if is_web_page(body):
            problem = "the server sent a web page, not JSON: the URL may want a login"
        else:
            problem = f"the server sent no JSON: {error}" if body else "the server sent nothing where JSON was expected"
        remedy = "check the URL: it must be the API's endpoint, not a page for people"
        raise DataError(problem, where=where, expected="JSON", remedy=remedy) from None
    return JsonResponse(response.status_code, data, response.url, response.links.get("next", {}).get("url", ""))


def body_chunks(
    response: requests.Response, max_bytes: int, where: str, remedy: str, chunk_size: int = 1 << 16, *, before: int = 0
) -> Iterator[bytes]:
    """The body piece by piece, checked against its announced length at the end.

    Of `max_bytes` for the file, `before` came in earlier responses.
    """
    size, announced = 0, body_length(response)
    for chunk in response.iter_content(chunk_size):
        size += len(chunk)
        if before + size > max_bytes:
            raise DataError(f"the server sent more than {max_bytes / (1 << 20):g} MiB", where=where, remedy=remedy)
        yield chunk
    if announced not in (size, -1):
        raise TransientError(f"the answer was cut: {size} of {announced} bytes came")


def body_length(response: requests.Response) -> int:
    """The announced length of the body in bytes; -1 where there is none, or it counts compressed bytes."""
    length = response.headers.get("Content-Length", "")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if plain and length.isdigit() else -1


def is_web_page(start: bytes) -> bool:
    """Whether a body begins as HTML does, as login pages do."""
    head = start[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html", b"<!--", b"<head", b"<body"))


def in_words(status: int) -> str:
    """A status with its standard phrase; the server's own phrase is not trusted."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def retry_after(response: requests.Response) -> float:
    """The `Retry-After` header in seconds; it may be a date (RFC 9110, section 10.2.3)."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError, OSError):
        return 0.0


def _cause(error: requests.ConnectionError) -> str:
    """The system's own words for a failed connection, which lie deep in the arguments of other errors."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return f"no connection to the server ({cause.strerror})"
        cause = (
            getattr(cause, "reason", None)
            or next((each for each in cause.args if isinstance(each, BaseException)), None)
            or cause.__cause__
            or cause.__context__
        )
    return "no connection to the server"
