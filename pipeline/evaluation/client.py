"""A client of the detection service's REST API: one answer per request, or one error that says what was refused."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import requests

from pipeline.errors import StepError

logger = logging.getLogger(__name__)

_BUSY = {requests.codes.too_many_requests, requests.codes.service_unavailable}
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0


class Detection(TypedDict):
    """One detection as the service gives it: `box` is [x1, y1, x2, y2] in pixels of the upright original image."""

    box: list[float]
    score: float
    label: str


class ImageDetections(TypedDict):
    """The service's answer for one image; sizes in pixels, detections by descending score."""

    width: int
    height: int
    detections: list[Detection]


@dataclass(frozen=True)
class Upload:
    """One image to send: a name for messages and the file part, its encoded bytes, and its media type."""

    name: str
    data: bytes
    media_type: str


@dataclass(frozen=True)
class Answer:
    """A response that arrived, the seconds its last attempt took, and how many attempts went before."""

    response: requests.Response
    seconds: float
    retries: int


class DetectionClient:
    """Talks to one detection service over one kept-alive connection; not to be shared between threads.

    A busy service (429, 503) and a broken connection are tried again with doubling pauses; whatever else goes wrong
    is a `StepError` with the service's own message.

    Args:
        url: Address of the service.
        timeout: Seconds one attempt may take.
        tries: Attempts per request.
    """

    def __init__(self, url: str, *, timeout: float = 120.0, tries: int = 10) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.tries = tries
        self._session = requests.Session()
        self._session.trust_env = False  # the service is local; a proxy from the environment would not reach it

    def __enter__(self) -> DetectionClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self._session.close()

    def info(self) -> dict[str, Any]:
        """What the service says about itself: at least `classes`, a list of names."""
        info = _json(self.post("/info", "the service's info").response, "the service's info")
        if not isinstance(info, dict) or not isinstance(info.get("classes"), list):
            raise _malformed("the service's info", "no list of classes in it")
        return info

    def least_score(self) -> float:
        """The lowest score threshold that the service takes."""
        try:
            return float(self.info().get("score_threshold", 0.01))
        except (TypeError, ValueError) as error:
            raise _malformed("the service's info", f"its score_threshold is not a number: {error}") from error

    def test_image(self) -> Upload:
        """The image that was packed with the model."""
        response = self.post("/test_data", "the test image").response
        return Upload("test_image", response.content, response.headers.get("content-type", "image/jpeg"))

    def test_result(self) -> ImageDetections:
        """The detections recorded for the packed test image."""
        return _image_detections(
            _json(self.post("/test_result", "the test result").response, "the test result"), "the test result"
        )

    def predict(self, uploads: Sequence[Upload], *, score_threshold: float) -> tuple[list[ImageDetections], Answer]:
        """Detect objects.

        Args:
            uploads: The images, sent in one request.
            score_threshold: Lowest score to be returned.

        Returns:
            One item per image in the order of `uploads`, and the answer they came in.
        """
        names = [upload.name for upload in uploads]
        what = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        answer = self.post(
            "/predict",
            what,
            params={"score_threshold": repr(score_threshold)},
            files=[("images", (upload.name, upload.data, upload.media_type)) for upload in uploads],
        )
        items = _json(answer.response, what)
        if not isinstance(items, list) or len(items) != len(uploads):
            raise _malformed(what, f"not a list of {len(uploads)} items")
        return [_image_detections(item, name) for item, name in zip(items, names, strict=True)], answer

    def post(self, path: str, what: str, **arguments: Any) -> Answer:
        """Send a POST request until it is answered, refused, or out of tries; `what` names it in messages."""
        pause, complaint = _FIRST_PAUSE, ""
        for attempt in range(self.tries):
            if attempt:
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            start = time.perf_counter()
            try:
                response = self._session.post(self.url + path, timeout=self.timeout, **arguments)
            except requests.Timeout as error:
                raise _failed(what, f"no answer within {self.timeout:g} s") from error
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
                complaint = f"the connection broke: {error}"
            except requests.RequestException as error:
                raise _failed(what, str(error)) from error
            else:
                if response.ok:
                    return Answer(response, time.perf_counter() - start, attempt)
                complaint = f"HTTP {response.status_code}: {_message(response)}"
                if response.status_code not in _BUSY:
                    raise _failed(what, complaint)
            logger.debug("%s: attempt %d of %d: %s", what, attempt + 1, self.tries, complaint)
        raise _failed(what, f"{self.tries} attempts, the last: {complaint}")


def _json(response: requests.Response, what: str) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise _malformed(what, f"not JSON: {response.text[:200]!r}") from error


def _image_detections(item: Any, what: str) -> ImageDetections:
    """Check and convert one image's answer, so that a broken service is named here and not deep in the metrics."""
    try:
        detections = [
            Detection(box=[float(x) for x in found["box"]], score=float(found["score"]), label=str(found["label"]))
            for found in item["detections"]
        ]
        if any(len(found["box"]) != 4 for found in detections):
            raise ValueError("a box without four numbers")
        return ImageDetections(width=int(item["width"]), height=int(item["height"]), detections=detections)
    except (KeyError, TypeError, ValueError) as error:
        raise _malformed(what, f"{type(error).__name__}: {error}") from error


def _message(response: requests.Response) -> str:
    try:
        error = response.json()["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return response.text[:300] or "no message"


def _failed(what: str, complaint: str) -> StepError:
    return StepError(f"The service failed on {what}: {complaint}", remedy="see the server's log")


def _malformed(what: str, complaint: str) -> StepError:
    return StepError(f"The service's answer for {what} is malformed: {complaint}", remedy="repack the service")
