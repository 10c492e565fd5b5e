"""A client of one service over HTTP: requests again where the service is busy, answers checked, errors explained."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from http.client import responses as PHRASES  # noqa: N812 - a constant
from typing import Annotated, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import requests
import tenacity
import urllib3
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from requests.adapters import HTTPAdapter

from pipeline.errors import MissingError, StepError
from pipeline.files import retrying

T = TypeVar("T")

API_KEY_VARIABLE = "DETECTOR_API_KEY"
"""The environment variable with the key of a service that asks for one; the service reads it, too."""

_TIMEOUT = 120.0  # seconds of one attempt
_FIRST_ANSWER = 10.0  # seconds within which anything must answer at an address
_ATTEMPTS = 10
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0
_BUSY = (requests.codes.too_many_requests, requests.codes.service_unavailable)
_ABOUT_AN_IMAGE = frozenset({400, 408, 413, 415, 422, 500, 504})
_TIMING = re.compile(r"([\w-]+);dur=(\d+(?:\.\d+)?)")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class RefusedError(StepError):
    """The service does not serve this image; it may serve others. `reason` is why, in its own words if it has any."""

    def __init__(self, problem: str, *, reason: str = "", remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.reason = reason


class ServedDetection(BaseModel):
    """One detection; `box` is [x1, y1, x2, y2] in pixels of the upright original image."""

    box: Annotated[list[float], Field(min_length=4, max_length=4)]
    score: float
    label: str
    class_id: int | None = None  # index of the class, from 0


class ServedImage(BaseModel):
    """The detections on one image, and its size in pixels as the service sees it."""

    width: int
    height: int
    detections: list[ServedDetection]


class Answer(NamedTuple):
    """The service's answer for one image file."""

    image: ServedImage
    seconds: float  # of the last attempt
    retries: int  # attempts before it
    stages: dict[str, float]  # milliseconds within the service by stage, as it tells them; empty where it does not


class _Status(BaseModel):
    """How one image of a request fared."""

    status: int = requests.codes.ok
    error: dict[str, Any] = Field(default_factory=dict)


