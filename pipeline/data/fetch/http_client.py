"""The one HTTP client: for APIs and downloads, paced, retried, resumed, bounded in size, and silent about secrets."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import responses as PHRASES  # noqa: N812 - a constant
from typing import Any, TypeVar

import requests
import urllib3

from pipeline.data.fetch.credentials import Access
from pipeline.data.fetch.partial_file import ATTEMPTS, PartialFile, TransientError, Validators, byte_bar, retried
from pipeline.errors import DataError, MissingError, UsageError

T = TypeVar("T")

_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # another attempt may get another answer
_CUT = (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
_LONGEST_JSON = 1 << 28  # bytes
_CHUNK = 1 << 14  # bytes; a chunk that is incomplete when the connection breaks is lost


class HttpStatusError(MissingError):
    """The server answered with a status that another attempt will not change."""

    def __init__(self, status: int, where: str) -> None:
        remedy = "open the URL in a browser: has it moved, expired, or does it want a login?"
        super().__init__(f"the server answered {_in_words(status)}", where=where, remedy=remedy)
        self.status = status


@dataclass(frozen=True)
class JsonResponse:
    """JSON from a server."""

    data: Any
    url: str
    next_link: str = ""  # the next page's URL, from the `Link` header


class Pace:
    """Lets so many requests through a second, whichever thread they come from; 0 for no limit."""

    def __init__(self, per_second: float = 0.0) -> None:
        self._gap = 1 / per_second if per_second else 0.0
        self._lock, self._free = threading.Lock(), 0.0

    def wait(self) -> None:
        """Return when it is the caller's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._free)
            self._free = turn + self._gap
        time.sleep(max(turn - now, 0.0))


@dataclass
class HttpClient:
    """A session with one server; may be used from several threads.

    All requests raise a `MissingError` where they keep failing, a `UsageError` where the server wants another token,
    and an `HttpStatusError` where it refuses for another reason.
    """

    access: Access
    pace: Pace = field(default_factory=Pace)  # of requests to the endpoint's own host; others are not held back
    timeout: float = 30.0  # seconds to wait for a connection, and for each piece of an answer
    backoff: float = 0.5  # seconds before the second attempt, about doubled for each further one
    renew: Callable[[], None] | None = None  # puts a new token into `access` when the server refuses the last one
    _session: requests.Session = field(default_factory=requests.Session, repr=False)
    _renewing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        logging.getLogger("urllib3").setLevel(logging.INFO)  # its debug lines hold query strings

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def json(self, url: str, *, method: str = "GET", body: Any = None) -> JsonResponse:
        """Request JSON; a `DataError` where the response is none, or larger than 256 MiB."""

        def read(response: requests.Response, where: str) -> JsonResponse:
            self._check(response, where)
            content = b"".join(_body(response, _LONGEST_JSON, where, "ask for smaller pages"))
            try:
                data = json.loads(content)
            except (ValueError, RecursionError) as error:
                sent = "a web page, not JSON: the URL may want a login" if is_web_page(content) else f"no JSON: {error}"
                remedy = "check the URL: it must be the API's endpoint"
                raise DataError(f"the server sent {sent}", where=where, expected="JSON", remedy=remedy) from None
            return JsonResponse(data, response.url, response.links.get("next", {}).get("url", ""))

        return self._request(method, url, read, lambda: {"Accept": "application/json"}, body=body)

    def download(
        self,
        url: str,
        part: PartialFile,
        *,
        unless: Validators = Validators(),  # noqa: B008 - it is frozen
        max_bytes: int = sys.maxsize,
        shown: str = "",
        quiet: bool = False,
    ) -> Validators | None:
        """Fill a partial file, from where it stands, and return its version; None where that is still `unless`.

        A file of more than `max_bytes` is a `DataError`. `shown` is the URL for messages, where it cannot be derived.
        """

        def headers() -> Mapping[str, str]:
            plain = {"Accept-Encoding": "identity"}  # in compressed bodies, lengths and ranges mean something else
            if part.size and part.validators.if_range:
                return plain | {"Range": f"bytes={part.size}-", "If-Range": part.validators.if_range}
            return plain | unless.conditions

        def take(response: requests.Response, where: str) -> Validators | None:
            if response.status_code == 304 and unless.conditions:
                return None
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {part.size}-")
            if response.status_code == 416 or (response.status_code == 206 and not continues):
                part.reset(Validators())
                raise TransientError("the server has another file than the one begun")
            self._check(response, where)
            if response.status_code == 200:
                found = response.headers
                length = found.get("Content-Length", "") if found.get("Content-Encoding") in (None, "identity") else ""
                size = int(length) if length.isdigit() else -1
                version = Validators(found.get("ETag", ""), found.get("Last-Modified", ""), size)
                if unless.same_version(version):
                    return None
                part.reset(version)
            elif response.status_code != 206:  # such as 202, whose body says that the file is being prepared
                raise HttpStatusError(response.status_code, where)
            total = part.validators.size
            with byte_bar(part.target.name, total, part.size, quiet=quiet) as bar:
                for chunk in _body(response, max_bytes, where, "use a smaller file", before=part.size):
                    part.write(chunk)
                    bar.update(len(chunk))
            if 0 <= total != part.size:
                raise TransientError(f"the download was cut: {part.size} of {total} bytes came")
            return part.validators

        return self._request("GET", url, take, headers, shown=shown, arrived=lambda: part.size)

    def _request(
        self,
        method: str,
        url: str,
        take: Callable[[requests.Response, str], T],
        headers: Callable[[], Mapping[str, str]],
        *,
        body: Any = None,
        shown: str = "",
        arrived: Callable[[], int] = lambda: 0,
    ) -> T:
        where = shown or self.access.shown(url)
        options: dict[str, Any] = {"json": body, "stream": True, "timeout": self.timeout}
        options["allow_redirects"] = method == "GET"  # what is posted may be a secret
        options["auth"] = self.access if self.access.header else None  # which leaves it to the user's netrc file

        def attempt() -> T:
            renewals = 0
            while True:
                if self.access.owns(url):  # images at another host are not what the API limits
                    self.pace.wait()
                with (
                    _http_errors(where, self.timeout),
                    self._session.request(method, url, headers=dict(headers()), **options) as response,
                ):
                    expired = response.status_code == 401 and renewals < ATTEMPTS and self.access.owns(response.url)
                    if self.renew is None or not expired:
                        return take(response, where)
                    with self._renewing:
                        self.renew()
                renewals += 1

        return retried(attempt, shown=where, backoff=self.backoff, arrived=arrived)

    def _check(self, response: requests.Response, where: str) -> None:
        status = response.status_code
        problem = f"the server answered {_in_words(status)}"
        if status in _BUSY:
            raise TransientError(problem, _retry_after(response))
        if response.is_redirect:
            raise MissingError("the server redirects elsewhere", where=where, remedy="name the URL it redirects to")
        if status in {401, 403} and self.access.remedy and self.access.owns(response.url):
            raise UsageError(problem, where=where, expected="a token that may read this", remedy=self.access.remedy)
        if status >= 400:
            raise HttpStatusError(status, where)


