"""A client of the detection service's REST API, and a check of the service on its packed test image."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import requests
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pipeline.errors import StepError
from pipeline.files import retrying

log = logging.getLogger(__name__)

T = TypeVar("T")

_BUSY = {requests.codes.too_many_requests, requests.codes.service_unavailable}
_FIRST_WAIT = 0.05
_LONGEST_WAIT = 5.0


class ServedDetection(BaseModel):
    """One detection; `box` is [x1, y1, x2, y2] in pixels of the upright original image."""

    box: Annotated[list[float], Field(min_length=4, max_length=4)]
    score: float
    label: str


class ServedImage(BaseModel):
    """The detections on one image, by descending score; its size in pixels as the service sees it."""

    width: int
    height: int
    detections: list[ServedDetection]


class _Info(BaseModel):
    """The part of `/info` that evaluation relies on."""

    classes: list[str]
    score_threshold: float = 0.01


@dataclass(frozen=True)
class ImageUpload:
    """One image to send: its name, its encoded bytes, and its media type."""

    name: str
    data: bytes
    media_type: str


@dataclass(frozen=True)
class ServiceResponse:
    """A response, the seconds its last attempt took, and the number of attempts before that one."""

    response: requests.Response
    seconds: float
    retries: int


@dataclass(frozen=True)
class TestImageCheck:
    """The service's predictions for its packed test image, compared with the recorded ones.

    Attributes:
        agrees: Whether each detection has a counterpart within the tolerances.
        max_box_difference_px: Largest difference of a coordinate between counterparts, in pixels.
        max_score_difference: Largest difference of a score between counterparts.
        detections: Number of detections in the service's answer.
        recorded: Number of recorded detections.
        unmatched: Number of detections without a counterpart, on either side.
    """

    __test__ = False  # pytest would collect a class of this name

    agrees: bool
    max_box_difference_px: float
    max_score_difference: float
    detections: int
    recorded: int
    unmatched: int

    def require(self) -> TestImageCheck:
        """Return the check if it agrees.

        Raises:
            StepError: It does not: the service is not the one that was packed.
        """
        if not self.agrees:
            raise StepError(
                f"the service's predictions for its test image differ from those recorded when it was packed, in "
                f"{self.unmatched} of {self.recorded} detections",
                where="test_data, test_result",
                expected="the same boxes and scores",
                remedy="pack the model again, with the library versions that serve it",
            )
        return self


class _ServiceBusyError(Exception):
    """A reason to send a request again."""


class DetectionClient:
    """Talks to one detection service over one kept-alive connection; not to be shared between threads.

    A request is sent again when the service is busy (429, 503) or the connection broke. Every other failure is a
    `StepError` with the service's own message.

    Args:
        url: Address of the service.
        timeout: Seconds that one attempt may take.
        attempts: How often a request is sent.
    """

    def __init__(self, url: str, *, timeout: float = 120.0, attempts: int = 10) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.attempts = attempts
        self._session = requests.Session()
        self._session.trust_env = False  # the service is local; a proxy from the environment would not reach it

    def __enter__(self) -> DetectionClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def info(self) -> dict[str, Any]:
        """The service's description of itself: at least `classes` and `score_threshold`, the lowest it takes."""
        what = "the service's info"
        response = self.post("/info", what).response
        known = _parse(TypeAdapter(_Info), response, what).model_dump()
        return {**response.json(), **known}

    def test_image(self) -> ImageUpload:
        """The image that was packed with the model."""
        response = self.post("/test_data", "the test image").response
        return ImageUpload("test_image", response.content, response.headers.get("content-type", "image/jpeg"))

    def test_result(self) -> ServedImage:
        """The detections that were recorded for the packed test image."""
        what = "the test result"
        return _parse(TypeAdapter(ServedImage), self.post("/test_result", what).response, what)

    def predict(self, image: ImageUpload, *, score_threshold: float) -> tuple[ServedImage, ServiceResponse]:
        """Detect objects on one image, with at least this score; returns the response too."""
        answered = self.post(
            "/predict",
            image.name,
            params={"score_threshold": repr(score_threshold)},
            files={"images": (image.name, image.data, image.media_type)},
        )
        images = _parse(TypeAdapter(list[ServedImage]), answered.response, image.name)
        if len(images) != 1:
            raise _malformed(image.name, f"{len(images)} items for one image")
        return images[0], answered

    def post(self, path: str, what: str, **arguments: Any) -> ServiceResponse:
        """Send a POST request; `what` names it in messages.

        Raises:
            StepError: The service refused the request, did not answer in time, or stayed busy.
        """
        retry = retrying(
            lambda error: isinstance(error, _ServiceBusyError),
            attempts=self.attempts,
            first_wait=_FIRST_WAIT,
            longest_wait=_LONGEST_WAIT,
            before_wait=lambda error, _: log.debug("%s: %s", what, error),
        )
        try:
            response, seconds = retry(self._send, path, what, arguments)
        except _ServiceBusyError as error:
            raise _failed(what, f"{self.attempts} attempts, the last: {error}") from error
        return ServiceResponse(response, seconds, retry.statistics["attempt_number"] - 1)

    def _send(self, path: str, what: str, arguments: dict[str, Any]) -> tuple[requests.Response, float]:
        start = time.perf_counter()
        try:
            response = self._session.post(self.url + path, timeout=self.timeout, **arguments)
        except requests.Timeout as error:
            raise _failed(what, f"no answer within {self.timeout:g} s") from error
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
            raise _ServiceBusyError(f"the connection broke: {error}") from error
        except requests.RequestException as error:
            raise _failed(what, str(error)) from error
        if response.ok:
            return response, time.perf_counter() - start
        problem = f"HTTP {response.status_code}: {_message(response)}"
        raise _ServiceBusyError(problem) if response.status_code in _BUSY else _failed(what, problem)


