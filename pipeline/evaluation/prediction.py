"""Predictions through the service's REST API, as its users get them: for its test image, and for a whole test set."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipeline.client.http_client import Answer, ServedImage, ServiceClient, parse
from pipeline.client.service_process import serve
from pipeline.data.coco import Image
from pipeline.errors import DataError, MissingError, PipelineError, StepError
from pipeline.evaluation.packed_forms import read_forms
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.model_metadata import MODEL_FILE
from pipeline.serving.runtimes import FP32
from pipeline.serving.self_test import count_unmatched

log = logging.getLogger(__name__)

_PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100}
STAGES = {
    "transfer": "the client, the connection, and whatever is not below",
    "read": "the service receives the request",
    "wait": "the image waits for a thread, or for the batch",
    "decode": "the image is decoded and resized",
    "inference": "the model runs",
    "post": "the answer is made",
}
"""What the time of a request is spent on, in order."""


@dataclass(frozen=True)
class ServicePredictions:
    """The service's detections in a test set, and its speed."""

    # in COCO's results format, images in the test set's order, by descending score in each
    results: list[dict[str, Any]]
    service: dict[str, Any]  # the answer of `/info`
    score_threshold: float  # lowest score that was asked for
    workers: int  # requests at the same time
    retries: int  # attempts that failed because the service was busy or the connection broke
    images_per_second: float  # of all workers together
    # Milliseconds from sending a request to the end of its answer: mean, p50, p90, p95, p99 and max. With several
    # workers, it includes the time that requests wait for each other.
    latency: dict[str, float]
    stages: dict[str, dict[str, float]]  # those of each of `STAGES`; empty where the service does not tell them
    dropped: dict[str, int]  # detections by class name, for classes that the test set does not have
    unknown_classes: tuple[str, ...]  # of the test set, which the service does not know
    resized: tuple[str, ...]  # images whose size is not the annotated one
    model_bytes: int = 0  # of the model's file, and those that the service's processes have for themselves after the
    memory_bytes: int = 0  # last image; 0 where only the service's address is known

    def write_results(self, path: Path) -> None:
        """Write the detections as a COCO results file, which `COCO.loadRes` reads."""
        path.write_text(json.dumps(self.results), "utf-8")


@dataclass(frozen=True)
class FormPredictions:
    """What a form finds in the test set through its REST API, or why that cannot be told."""

    predictions: ServicePredictions | None
    absence: str = ""


def predict_sets(
    bento: Path, sets: Mapping[str, GroundTruth], *, log_path: Path, score_threshold: float, workers: int
) -> dict[str, ServicePredictions]:
    """Serve a Bento, have it predict its test image as it did when it was packed, and send it all images of some sets.

    The output of the server goes to `log_path`. The errors are those of `check_test_image` and `predict_dataset`.
    """
    with serve(bento, log_path=log_path) as service:
        check_test_image(service.url)
        found = {}
        for name, truth in sets.items():
            predicted = predict_dataset(service.url, truth, score_threshold=score_threshold, workers=workers)
            size = (bento / "src" / MODEL_FILE).stat().st_size
            found[name] = replace(predicted, model_bytes=size, memory_bytes=service.memory)
    return found


def predict_forms(
    folder: Path, truth: GroundTruth, *, log_folder: Path, score_threshold: float, workers: int
) -> dict[str, FormPredictions]:
    """Serve the forms in a folder that `pack_forms` wrote one after the other, and send each the test set.

    The output of each server goes to a file of its own in `log_folder`.
    """
    found = {}
    for form in read_forms(folder):
        if form.absence:
            found[form.name] = FormPredictions(None, form.absence)
            continue
        log.info("serving %s", form.name)
        path = log_folder / f"{form.name}.log"
        try:
            predicted = predict_sets(
                folder / form.name, {form.name: truth}, log_path=path, score_threshold=score_threshold, workers=workers
            )
            found[form.name] = FormPredictions(predicted[form.name])
        except PipelineError as error:
            found[form.name] = FormPredictions(None, f"it cannot be measured: {error.problem}")
    return found


