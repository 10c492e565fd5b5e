"""What a server answers: which statuses end a request, which call for another attempt, and bodies of bounded size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from pipeline.data.fetch.failures import BUSY_STATUSES, TransientError, busy, in_words
from pipeline.data.fetch.http_access import Access
from pipeline.data.fetch.partial import Validators
from pipeline.errors import DataError, MissingError

_CHUNK = 1 << 16
_ACCEPTED = frozenset({201, 202, 204})


class RefusedError(MissingError):
    """The server answered with a status that another attempt will not change."""

    def __init__(self, status: int, where: str) -> None:
        remedy = "open the URL in a browser: has it moved, expired, or does it want a login?"
        super().__init__(f"The server answered {in_words(status)}", where=where, remedy=remedy)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """JSON from a server (None for "accepted" and nothing more), and the URL that its `Link` header calls the next."""

    status: int
    data: Any
    url: str
    next_link: str = ""


def check(response: requests.Response, access: Access) -> None:
    """Raise what a status means, unless it means success.

    Raises:
        UsageError: The endpoint wants another token.
        RefusedError: The server refuses for another reason.
        TransientError: Another attempt may go right.
    """
    status, url = response.status_code, response.url
    if status in {401, 403} and access.owns(url):
        raise access.refusal(status, url)
    if status in BUSY_STATUSES:
        raise busy(response)
    if 300 <= status < 400 and status != 304:
        remedy = "name the URL that it redirects to"
        problem = f"The server redirects elsewhere ({in_words(status)})"
        raise MissingError(problem, where=access.shown(url), remedy=remedy)
    if status >= 400:
        raise RefusedError(status, access.shown(url))


def read_json(response: requests.Response, max_bytes: int, where: str) -> Answer:
    """Read a body as JSON.

    Raises:
        DataError: It is none, or larger than `max_bytes`.
        TransientError: It was cut.
    """
    body = b"".join(_chunks(response, max_bytes, where, "ask for smaller pages, or raise api.max_page_mb"))
    try:
        data = None if not body and response.status_code in _ACCEPTED else json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _no_json(body, error, where) from None
    link = response.links.get("next", {}).get("url", "")
    return Answer(response.status_code, data, response.url, link)


def _no_json(body: bytes, error: Exception, where: str) -> DataError:
    if is_web_page(body):
        problem = "The server sent a web page, not JSON: the URL may want a login"
    elif not body:
        problem = "The server sent nothing where JSON was expected"
    else:
        problem = f"The server sent no JSON: {error}"
    remedy = "check the URL: it must be the API's endpoint, not a page for people"
    return DataError(problem, where=where, expected="JSON", remedy=remedy)


def is_web_page(start: bytes) -> bool:
    """Whether something begins as HTML does, as login pages do."""
    head = start[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html", b"<!--", b"<head", b"<body"))


def save_body(response: requests.Response, target: Path, max_bytes: int, where: str) -> Validators | None:
    """Stream a body to disk, all of it or nothing.

    Returns:
        What the server says of its version, or None where it says that the one at hand is the same.

    Raises:
        DataError: It is larger than `max_bytes`.
        TransientError: It was cut.
    """
    if response.status_code == 304:
        return None
    draft = target.with_name(target.name + ".part")
    try:
        with draft.open("wb") as file:
            for chunk in _chunks(response, max_bytes, where, ""):
                file.write(chunk)
        draft.replace(target)
    except requests.RequestException:
        raise
    except OSError as error:
        problem = f"The file cannot be written: {error.strerror or error}"
        raise DataError(problem, where=where, remedy="see that there is room on the disk") from error
    finally:
        draft.unlink(missing_ok=True)
    return Validators(
        response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), target.stat().st_size
    )


def _chunks(response: requests.Response, max_bytes: int, where: str, remedy: str) -> Iterator[bytes]:
    """The body as it comes, after what its length promises."""
    length, size = response.headers.get("Content-Length", ""), 0
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    for chunk in response.iter_content(_CHUNK):
        size += len(chunk)
        if size > max_bytes:
            problem = f"The server sent more than {max_bytes / (1 << 20):g} MiB"
            raise DataError(problem, where=where, remedy=remedy)
        yield chunk
    if plain and length.isdigit() and size != int(length):
        raise TransientError(f"the answer was cut: {size} of {length} bytes came")
