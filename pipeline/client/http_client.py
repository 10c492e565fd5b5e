"""A client of one service over HTTP: requests again where the service is busy, answers checked, errors explained."""

from __future__ import annotations

import time
from typing import Annotated, Any, TypeVar

import requests
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from requests.adapters import HTTPAdapter

from pipeline.errors import StepError
from pipeline.files import retrying

T = TypeVar("T")

_TIMEOUT = 120.0  # seconds of one attempt
_ATTEMPTS = 10
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0
_BUSY = (requests.codes.too_many_requests, requests.codes.service_unavailable)


class ServedDetection(BaseModel):
    """One detection; `box` is [x1, y1, x2, y2] in pixels of the upright original image."""

    box: Annotated[list[float], Field(min_length=4, max_length=4)]
    score: float
    label: str


class ServedImage(BaseModel):
    """The detections on one image, and its size in pixels as the service sees it."""

    width: int
    height: int
    detections: list[ServedDetection]


class ServiceClient:
    """A client of one service, which several threads may use."""

    def __init__(self, url: str, connections: int = 1) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False  # the service is local; a proxy from the environment would not reach it
        self._session.mount("http://", HTTPAdapter(pool_maxsize=connections))

    def info(self) -> dict[str, Any]:
        """The answer of `/info`."""
        return {"score_threshold": 0.01} | parse(dict[str, Any], self.post("/info", "its info")[0], "its info")

    def predict(self, name: str, data: bytes, score_threshold: float) -> tuple[ServedImage, float, int]:
        """Detect objects on one image file; also the seconds of the last attempt, and the number of those before it."""
        parameters = {"score_threshold": repr(score_threshold)}
        response, seconds, retries = self.post("/predict", name, params=parameters, files={"images": (name, data)})
        (image,) = parse(tuple[ServedImage], response, name)
        return image, seconds, retries

    def post(self, path: str, what: str, **arguments: Any) -> tuple[requests.Response, float, int]:
        """Send a request, again when the service is busy or the connection broke; `what` names it in messages."""

        def send() -> tuple[requests.Response, float]:
            start = time.perf_counter()
            response = self._session.post(self._url + path, timeout=_TIMEOUT, **arguments)
            response.raise_for_status()
            return response, time.perf_counter() - start

        retry = retrying(_may_pass, attempts=_ATTEMPTS, first_wait=_FIRST_WAIT, longest_wait=_LONGEST_WAIT)
        try:
            response, seconds = retry(send)
        except requests.RequestException as error:
            if isinstance(error, requests.Timeout):
                problem = f"no answer within {_TIMEOUT:g} s"
            elif error.response is None:
                problem = f"the connection broke: {error}"
            else:
                problem = f"HTTP {error.response.status_code}: {error.response.text[:300]}"
            raise StepError(f"the service failed on {what}: {problem}", remedy="read the server's log") from error
        return response, seconds, retry.statistics["attempt_number"] - 1


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code in _BUSY
    broken = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
    return broken and not isinstance(error, requests.Timeout)


def parse(kind: type[T], response: requests.Response, what: str) -> T:
    """Check an answer against its type; `what` names it in the message of the `StepError` that a wrong one raises."""
    try:
        return TypeAdapter(kind).validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        problem = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
        raise StepError(
            f"the service's answer for {what} is malformed: {problem}", remedy="pack the service again"
        ) from error
