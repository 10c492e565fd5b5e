"""The Bento service: a detector behind a REST API.

BentoML packs, starts and containerises the service, and answers for its health and metrics. The REST API itself stands
before BentoML's server (`outer_app`), in the same process; its images are decoded and run on the threads of
`detection_pool`. The usual alternative, a front service and a batchable service in two processes, was slower
(YOLOX-nano, two busy CPUs: one image took 54 ms instead of 36), and some calls between the two processes failed.

The folder that holds the package (a Bento's `src`) also holds the files that `model_metadata` names.
"""

# mypy: disallow-untyped-decorators=False, disallow-subclassing-any=False
# since BentoML's types are not followed.

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Any, Literal

import bentoml
import cv2
from _bentoml_impl.server.app import ServiceAppFactory  # type: ignore[import-untyped]
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml.exceptions import BentoMLException
from pydantic import Field
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from pipeline.errors import PipelineError
from pipeline.serving.api_types import ImageResult, PredictParameters, ServiceInfo
from pipeline.serving.decoding import decode
from pipeline.serving.endpoints import Endpoints
from pipeline.serving.memory import configure_allocator
from pipeline.serving.model_metadata import (
    METADATA_FILE,
    MODEL_FILE,
    SERVICE_NAME,
    TEST_IMAGE_STEM,
    TEST_RESULT_FILE,
    ModelMetadata,
)
from pipeline.serving.outer_app import OuterApp
from pipeline.serving.predictor import MAX_DETECTIONS, Predictor, check_model
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.runtimes import require_engine
from pipeline.serving.sample_places import open_place
from pipeline.serving.self_test import count_unmatched
from pipeline.serving.settings import Settings, read_settings
from pipeline.serving.tiled_detection import predict_image
from pipeline.serving.training_reference import RECORD_FILE

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
_EXPOSED = ("Retry-After", "Server-Timing", "X-Model-Version")  # to pages of other origins


class DetectionService(bentoml.Service):
    """A BentoML service whose server has the REST API before it."""

    def __call__(self) -> Any:
        """Make the instance, as BentoML does when it starts, and keep it for the REST API."""
        self.instance = super().__call__()
        return self.instance

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        """Build the server's application, as BentoML does, and put the REST API before it."""
        self.inject_config()
        app: ASGIApp = ServiceAppFactory(self, is_main=is_main)()
        logs_access: bool = BentoMLContainer.api_server_config.logging.access.enabled.get()
        outer: ASGIApp = OuterApp(app, lambda: self.instance.endpoints.api, logs_access=logs_access)
        origins = _settings(ModelMetadata.read(ROOT / METADATA_FILE)).cors_origins
        return CORSMiddleware(outer, origins, ("GET", "POST"), ("*",), expose_headers=_EXPOSED) if origins else outer


def _settings(metadata: ModelMetadata) -> Settings:
    return read_settings(metadata.serving_score_threshold, metadata.score_threshold)


