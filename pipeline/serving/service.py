"""The Bento service: a detector behind a REST API.

One process does everything. `UploadMiddleware` reads and checks uploads and prepares the images in threads. BentoML's
dispatcher gathers the prepared images of concurrent requests into batches for `predict`, which runs on one thread while
ONNX Runtime uses every CPU. The usual alternative, a front service and a batchable service in two processes, was slower
(YOLOX-nano, two busy CPUs: one image took 54 ms instead of 36), and some calls between the two processes failed.

The folder that holds the package (a Bento's `src`) also holds the files that `model_metadata` names.
"""

# mypy: disallow-untyped-decorators=False, disallow-subclassing-any=False
# since BentoML's types are not followed.

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _bentoml_impl.server  # type: ignore[import-untyped]
import bentoml
import cv2
from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from bentoml._internal.marshal.dispatcher import CorkDispatcher, Optimizer
from bentoml.exceptions import BentoMLException
from pydantic import BaseModel, Field
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from pipeline.errors import IntegrityError
from pipeline.serving.decoding import FORMATS, decode
from pipeline.serving.model_metadata import (
    METADATA_FILE,
    MODEL_FILE,
    SERVICE_NAME,
    TEST_IMAGE_STEM,
    TEST_RESULT_FILE,
    ModelMetadata,
)
from pipeline.serving.outer_app import OuterApp
from pipeline.serving.predictor import MAX_BATCH, MAX_DETECTIONS, Predictor, check_model
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.self_test import count_unmatched
from pipeline.serving.upload_middleware import LIMITS, STATE_KEY, PreparedImage, UploadMiddleware

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
TIMEOUT_SECONDS = 60
_INDEX = Path(_bentoml_impl.server.__file__).parent / "main-openapi.html"


class PromptOptimizer(Optimizer):
    """BentoML's optimizer of batches, without the seconds by which it delays a request.

    BentoML's dispatcher runs one batch at a time, and collects the requests of the next batch meanwhile. It also delays
    a request by the average time that earlier ones waited, to fill its batch. After a burst of 16 requests a single one
    takes 84 ms instead of 28 (YOLOX-nano on two CPUs), for the next fifty batches.
    """

    def trigger_refresh(self) -> None:
        """Learn how long batches take, and nothing else."""
        super().trigger_refresh()
        self.wait = 0


class PromptDispatcher(CorkDispatcher):
    """BentoML's dispatcher, without requests whose clients have gone."""

    def _get_inputs(self, num_batches: int | None = None) -> Iterator[Any]:
        """Take a batch from the queue."""
        waiting: Any = self._queue
        wanted = [job for job in waiting if not job.future.done()]
        waiting.clear()
        waiting.extend(wanted)
        yield from super()._get_inputs(num_batches)

    def split_job(self, job: Any, split_indexes: list[int]) -> tuple[Any, Any]:
        """Split a request that is larger than the batch; both parts end with it."""
        parts: tuple[Any, Any] = super().split_job(job, split_indexes)
        for part in parts:
            job.future.add_done_callback(lambda whole, own=part.future: own.cancel() if whole.cancelled() else None)
        return parts


class PromptService(bentoml.Service):
    """A BentoML service that delays no request, works for nobody who has gone, and answers errors in one shape."""

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the server's application, as BentoML does, with prompt dispatchers, in the outer application."""
        self.inject_config()
        factory: Any = ServiceAppFactory(self, is_main=is_main)
        for name, plain in factory.dispatchers.items():
            dispatcher = PromptDispatcher(
                int(plain.max_latency * 1000),
                plain.max_batch_size,
                fallback=plain.fallback,
                get_batch_size=plain.get_batch_size,
                batch_dim=plain.batch_dim,
            )
            dispatcher.optimizer = PromptOptimizer(plain.max_latency)
            factory.dispatchers[name] = dispatcher
        # BentoML puts CORS within the middleware, so that its answers would lack the headers
        allows_origins, factory.enable_access_control = factory.enable_access_control, False
        app: Any = factory()
        routes = {route.path: route.methods or () for route in app.routes if isinstance(route, Route)}
        prefixes = tuple(f"{route.path}/" for route in app.routes if isinstance(route, Mount))
        outer: ASGIApp = OuterApp(app, routes, prefixes, _INDEX)
        return CORSMiddleware(outer, **factory.access_control_options) if allows_origins else outer


class DetectedObject(BaseModel):
    """One detected object."""

    box: tuple[float, float, float, float] = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    score: float = Field(description="certainty, 0..1")
    label: str = Field(description="name of the class")
    class_id: int = Field(description="index of the class, from 0")


class ImageResult(BaseModel):
    """The detections in one image."""

    width: int = Field(description="width of the upright image in pixels")
    height: int = Field(description="height of the upright image in pixels")
    detections: list[DetectedObject] = Field(description=f"most certain first, at most {MAX_DETECTIONS}")


