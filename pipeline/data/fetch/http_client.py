"""The one HTTP client: for APIs and downloads, paced, retried, bounded in size, and silent about secrets."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import requests

from pipeline.data.fetch.failures import ATTEMPTS, retried
from pipeline.data.fetch.http_access import Access, check
from pipeline.data.fetch.http_responses import JsonResponse, http_errors, read_json
from pipeline.data.fetch.http_resume import receive, resume_headers
from pipeline.data.fetch.partial_file import PartialFile, Validators

T = TypeVar("T")

_NOTHING = Validators()


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

    All requests raise a `MissingError` or `DataError` where they keep failing.

    Attributes:
        access: Signs requests to the endpoint's own host.
        pace: When to ask the endpoint's own host; requests to others are not held back.
        timeout: Seconds to wait for a connection, and for each piece of an answer.
        backoff: Seconds before the second attempt, about doubled for each further one.
        renew: Puts a new token into `access` when the server no longer takes the last one; None where there is none.
    """

    access: Access
    pace: Pace = field(default_factory=Pace)
    timeout: float = 30.0
    backoff: float = 0.5
    renew: Callable[[], None] | None = None
    _session: requests.Session = field(default_factory=requests.Session, repr=False)
    _generation: int = field(default=0, repr=False)
    _renewing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        logging.getLogger("urllib3").setLevel(logging.INFO)  # its debug lines hold query strings

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def json(self, url: str, *, max_bytes: int, method: str = "GET", body: Any = None) -> JsonResponse:
        """Request JSON.

        Raises:
            UsageError: The server wants another token (401, 403).
            HttpStatusError: It refuses for another reason.
            DataError: The response is no JSON, or larger than `max_bytes`.
        """

        def read(response: requests.Response, where: str) -> JsonResponse:
            check(response, self.access, where)
            return read_json(response, max_bytes, where)

        return self._request(method, url, read, lambda: {"Accept": "application/json"}, body=body)

    def download(
        self,
        url: str,
        part: PartialFile,
        *,
        unless: Validators = _NOTHING,
        max_bytes: int = sys.maxsize,
        shown: str = "",
        quiet: bool = False,
    ) -> Validators | None:
        """Fill a partial file, from where it stands.

        Args:
            url: The file's URL.
            part: Receives the bytes and their version.
            unless: The version at hand: if the server still has that one, nothing is fetched.
            max_bytes: How large the file may be.
            shown: The URL without secrets, for messages; empty to derive it.
            quiet: Whether to show no progress.

        Returns:
            The file's version, or None where it is the one at hand; `part` is then of no use.

        Raises:
            UsageError: The endpoint wants another token.
            HttpStatusError: The server refuses for another reason.
            DataError: The file is larger than `max_bytes`.
        """

        def take(response: requests.Response, where: str) -> Validators | None:
            if response.status_code != 416:
                check(response, self.access, where)
            return receive(response, part, unless, max_bytes, where, quiet=quiet)

        headers = partial(resume_headers, part, unless)
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
        # What is posted may be a secret: a redirect must not take it elsewhere.
        options: dict[str, Any] = {"json": body, "allow_redirects": method == "GET", "auth": self.access.auth}

        def attempt() -> T:
            renewals = 0
            while True:
                if self.access.owns(url):  # images at another host are not what the API limits
                    self.pace.wait()
                generation = self._generation
                with (
                    http_errors(where, self.timeout),
                    self._session.request(
                        method, url, stream=True, timeout=self.timeout, headers=dict(headers()), **options
                    ) as response,
                ):
                    expired = response.status_code == 401 and renewals < ATTEMPTS
                    if not (expired and self._renewed(generation, response.url)):
                        return take(response, where)
                renewals += 1

        return retried(attempt, shown=where, backoff=self.backoff, arrived=arrived)

    def _renewed(self, generation: int, url: str) -> bool:
        """Whether there is a newer token than the one that was refused; several threads get it once."""
        if self.renew is None or not self.access.owns(url):
            return False
        with self._renewing:
            if self._generation == generation:
                self.renew()
                self._generation += 1
        return True
