"""Many images through a service at once: in order, in bounded memory, and stopped at once where asked to."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.client.http_client import RefusedError, ServedImage, ServiceClient
from pipeline.client.image_sources import NamedImage
from pipeline.errors import DataError, UsageError, did_you_mean

T = TypeVar("T")

MAX_BODY_BYTES = 32 * 2**20  # of a service that does not say how much it takes
_FORM_BYTES = 1 << 10  # of a request around its image
_AHEAD = 2  # images that are read ahead, for each worker
_LAST_REQUEST = 1.0  # seconds that a stopped request may take to end


@dataclass(frozen=True)
class Question:
    """What a service is asked of each image."""

    score_threshold: float | None  # None for the service's own
    classes: frozenset[str]  # names to keep; empty for all
    most_bytes: int  # of an image file


@dataclass(frozen=True)
class Prediction(Generic[T]):
    """What a service answered for an image, and what was made of it; or the problem."""

    image: NamedImage
    answer: ServedImage | None = None
    result: T | None = None
    problem: str = ""


def ask_for(info: dict[str, Any], score_threshold: float | None, classes: Sequence[str]) -> Question:
    """Check a question against what the service says of itself in `/info`.

    Raises:
        UsageError: The service does not know a class, or no such low score.
    """
    known = list(info.get("classes", []))
    for name in classes:
        if name not in known:
            shown = ", ".join(known[:10]) + f" and {len(known) - 10} more" * (len(known) > 10)
            remedy = did_you_mean(name, known)
            raise UsageError(f"the service knows no class '{name}'", expected=f"some of {shown}", remedy=remedy)
    floor = float(info["score_threshold"])
    if score_threshold is not None and not floor <= score_threshold <= 1:
        expected = f"a number from {floor:g}, the least that the model gives, to 1"
        raise UsageError(f"there are no scores from {score_threshold:g}", expected=expected)
    limit = int(info.get("limits", {}).get("body_bytes", MAX_BODY_BYTES))
    return Question(score_threshold, frozenset(classes), limit - _FORM_BYTES)


def predict_images(
    client: ServiceClient,
    images: Iterable[NamedImage],
    question: Question,
    *,
    workers: int = 4,
    finish: Callable[[NamedImage, bytes, ServedImage], T] | None = None,
) -> Generator[Prediction[T], None, None]:
    """Send images to a service, `workers` at once, and give the predictions in the order of the images.

    `finish` makes something of each answer in the thread that asked, such as a drawing. An image that cannot be read,
    or that the service refuses, is a prediction with a problem. Where the stream is closed early, as by Ctrl-C, the
    client is closed.

    Raises:
        StepError: The service failed, or is gone.
    """

    def predict(image: NamedImage) -> Prediction[T]:
        try:
            data = image.read(question.most_bytes)
            answer = client.predict(image.name, data, question.score_threshold).image
        except DataError as error:
            return Prediction(image, problem=error.problem)
        except RefusedError as error:
            return Prediction(image, problem=error.reason or error.problem)
        if question.classes:
            kept = [each for each in answer.detections if each.label in question.classes]
            answer = answer.model_copy(update={"detections": kept})
        try:
            return Prediction(image, answer, finish(image, data, answer) if finish else None)
        except DataError as error:
            return Prediction(image, problem=error.problem)

    yield from _mapped(predict, images, workers, stop=client.close)


def _mapped(
    work: Callable[[NamedImage], T], items: Iterable[NamedImage], workers: int, stop: Callable[[], object]
) -> Iterator[T]:
    """Map in threads, in order, with a bounded number of items under way.

    The threads are daemons, unlike those of `ThreadPoolExecutor`: the end of the program does not wait for an answer.
    """
    jobs: queue.SimpleQueue[tuple[Future[T], NamedImage] | None] = queue.SimpleQueue()

    def run() -> None:
        while (job := jobs.get()) is not None:
            future, item = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(item))
                except BaseException as error:  # noqa: BLE001 - raised where the result is taken
                    future.set_exception(error)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    pending: deque[Future[T]] = deque()
    is_done = False
    try:
        for item in items:
            future: Future[T] = Future()
            pending.append(future)
            jobs.put((future, item))
            while pending and (pending[0].done() or len(pending) >= _AHEAD * workers):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        is_done = True
    finally:
        if not is_done:
            stop()
            for future in pending:
                future.cancel()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            with contextlib.suppress(RuntimeError):
                thread.join(_LAST_REQUEST / workers)
