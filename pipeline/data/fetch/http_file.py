"""One file over HTTP: retried, continued where it broke, never taken for whole when it was cut."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass, field
from typing import Any

import requests
from tqdm import tqdm

from pipeline.data.fetch.failures import BUSY_STATUSES, TransientError, busy, in_words, requesting
from pipeline.data.fetch.partial import PartialFile, Validators
from pipeline.errors import DataError, MissingError

logger = logging.getLogger(__name__)

_CHUNK = 1 << 14  # bytes; what has come of a chunk when the connection breaks is lost
_ATTEMPTS = 5  # in a row that bring less than _PROGRESS
_PROGRESS = 1 << 20  # bytes
_LONGEST_WAIT = 30.0  # seconds


@dataclass(frozen=True)
class Fetch:
    """A file to get: `shown` stands for the URL in messages and never holds a secret; `auth` signs requests."""

    url: str
    shown: str
    timeout: float = 30.0
    backoff: float = 0.5
    auth: requests.auth.AuthBase | None = field(default=None, repr=False)

    def into(self, part: PartialFile, *, unless: Validators) -> bool:
        """Fill a partial file, from where it stands.

        Args:
            part: Receives the bytes, and the server's validators of them.
            unless: The version at hand: if the server still has that one, nothing is fetched.

        Returns:
            False when the version at hand is still the server's; `part` is then of no use.

        Raises:
            MissingError: The server refuses, or cannot be reached.
            DataError: The download keeps breaking off.
            UsageError: The URL cannot be one.
        """
        logging.getLogger("urllib3").setLevel(logging.INFO)  # its debug lines hold query strings
        failures = 0
        with requests.Session() as session:
            while True:
                before = part.size
                try:
                    return self._attempt(session, part, unless)
                except TransientError as error:
                    problem, wait = str(error), error.wait
                failures = 1 if part.size - before >= _PROGRESS else failures + 1
                if failures >= _ATTEMPTS:
                    raise self._gave_up(part, problem)
                wait = min(max(wait, self.backoff * 2 ** (failures - 1)), _LONGEST_WAIT)
                logger.warning("%s: %s; trying again in %.1f s", self.shown, problem, wait)
                time.sleep(wait)

    def _attempt(self, session: requests.Session, part: PartialFile, unless: Validators) -> bool:
        options: dict[str, Any] = {"stream": True, "timeout": self.timeout, "auth": self.auth}
        with (
            requesting(self.shown, self.timeout),
            session.get(self.url, headers=_headers(part, unless), **options) as response,
        ):
            return self._take(response, part, unless)

    def _take(self, response: requests.Response, part: PartialFile, unless: Validators) -> bool:
        status = response.status_code
        if status == 304 and unless.conditions:
            return False
        if status in BUSY_STATUSES:
            raise busy(response)
        if status == 416:  # what we have is no beginning of what the server has
            part.reset(Validators())
            raise TransientError("the server has another file than the one begun")
        if status not in {200, 206}:
            raise MissingError(
                f"The server answered {in_words(status)}",
                where=self.shown,
                remedy="open the URL in a browser: has it moved, expired, or does it want a login?",
            )
        if status == 200:
            validators = _validators(response)
            if unless.same_version(validators):
                return False
            part.reset(validators)
        elif not _continues(response, part):
            part.reset(Validators())
            raise TransientError("the server sent another piece than the one asked for")
        self._receive(response, part)
        return True

    def _receive(self, response: requests.Response, part: PartialFile) -> None:
        total = part.validators.size
        known = total if total >= 0 else None
        options: dict[str, Any] = {"unit": "B", "unit_scale": True, "mininterval": 0.5, "ascii": True}
        try:
            with tqdm(desc=part.target.name[:40], total=known, initial=part.size, **options) as bar:
                for chunk in response.iter_content(_CHUNK):
                    part.write(chunk)
                    bar.update(len(chunk))
        finally:
            part.flush()
        if 0 <= total != part.size:
            raise TransientError(f"the download was cut: {part.size} of {total} bytes came")

    def _gave_up(self, part: PartialFile, problem: str) -> Exception:
        problem = f"The download failed {_ATTEMPTS} times in a row: {problem}"
        if part.size:
            return DataError(problem, where=self.shown, remedy="run it again: it continues where it broke off")
        return MissingError(problem, where=self.shown, remedy="check the URL and the network, then run it again")


def _headers(part: PartialFile, unless: Validators) -> dict[str, str]:
    headers = {"Accept-Encoding": "identity"}  # compressed on the way, lengths and ranges would mean something else
    if part.size and part.validators.if_range:
        return headers | {"Range": f"bytes={part.size}-", "If-Range": part.validators.if_range}
    return headers | unless.conditions


def _validators(response: requests.Response) -> Validators:
    length = response.headers.get("Content-Length", "")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    size = int(length) if plain and length.isdigit() else -1
    return Validators(response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""), size)


def _continues(response: requests.Response, part: PartialFile) -> bool:
    """Whether a 206 answer starts where the partial file ends, and is of the same version."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != part.size:
        return False
    total = part.validators.size
    same_size = match[2] == "*" or total < 0 or int(match[2]) == total
    etag = response.headers.get("ETag", part.validators.etag)
    return same_size and etag == part.validators.etag