def check_test_image(url: str) -> int:
    """Have the service predict its packed test image; the number of detections, if they are those recorded at packing.

    Raises:
        StepError: The predictions differ, so the service is not the one that was packed. Or it failed.
    """
    client = ServiceClient(url)
    info = client.info()
    threshold = float(info["score_threshold"])  # that of the recorded result
    answer = client.post("/test_result", "the test result")[0]
    recorded = parse(ServedImage, answer, "the test result").detections
    image = client.post("/test_data", "the test image")[0].content
    served = client.predict("the test image", image, threshold).image.detections
    differing = count_unmatched(served, recorded, threshold, info.get("precision", FP32))
    if differing:
        raise StepError(
            "the service's predictions for its test image differ from those recorded when it was packed: "
            f"{differing} of {len(served)} detected and {len(recorded)} recorded objects have no counterpart",
            where="test_data, test_result",
            expected="the same boxes and scores",
            remedy="pack the model again, with the library versions that serve it",
        )
    return len(served)


def predict_dataset(
    url: str, truth: GroundTruth, *, score_threshold: float = 0.01, workers: int = 4
) -> ServicePredictions:
    """Send every image of a test set to the service.

    The service's labels are matched with the test set's categories by name, so the service may know more classes
    than the test set has, or list them in another order.

    At most `workers` requests are under way at once. `score_threshold` is the lowest score to ask for, or the service's
    own if that is higher: AP needs a low one.

    Raises:
        MissingError: An image of the test set is missing.
        DataError: The test set and the service have no class in common.
        StepError: The service refused an image, failed, or gave a malformed answer.
    """
    client = ServiceClient(url, workers)
    service = client.info()
    threshold = max(score_threshold, float(service["score_threshold"]))
    unknown = tuple(name for name in truth.categories.values() if name not in service["classes"])
    if len(unknown) == len(truth.categories):
        raise DataError(
            f"the service knows none of the test set's classes ({', '.join(unknown[:10])})",
            where=truth.folder,
            expected=f"some of {', '.join(service['classes'][:10])}",
            remedy="evaluate on a test set with the classes the model was trained on",
        )

    def send(image: Image) -> Answer:
        path = truth.path_of(image.file_name)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise MissingError("an image of the test set is missing", where=path) from error
        return client.predict(image.file_name, data, threshold)

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        answers = list(tqdm(pool.map(send, truth.images), "predict", len(truth.images), unit="img", ascii=True))
    rate = len(truth.images) / (time.perf_counter() - start)
    served = [each.image for each in answers]
    category_ids = {name: id_ for id_, name in truth.categories.items()}
    results, dropped = [], Counter[str]()
    for image, answer in zip(truth.images, served, strict=True):
        for found in answer.detections:
            if found.label not in category_ids:
                dropped[found.label] += 1
                continue
            x1, y1, x2, y2 = found.box
            results.append(
                {"image_id": image.id, "category_id": category_ids[found.label]}
                | {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": found.score}
            )
    return ServicePredictions(
        results=results,
        service=service,
        score_threshold=threshold,
        workers=workers,
        retries=sum(each.retries for each in answers),
        images_per_second=rate,
        latency=_summary([1000 * each.seconds for each in answers]),
        stages=_by_stage(answers),
        dropped=dict(dropped.most_common()),
        unknown_classes=unknown,
        resized=tuple(
            image.file_name
            for image, each in zip(truth.images, served, strict=True)
            if (image.width, image.height) != (each.width, each.height)
        ),
    )


def _by_stage(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    if not all(answer.stages for answer in answers):
        return {}
    times = {name: [answer.stages.get(name, 0.0) for answer in answers] for name in list(STAGES)[1:]}
    within = np.sum(list(times.values()), axis=0)
    whole = [1000 * answer.seconds for answer in answers]
    times = {"transfer": np.maximum(whole - within, 0.0).tolist(), **times}
    return {name: _summary(milliseconds) for name, milliseconds in times.items()}


def _summary(milliseconds: Sequence[float]) -> dict[str, float]:
    percentiles = dict(
        zip(_PERCENTILES, np.percentile(milliseconds, list(_PERCENTILES.values())).tolist(), strict=True)
    )
    return {"mean": float(np.mean(milliseconds)), **percentiles}