class ServiceClient:
    """A client of one service, which several threads may use.

    Args:
        url: The service's address, to which its paths are appended.
        connections: How many are kept open.
        api_key: Sent with every request; by default the value of the variable `API_KEY_VARIABLE`, if there is one.
    """

    def __init__(self, url: str, connections: int = 1, api_key: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._session = requests.Session()
        # a proxy from the environment would not reach this machine's own loopback
        self._session.trust_env = urlsplit(url).hostname not in _LOOPBACK
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
        key = os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key
        self._session.auth = _ApiKey(key)
        self._closed = threading.Event()
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings about broken connections are retries here

    def close(self) -> None:
        """Give up: a request under way is not sent again, and no other is sent."""
        self._closed.set()
        self._session.close()

    def check_address(self) -> None:
        """Raise a `MissingError` where nothing answers at the address, without trying again."""
        try:
            self._session.get(self._url + "/livez", timeout=_FIRST_ANSWER, allow_redirects=False)
        except (requests.RequestException, UnicodeError) as error:
            raise MissingError(
                f"no service answers: {type(error).__name__}",
                where=self._url,
                expected="the address of a running service, such as http://127.0.0.1:3000",
                remedy="check the address, and that the service runs",
            ) from error

    def info(self) -> dict[str, Any]:
        """The answer of `/info`."""
        return {"score_threshold": 0.01} | parse(dict[str, Any], self.post("/info", "its info")[0], "its info")

    def predict(self, name: str, data: bytes, score_threshold: float | None) -> Answer:
        """Detect objects on one image file. Without a threshold, the service takes its own."""
        parameters = {} if score_threshold is None else {"score_threshold": repr(score_threshold)}
        file_name = name.encode("utf-8", "replace").decode()
        response, seconds, retries = self.post("/predict", name, params=parameters, files={"images": (file_name, data)})
        (fared,) = parse(tuple[_Status], response, name)
        if fared.status != requests.codes.ok:
            reason = str(fared.error.get("message", f"HTTP {fared.status}"))
            raise RefusedError(f"the service failed on {name}: {reason}", reason=reason)
        (image,) = parse(tuple[ServedImage], response, name)
        return Answer(image, seconds, retries, _read_stages(response.headers.get("Server-Timing", "")))

    def post(self, path: str, what: str, **arguments: Any) -> tuple[requests.Response, float, int]:
        """Send a request, again when the service is busy or the connection broke; `what` names it in messages.

        Raises:
            RefusedError: The service refuses the request, but may serve others.
            StepError: The service failed, or answers nothing.
        """

        def send() -> tuple[requests.Response, float]:
            if self._closed.is_set():
                raise StepError("the client is closed")
            start = time.perf_counter()
            response = self._session.post(self._url + path, timeout=_TIMEOUT, allow_redirects=False, **arguments)
            if response.status_code in _BUSY:
                raise _BusyError(response)
            response.raise_for_status()
            if response.is_redirect:
                raise requests.HTTPError("it redirects elsewhere: name that address", response=response)
            return response, time.perf_counter() - start

        retry = retrying(self._may_pass, attempts=_ATTEMPTS, first_wait=_FIRST_WAIT, longest_wait=_LONGEST_WAIT)
        retry.sleep = tenacity.sleep_using_event(self._closed)
        try:
            response, seconds = retry(send)
        except requests.RequestException as error:
            if isinstance(error, requests.Timeout):
                problem = f"no answer within {_TIMEOUT:g} s"
            elif error.response is None:
                problem = f"the connection broke: {error}"
            else:
                problem = f"HTTP {error.response.status_code}: {error.response.text[:300]}"
            raise _failure(error, what, problem) from error
        return response, seconds, retry.statistics["attempt_number"] - 1

    def _may_pass(self, error: BaseException) -> bool:
        broken = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
        passes = isinstance(error, _BusyError) or (broken and not isinstance(error, requests.Timeout))
        return passes and not self._closed.is_set()


class _ApiKey(requests.auth.AuthBase):
    """Sends the key, and keeps requests from sending a password of the user's netrc file instead."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class _BusyError(requests.HTTPError):
    """The service is busy, and may say for how long."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__("it is busy", response=response)
        try:  # in seconds, or a date (RFC 9110, section 10.2.3)
            self.retry_after = urllib3.Retry().get_retry_after(response.raw) or 0.0
        except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
            self.retry_after = 0.0


def _read_stages(header: str) -> dict[str, float]:
    """The milliseconds of the entries that have a duration (https://www.w3.org/TR/server-timing/)."""
    return {name: float(milliseconds) for name, milliseconds in _TIMING.findall(header)}


def _failure(error: requests.RequestException, what: str, reason: str) -> StepError:
    problem = f"the service failed on {what}: {reason}"
    status = 0 if error.response is None else error.response.status_code
    if status in _ABOUT_AN_IMAGE or isinstance(error, requests.Timeout):
        if error.response is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                reason = str(error.response.json()["error"]["message"]).removeprefix("image 0: ")
        return RefusedError(problem, reason=reason, remedy="read the server's log")
    if status in {401, 403}:
        return StepError(problem, remedy=f"set the service's key in the environment variable {API_KEY_VARIABLE}")
    if status in {404, 405} or 300 <= status < 400:
        return StepError(problem, remedy=f"check the address: {PHRASES.get(status, 'it answers otherwise')}")
    return StepError(problem, remedy="read the server's log")


def parse(kind: type[T], response: requests.Response, what: str) -> T:
    """Check an answer against its type; `what` names it in the message of the `StepError` that a wrong one raises."""
    try:
        return TypeAdapter(kind).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
        raise StepError(
            f"the service's answer for {what} is malformed: {problem}", remedy="pack the service again"
        ) from error
