"""Requests to an HTTP API: paced, retried with growing pauses, bounded in size, and silent about what is secret."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests

from pipeline.data.fetch.failures import TransientError, requesting
from pipeline.data.fetch.http_access import Access
from pipeline.data.fetch.http_responses import Answer, check, read_json, save_body
from pipeline.data.fetch.partial import Validators
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_ATTEMPTS = 5
_LONGEST_WAIT = 60.0  # seconds
_NOTHING = Validators()


class Pace:
    """Lets so many through a second, whichever thread they come from; 0 for no limit."""

    def __init__(self, per_second: float) -> None:
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
class ApiClient:
    """A session with one API; may be used from several threads.

    Attributes:
        access: Signs what goes to the endpoint's own host.
        pace: When to ask the endpoint's own host; others are not held back.
        timeout: Seconds to wait for a connection, and for each piece of an answer.
        backoff: Seconds before the second attempt, doubled for each further one.
        renew: Puts another token into `access` when the server no longer takes the last one; None where there is none.
    """

    access: Access
    pace: Pace
    timeout: float = 30.0
    backoff: float = 0.5
    renew: Callable[[], None] | None = None
    _session: requests.Session = field(default_factory=requests.Session, repr=False)
    _generation: int = field(default=0, repr=False)
    _renewing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        logging.getLogger("urllib3").setLevel(logging.INFO)  # its debug lines hold query strings

    def close(self) -> None:
        """Let go of the connections."""
        self._session.close()

    def json(self, url: str, *, max_bytes: int, method: str = "GET", body: Any = None) -> Answer:
        """Get JSON.

        Raises:
            UsageError: The server wants another token (401, 403).
            RefusedError: It refuses for another reason.
            DataError: It keeps failing, or what it sends is no JSON, or more than `max_bytes`.
        """
        where, headers = self.access.shown(url), {"Accept": "application/json"}
        return self._exchange(method, url, lambda answer: read_json(answer, max_bytes, where), headers, body)

    def save(self, url: str, target: Path, *, unless: Validators = _NOTHING, max_bytes: int) -> Validators | None:
        """Stream a file to disk, all of it or nothing.

        Args:
            url: Where from.
            target: Where to.
            unless: The version at hand: if the server still has that one, nothing is fetched.
            max_bytes: How large it may be.

        Returns:
            What the server says of its version, or None where it is the one at hand.

        Raises:
            UsageError: The endpoint wants another token.
            RefusedError: The server refuses for another reason.
            DataError: It keeps failing, or the file is larger than `max_bytes`.
        """
        headers = {"Accept-Encoding": "identity", "Accept": "*/*"} | unless.conditions
        where = self.access.shown(url)
        return self._exchange("GET", url, lambda answer: save_body(answer, target, max_bytes, where), headers, None)

    def _exchange(
        self, method: str, url: str, take: Callable[[requests.Response], T], headers: Mapping[str, str], body: Any
    ) -> T:
        failures, renewals, shown = 0, 0, self.access.shown(url)
        while True:
            if self.access.owns(url):  # images at another host are not what the API limits
                self.pace.wait()
            generation = self._generation
            try:
                with requesting(shown, self.timeout), self._open(method, url, headers, body) as response:
                    expired = response.status_code == 401 and renewals < _ATTEMPTS
                    if expired and self._renewed(generation, response.url):
                        renewals += 1
                        continue
                    check(response, self.access)
                    return take(response)
            except TransientError as error:
                problem, wait = str(error), error.wait
            failures += 1
            if failures >= _ATTEMPTS:
                problem = f"The server failed {_ATTEMPTS} times in a row: {problem}"
                raise DataError(problem, where=shown, remedy="run it again later: what has come is kept")
            wait = min(max(wait, self.backoff * 2 ** (failures - 1)), _LONGEST_WAIT)
            logger.warning("%s: %s; trying again in %.1f s", shown, problem, wait)
            time.sleep(wait)

    def _open(self, method: str, url: str, headers: Mapping[str, str], body: Any) -> requests.Response:
        # What is posted may be a secret: a redirect must not take it elsewhere.
        follow = method == "GET"
        options: dict[str, Any] = {"headers": dict(headers), "json": body, "allow_redirects": follow}
        return self._session.request(method, url, stream=True, timeout=self.timeout, auth=self.access, **options)

    def _renewed(self, generation: int, url: str) -> bool:
        """Whether there is a newer token than the one that was refused; several threads get it once."""
        if self.renew is None or not self.access.owns(url):
            return False
        with self._renewing:
            if self._generation == generation:
                self.renew()
                self._generation += 1
        return True