@bentoml.service(
    name=SERVICE_NAME,
    service_class=DetectionService,
    # OpenCV does not log broken images: the client is told. A container sends no usage statistics.
    envs=[
        {"name": "OPENCV_LOG_LEVEL", "value": "SILENT"},
        {"name": "BENTOML_DO_NOT_TRACK", "value": "true"},
    ],
)
class ObjectDetector:
    """Finds objects in images.

    The methods tell BentoML's clients of the REST API, whose server answers before BentoML's; called in a Python
    process they do the same work.
    """

    def __init__(self) -> None:
        self._metadata = ModelMetadata.read(ROOT / METADATA_FILE)
        settings = _settings(self._metadata)
        cv2.setNumThreads(1)  # images are decoded side by side already
        configure_allocator()
        self._predictor = Predictor(
            ROOT / MODEL_FILE, self._metadata, threads=settings.threads, batch_size=settings.batch_size
        )
        (self._test_image,) = ROOT.glob(f"{TEST_IMAGE_STEM}.*")
        self._test_result = ImageResult(**json.loads((ROOT / TEST_RESULT_FILE).read_text(encoding="utf-8")))
        bento = ObjectDetector.bento  # type: ignore[attr-defined]
        version = str(bento.tag) if bento else f"{SERVICE_NAME}:unpacked"
        self.endpoints = Endpoints(
            self._metadata,
            self._predictor,
            self._test_image,
            self._test_result,
            settings,
            version,
            ROOT.parent / RECORD_FILE,
        )
        self.endpoints.is_ready = self._gives_the_test_result()

    def _gives_the_test_result(self) -> bool:
        """Detect the objects of the test image, alone and beside others, which also warms the model up."""
        image, floor = decode(self._test_image.read_bytes()), self._metadata.score_threshold
        is_tiled = self._metadata.tiling.tiles(image.shape[1], image.shape[0])
        copies = [letterbox(image, self._metadata.image_size)] * self._predictor.batch_size
        wrong = 0
        for alone in (True, False):
            if is_tiled:
                answers = [predict_image(self._predictor, image, self._metadata, alone=alone)]
            else:
                answers = self._predictor.detect(copies, alone=alone)
            for detections in answers:
                found = ImageResult(**detections.to_json(self._metadata.classes, floor))
                wrong += count_unmatched(
                    found.detections, self._test_result.detections, floor, self._metadata.precision
                )
        if wrong:
            log.error("not ready: the test image gives other objects than when the model was packed. Pack it again")
        return not wrong

    @bentoml.on_shutdown
    def close(self) -> None:
        """Drop the images that wait for a thread, and write the samples that wait."""
        self.endpoints.pool.close()
        self.endpoints.watch.close()

    @bentoml.api
    async def predict(
        self,
        images: Annotated[list[Path], Field(description="JPEG, PNG, WebP or BMP files")],
        score_threshold: float | None = None,
        classes: list[str] | None = None,
        max_detections: int = MAX_DETECTIONS,
        output: Literal["json", "coco"] = "json",
        strict: bool = False,
    ) -> Any:
        """Detect objects in one or many images; see `/docs` for the parameters and the answer."""
        wanted = PredictParameters(
            score_threshold=score_threshold,
            classes=classes,
            max_detections=max_detections,
            output=output,
            strict=strict,
        )
        response = await self.endpoints.answer([(path.name, path.read_bytes()) for path in images], wanted)
        return json.loads(bytes(response.body))

    @bentoml.api
    async def draw(
        self,
        context: bentoml.Context,
        images: Annotated[Path, Field(description="a JPEG, PNG, WebP or BMP file")],
        score_threshold: float | None = None,
        classes: list[str] | None = None,
        max_detections: int = MAX_DETECTIONS,
    ) -> Annotated[Path, bentoml.validators.ContentType("image/jpeg")]:
        """Detect objects, and draw them into the image."""
        wanted = PredictParameters(
            score_threshold=score_threshold, classes=classes, max_detections=max_detections, output="image", strict=True
        )
        response = await self.endpoints.answer([(images.name, images.read_bytes())], wanted)
        drawn = Path(context.temp_dir, f"{images.stem}.jpg")
        drawn.write_bytes(response.body)
        return drawn

    @bentoml.api
    def test_data(self) -> Path:
        """Return the test image that the model was packed with."""
        return self._test_image

    @bentoml.api
    def test_result(self) -> ImageResult:
        """Return the detections in the test image at the time of packing, down to the lowest score."""
        return self._test_result

    @bentoml.api
    def info(self) -> ServiceInfo:
        """Return facts about the model, and the limits of a request."""
        return self.endpoints.info


if (ROOT / MODEL_FILE).is_file():  # `bentoml serve` would start a worker that cannot start again and again
    try:
        check_model(ROOT / MODEL_FILE, _packed := ModelMetadata.read(ROOT / METADATA_FILE))
        require_engine(_packed.runtime)
        if _samples := _settings(_packed).samples:
            open_place(_samples, create=True)
    except PipelineError as error:
        raise BentoMLException(str(error)) from None  # which the command prints without a traceback