class ServiceInfo(BaseModel):
    """The model, and the limits of a request."""

    name: str
    variant: str
    classes: tuple[str, ...]
    input_size: tuple[int, int] = Field(description="height, width of the network's input in pixels")
    score_threshold: float = Field(description="least score that can be asked for")
    serving_score_threshold: float = Field(description="least score of an answer when none is asked for")
    nms_iou_threshold: float
    formats: tuple[str, ...]
    limits: dict[str, int]
    onnx_sha256: str
    providers: list[str] = Field(description="ONNX Runtime's execution providers in use")
    metrics: dict[str, Any]
    training: dict[str, Any]


class UploadedImages(bentoml.IODescriptor):
    """Image files, in parts named `images`."""

    images: list[Path] = Field(description=f"JPEG, PNG, WebP or BMP files, at most {LIMITS['images']}")

    @classmethod
    async def from_http_request(cls, request: Request, _serde: object) -> UploadedImages:
        """Take the images that `UploadMiddleware` prepared. BentoML's own reading of requests would fetch URLs.

        A request that did not pass the middleware has no such images, and fails.
        """
        prepared: UploadedImages = cls.model_construct(images=request.scope["state"][STATE_KEY])
        return prepared


@bentoml.service(
    name=SERVICE_NAME,
    service_class=PromptService,
    traffic={"timeout": TIMEOUT_SECONDS},
    # OpenCV does not log broken images: the client is told. A container sends no usage statistics.
    envs=[
        {"name": "OPENCV_LOG_LEVEL", "value": "SILENT"},
        {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
    ],
)
class ObjectDetector:
    """Finds objects in images."""

    def __init__(self) -> None:
        self._metadata = ModelMetadata.read(ROOT / METADATA_FILE)
        self._predictor = Predictor(ROOT / MODEL_FILE, self._metadata)
        cv2.setNumThreads(1)  # requests are decoded side by side already
        (self._test_image,) = ROOT.glob(f"{TEST_IMAGE_STEM}.*")
        self._test_result = ImageResult(**json.loads((ROOT / TEST_RESULT_FILE).read_text(encoding="utf-8")))
        self._is_right = self._gives_the_test_result()

    def __is_ready__(self) -> bool:
        """Whether the packed test image gave the packed result, so that `/readyz` is 200."""
        return self._is_right

    def _gives_the_test_result(self) -> bool:
        """Detect the objects of the test image, alone and in a full batch, which also warms the model up."""
        image, floor = self._test_image.read_bytes(), self._metadata.score_threshold
        letterboxed = letterbox(decode(image), self._metadata.image_size)
        wrong = 0
        for detections in self._predictor.detect([letterboxed] * (1 + MAX_BATCH)):
            found = ImageResult(**detections.to_json(self._metadata.classes, floor))
            wrong += count_unmatched(found.detections, self._test_result.detections, floor)
        if wrong:
            log.error("not ready: the test image gives other objects than when the model was packed. Pack it again")
        return not wrong

    @bentoml.api(
        input_spec=UploadedImages,
        batchable=True,
        max_batch_size=MAX_BATCH,
        max_latency_ms=TIMEOUT_SECONDS * 1000,
    )
    def predict(self, images: list[PreparedImage]) -> list[ImageResult]:
        """Detect objects in one or many images.

        Send `multipart/form-data` with one or many file parts named `images`:
        `curl -F images=@one.jpg -F images=@two.jpg 'http://localhost:3000/predict?score_threshold=0.3'`.
        The query parameter `score_threshold` is optional; see `info` for its default and its floor.

        The answer is a list with one item per image, in the order of the parts. A request that is not served gets a
        4xx and `{"error": {"code", "message", ...}}`; `index` tells which image it is about.
        """
        found = self._predictor.detect([image for image, _ in images])
        return [
            ImageResult(**detections.to_json(self._metadata.classes, threshold))
            for detections, (_, threshold) in zip(found, images, strict=True)
        ]

    @bentoml.api
    async def test_data(self) -> Path:
        """Return the test image that the model was packed with."""
        return self._test_image

    @bentoml.api
    async def test_result(self) -> ImageResult:
        """Return the detections in the test image at the time of packing, down to the lowest score."""
        return self._test_result

    @bentoml.api
    async def info(self) -> ServiceInfo:
        """Return facts about the model, and the limits of a request."""
        return ServiceInfo(
            name=SERVICE_NAME,
            input_size=self._metadata.image_size,
            formats=FORMATS,
            limits=LIMITS,
            providers=self._predictor.providers,
            **vars(self._metadata),
        )


if (ROOT / MODEL_FILE).is_file():  # `bentoml serve` would start a worker with an altered model again and again
    try:
        check_model(ROOT / MODEL_FILE, ModelMetadata.read(ROOT / METADATA_FILE))
    except IntegrityError as error:
        raise BentoMLException(str(error)) from None  # which the command prints without a traceback
ObjectDetector.add_asgi_middleware(UploadMiddleware, metadata_path=ROOT / METADATA_FILE)  # type: ignore[attr-defined]