def check_test_image(url: str, *, box_tolerance_px: float = 0.05, score_tolerance: float = 1e-3) -> TestImageCheck:
    """Have the service predict its packed test image, and compare with the predictions recorded at packing.

    On another processor the same graph may differ in the last digits, hence the tolerances; a changed preprocessing,
    weight file or class order exceeds them by far. A detection whose score is within the tolerance of the threshold may
    be on one side only.

    Args:
        url: Address of the service.
        box_tolerance_px: Largest allowed difference of a coordinate, in pixels.
        score_tolerance: Largest allowed difference of a score.

    Raises:
        StepError: The service refused, failed, or gave a malformed answer.
    """
    with DetectionClient(url) as client:
        threshold = float(client.info()["score_threshold"])  # that of the recorded result
        recorded = client.test_result().detections
        served = client.predict(client.test_image(), score_threshold=threshold)[0].detections
    pairs, single = _pair(recorded, served)
    box = max((_box_difference(a, b) for a, b in pairs), default=0.0)
    score = max((abs(a.score - b.score) for a, b in pairs), default=0.0)
    unmatched = sum(each.score > threshold + score_tolerance for each in single)
    agrees = box <= box_tolerance_px and score <= score_tolerance and unmatched == 0
    return TestImageCheck(agrees, box, score, len(served), len(recorded), unmatched)


def _pair(
    recorded: list[ServedDetection], served: list[ServedDetection]
) -> tuple[list[tuple[ServedDetection, ServedDetection]], list[ServedDetection]]:
    """Pair each recorded detection with the nearest of its label: near-equal scores may change the order."""
    free, pairs, single = list(served), [], []
    for each in recorded:
        candidates = [other for other in free if other.label == each.label]
        if not candidates:
            single.append(each)
            continue
        nearest = min(candidates, key=lambda other: _box_difference(each, other) + abs(each.score - other.score))
        free.remove(nearest)
        pairs.append((each, nearest))
    return pairs, single + free


def _box_difference(one: ServedDetection, other: ServedDetection) -> float:
    return float(np.abs(np.subtract(one.box, other.box)).max())


def _parse(adapter: TypeAdapter[T], response: requests.Response, what: str) -> T:
    try:
        return adapter.validate_json(response.content)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise _malformed(what, f"{place}: {first['msg']}" if place else first["msg"]) from error


def _message(response: requests.Response) -> str:
    try:
        error = response.json()["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return response.text[:300] or "no message"


def _failed(what: str, problem: str) -> StepError:
    return StepError(f"the service failed on {what}: {problem}", remedy="read the server's log")


def _malformed(what: str, problem: str) -> StepError:
    return StepError(f"the service's answer for {what} is malformed: {problem}", remedy="pack the service again")