@contextmanager
def _http_errors(shown: str, timeout: float) -> Iterator[None]:
    """Replace errors of `requests`, whose messages hold the whole URL, and do not chain them."""
    try:
        yield
    except requests.exceptions.SSLError:
        remedy = "check the host's name, or REQUESTS_CA_BUNDLE"
        raise MissingError("the server's certificate cannot be verified", where=shown, remedy=remedy) from None
    except requests.Timeout:
        raise TransientError(f"no answer within {timeout:g} s") from None
    except (requests.ConnectionError, *_CUT) as error:
        # The system's own words come after the URL, which is not shown.
        words = re.search(r"Errno -?\d+\] ([\w ]+)", str(error).rpartition("(Caused by")[2])
        problem = f"no connection to the server ({words[1]})" if words else "the connection broke"
        raise TransientError(problem) from None
    except (requests.RequestException, UnicodeError) as error:
        problem = f"the URL cannot be fetched ({type(error).__name__})"
        raise UsageError(problem, where=shown, expected="http(s)://host/path", remedy="check it") from None


def is_web_page(start: bytes) -> bool:
    """Whether a body begins as HTML does, as login pages do."""
    head = start[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return head.startswith((b"<!doctype html", b"<html", b"<!--", b"<head", b"<body"))


def _body(response: requests.Response, max_bytes: int, where: str, remedy: str, *, before: int = 0) -> Iterator[bytes]:
    """The body piece by piece; `before` bytes came in earlier responses."""
    size = before
    for chunk in response.iter_content(_CHUNK):
        size += len(chunk)
        if size > max_bytes:
            raise DataError(f"the server sent more than {max_bytes / (1 << 20):g} MiB", where=where, remedy=remedy)
        yield chunk


def _in_words(status: int) -> str:
    """A status with its standard phrase; the server's own phrase is not trusted."""
    return f"{status} {PHRASES.get(status, '')}".rstrip()


def _retry_after(response: requests.Response) -> float:
    """The `Retry-After` header in seconds; it may be a date (RFC 9110, section 10.2.3)."""
    try:
        return urllib3.Retry().get_retry_after(response.raw) or 0.0
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return 0.0
