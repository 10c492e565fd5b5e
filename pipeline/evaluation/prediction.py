"""Predictions for a whole test set through the service's REST API, as its users get them."""

from __future__ import annotations

import json
import logging
import mimetypes
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from tqdm import tqdm

from pipeline.data.coco import Image
from pipeline.errors import DataError, MissingError
from pipeline.evaluation.client import DetectionClient, ImageUpload, ServedImage
from pipeline.evaluation.ground_truth import GroundTruth

log = logging.getLogger(__name__)


class CocoResult(TypedDict):
    """One detection in COCO's results format: `bbox` is [x, y, width, height] in pixels."""

    image_id: int
    category_id: int
    bbox: list[float]
    score: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds from sending a request to the end of its answer, as the client sees them."""

    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class ServicePredictions:
    """The service's detections in a test set, and its speed.

    Attributes:
        results: Detections in COCO's results format, images in the test set's order, by descending score in each.
        service: The answer of `/info`.
        score_threshold: Lowest score that was asked for.
        images: Number of images sent, one in each request.
        retries: Number of attempts that failed because the service was busy or the connection broke.
        workers: Number of clients that sent requests at the same time.
        seconds: Wall time of all requests.
        images_per_second: `images / seconds`.
        latency: Of the requests; with several workers, it includes the time they wait for each other.
        dropped: Number of detections by class name, for classes that the test set does not have.
        unknown_classes: Classes of the test set that the service does not know.
        resized: Images whose size is not the annotated one.
    """

    results: list[CocoResult]
    service: dict[str, Any]
    score_threshold: float
    images: int
    retries: int
    workers: int
    seconds: float
    images_per_second: float
    latency: Latency
    dropped: dict[str, int]
    unknown_classes: tuple[str, ...]
    resized: tuple[str, ...]

    def write_results(self, path: Path) -> Path:
        """Write the detections as a COCO results file, which `COCO.loadRes` reads."""
        path.write_text(json.dumps(self.results), "utf-8")
        return path


@dataclass(frozen=True)
class _Answer:
    image: Image
    served: ServedImage
    seconds: float
    retries: int


def predict_dataset(
    url: str,
    truth: GroundTruth,
    *,
    score_threshold: float = 0.01,
    workers: int = 4,
    timeout: float = 120.0,
) -> ServicePredictions:
    """Send every image of a test set to the service.

    The service's labels are matched with the test set's categories by name, so the service may know more classes
    than the test set has, or list them in another order.

    Args:
        url: Address of the service.
        truth: The test set.
        score_threshold: Lowest score to ask for, or the service's own lowest if that is higher. Average precision
            needs a low one.
        workers: Clients at the same time.
        timeout: Seconds one request may take.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: The test set and the service have no class in common.
        StepError: The service refused an image, failed, or gave a malformed answer.
    """
    with DetectionClient(url, timeout=timeout) as client:
        service = client.info()
    score_threshold = max(score_threshold, float(service["score_threshold"]))
    unknown = _unknown_classes(truth, service["classes"])
    start = time.perf_counter()
    answers = _send_all(url, truth, score_threshold, workers, timeout)
    seconds = time.perf_counter() - start
    results, dropped = _to_coco(answers, {name: id_ for id_, name in truth.categories.items()})
    return ServicePredictions(
        results=results,
        service=service,
        score_threshold=score_threshold,
        images=len(truth.images),
        retries=sum(answer.retries for answer in answers),
        workers=workers,
        seconds=seconds,
        images_per_second=len(truth.images) / seconds,
        latency=_latency([answer.seconds for answer in answers]),
        dropped=dict(dropped.most_common()),
        unknown_classes=unknown,
        resized=_resized(answers),
    )


def _unknown_classes(truth: GroundTruth, served: Sequence[str]) -> tuple[str, ...]:
    unknown = tuple(name for name in truth.categories.values() if name not in set(served))
    if len(unknown) == len(truth.categories):
        raise DataError(
            f"the service knows none of the test set's classes ({', '.join(unknown[:10])})",
            where=truth.folder,
            expected=f"some of {', '.join(served[:10])}",
            remedy="evaluate on a test set with the classes the model was trained on",
        )
    if unknown:
        log.warning("the service does not know these classes of the test set: %s", ", ".join(unknown))
    return unknown


def _send_all(url: str, truth: GroundTruth, score_threshold: float, workers: int, timeout: float) -> list[_Answer]:
    local = threading.local()
    with ExitStack() as clients, ThreadPoolExecutor(workers, thread_name_prefix="predict") as pool:

        def send(image: Image) -> _Answer:
            if not hasattr(local, "client"):
                local.client = clients.enter_context(DetectionClient(url, timeout=timeout))
            upload = _upload(truth.path_of(image.file_name), image.file_name)
            served, answered = local.client.predict(upload, score_threshold=score_threshold)
            return _Answer(image, served, answered.seconds, answered.retries)

        futures = [pool.submit(send, image) for image in truth.images]
        try:
            finished = as_completed(futures)
            for future in tqdm(finished, "predict", len(futures), unit="img", mininterval=0.5, ascii=True):
                future.result()
        except BaseException:  # Ctrl-C too: do not wait for the images that are still to be sent
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        return [future.result() for future in futures]


def _upload(path: Path, name: str) -> ImageUpload:
    try:
        return ImageUpload(name, path.read_bytes(), mimetypes.guess_type(name)[0] or "application/octet-stream")
    except FileNotFoundError as error:
        raise MissingError(
            "an image of the test set is missing", where=path, expected="every image that annotations.json names"
        ) from error


def _to_coco(answers: Iterable[_Answer], category_ids: dict[str, int]) -> tuple[list[CocoResult], Counter[str]]:
    results: list[CocoResult] = []
    dropped: Counter[str] = Counter()
    for answer in answers:
        for found in answer.served.detections:
            category_id = category_ids.get(found.label)
            if category_id is None:
                dropped[found.label] += 1
                continue
            x1, y1, x2, y2 = found.box
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append(CocoResult(image_id=answer.image.id, category_id=category_id, bbox=box, score=found.score))
    if dropped:
        log.info("left out detections of classes that the test set does not have: %s", dict(dropped))
    return results, dropped


def _resized(answers: Iterable[_Answer]) -> tuple[str, ...]:
    resized = tuple(
        each.image.file_name
        for each in answers
        if (each.image.width, each.image.height) != (each.served.width, each.served.height)
    )
    if resized:
        log.warning("the size of %d images differs from the annotations, first %s", len(resized), resized[0])
    return resized


def _latency(seconds: Sequence[float]) -> Latency:
    milliseconds = 1000 * np.asarray(seconds)
    return Latency(*(float(value) for value in np.percentile(milliseconds, [50, 90, 95, 99, 100])))
