"""The endpoints of the REST API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from pydantic import TypeAdapter
from starlette.responses import HTMLResponse, JSONResponse, Response

from pipeline.errors import DataError, did_you_mean
from pipeline.serving.api_types import (
    CocoAnswer,
    CocoCategory,
    ErrorDetail,
    ImageFailure,
    ImageResult,
    Output,
    PredictParameters,
    ServiceInfo,
)
from pipeline.serving.decoding import FORMATS, decode, read_header
from pipeline.serving.detection_pool import DetectionPool, Found
from pipeline.serving.drawing import draw
from pipeline.serving.memory import Memory
from pipeline.serving.model_metadata import SERVICE_NAME, ModelMetadata
from pipeline.serving.openapi import NOT_DRAWN, openapi_document
from pipeline.serving.outer_app import Api, Endpoint, Exchange
from pipeline.serving.predictor import MAX_DETECTIONS, Predictor
from pipeline.serving.production_watch import Model, watch_for
from pipeline.serving.service_errors import ServiceError, too_long
from pipeline.serving.service_metrics import ServiceMetrics
from pipeline.serving.settings import Settings
from pipeline.serving.upload import Files, read_upload

_STAGES = ("decode", "wait", "inference")
_OTHER_BODY_BYTES = 64 * 2**10
_RESULTS: TypeAdapter[list[ImageResult | ImageFailure]] = TypeAdapter(list[ImageResult | ImageFailure])
_PAGE = Path(__file__).with_name("page.html")
_API_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="./static_content/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>
window.onload = () => SwaggerUIBundle({
  url: "./docs.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
</script></body></html>
"""  # without a validator, which would be told the service's address


class Endpoints:
    """The endpoints of a packed model; `record` is that of its training images, which may be missing."""

    def __init__(
        self,
        metadata: ModelMetadata,
        predictor: Predictor,
        test_image: Path,
        test_result: ImageResult,
        settings: Settings,
        version: str,
        record: Path,
    ) -> None:
        self._metadata = metadata
        self._settings = settings
        self._metrics = metrics = ServiceMetrics(metadata.classes, list(self._by_path()))
        self._test_image = test_image
        self._test_result = test_result
        self._class_ids = {name: index for index, name in enumerate(metadata.classes)}
        model = Model(version, settings.run, metadata.classes, settings.score_threshold)
        self.watch = watch_for(settings, model, record, metrics)
        self.pool = DetectionPool(predictor, metadata, settings, self.watch.see)
        self._page = _PAGE.read_text(encoding="utf-8")
        self.is_ready = False
        self.api = Api(self._by_path(), settings, metrics, version, Memory(settings.memory_bytes))
        fields = vars(metadata) | {
            "classes": list(metadata.classes),
            "serving_score_threshold": settings.score_threshold,
            "precision": predictor.precision,
        }
        self.info = ServiceInfo(
            name=SERVICE_NAME,
            version=version,
            run=settings.run,
            input_size=list(metadata.image_size),
            max_detections=MAX_DETECTIONS,
            formats=list(FORMATS),
            limits=settings.limits,
            providers=predictor.providers,
            engine=predictor.engine,
            threads=settings.threads,
            **fields,
        )
        about = f"{metadata.name}, {len(metadata.classes)} classes: {', '.join(metadata.classes[:20])}"
        self._openapi = openapi_document(
            SERVICE_NAME,
            version,
            about,
            metadata.classes,
            metadata.score_threshold,
            settings.max_images,
            needs_key=bool(settings.api_key),
        )

    def _by_path(self) -> Mapping[str, Endpoint]:
        both, key = ("GET", "POST"), True
        return {
            "/": Endpoint(self._show_page),
            "/ui": Endpoint(self._show_page, is_page=True),
            "/docs": Endpoint(self._show_api_page, is_page=True),
            "/docs.json": Endpoint(self._show_openapi),
            "/readyz": Endpoint(self._tell_ready),
            "/predict": Endpoint(self._predict, ("POST",), key),
            "/draw": Endpoint(self._draw, ("POST",), key),
            "/info": Endpoint(self._tell_info, both, key),
            "/test_data": Endpoint(self._give_test_data, both, key),
            "/test_result": Endpoint(self._give_test_result, both, key),
        }

    async def _predict(self, exchange: Exchange) -> Response:
        return await self._serve(exchange)

    async def _draw(self, exchange: Exchange) -> Response:
        return await self._serve(exchange, output="image")

    async def _serve(self, exchange: Exchange, output: Output | None = None) -> Response:
        began, most = perf_counter(), self._settings.max_body_bytes
        query = exchange.scope["query_string"]
        files, wanted = await read_upload(
            exchange.headers, query, lambda: exchange.read_body(most), self._settings, self._check
        )
        if output:
            if extra := sorted(wanted.model_fields_set & set(NOT_DRAWN)):
                raise ServiceError(400, "unknown_parameter", f"unknown parameter '{extra[0]}': draw has no such one")
            wanted.output = output
        read = perf_counter() - began
        response = await exchange.unless_gone(self.answer(files, wanted))
        self._metrics.timed("read", read)
        response.headers["Server-Timing"] = f"read;dur={1000 * read:.2f}, {response.headers['Server-Timing']}"
        return response

    async def answer(self, files: Files, wanted: PredictParameters) -> Response:
        """Detect objects in image files, and answer as it is wanted.

        Raises:
            ServiceError: A parameter or an image is wrong, or there is too much load.
        """
        if wanted.output == "image" and len(files) > 1:
            raise ServiceError(422, "not_one_image", f"only one image can be drawn at a time, not {len(files)}")
        threshold, class_ids = self._threshold(wanted.score_threshold), self._ids_of(wanted.classes)
        self._metrics.waiting.set(self.pool.waiting + len(files))
        try:
            found = await self.pool.detect(files)
        finally:
            self._metrics.waiting.set(self.pool.waiting)
        detected = perf_counter()
        failures = [each for each in found if isinstance(each, ServiceError)]
        if failures and (wanted.strict or len(failures) == len(found)):
            raise failures[0]
        results = [self._chosen(each, threshold, class_ids, wanted.max_detections) for each in found]
        response = await self._rendered(wanted, files, results)
        self._count(found, results)
        stages = self._timings(found) | {"post": perf_counter() - detected}
        self._metrics.timed("post", stages["post"])
        response.headers["Server-Timing"] = ", ".join(f"{name};dur={1000 * s:.2f}" for name, s in stages.items())
        return response

    def _check(self, wanted: PredictParameters) -> None:
        self._threshold(wanted.score_threshold)
        self._ids_of(wanted.classes)

    def _threshold(self, asked: float | None) -> float:
        floor = self._metadata.score_threshold
        value = self._settings.score_threshold if asked is None else asked
        if value < floor:
            message = f"score_threshold must be a number within {floor}..1, not {value:g}"
            raise ServiceError(400, "invalid_parameter", message)
        return value

    def _ids_of(self, names: list[str] | None) -> list[int] | None:
        for name in names or []:
            if name not in self._class_ids:
                hint = did_you_mean(name, self._class_ids, otherwise="see /info")
                raise ServiceError(400, "unknown_class", f"the model has no class '{name[:40]}': {hint}")
        return None if names is None else [self._class_ids[name] for name in names]

    def _chosen(
        self, found: Found | ServiceError, threshold: float, class_ids: list[int] | None, most: int
    ) -> ImageResult | ImageFailure:
        if isinstance(found, ServiceError):
            return ImageFailure(status=found.status, error=ErrorDetail(**found.body["error"]))
        detections = found.detections.select(threshold, class_ids, most)
        return ImageResult(**detections.to_json(self._metadata.classes))

    async def _rendered(
        self, wanted: PredictParameters, files: Files, results: Sequence[ImageResult | ImageFailure]
    ) -> Response:
        if wanted.output == "image" and isinstance(results[0], ImageResult):
            detections = results[0].detections
            try:
                drawn = await self.pool.run(files[0][1], lambda data: draw(decode(data), detections))
            except DataError as error:
                raise ServiceError(422, "image_too_large", error.problem, index=0, file=files[0][0]) from error
            return Response(drawn, media_type="image/jpeg")
        if wanted.output == "coco":
            answer = _as_coco(self._metadata.classes, [name for name, _ in files], results)
            return Response(answer.model_dump_json(), media_type="application/json")
        return Response(_RESULTS.dump_json(list(results)), media_type="application/json")

    def _count(self, found: Sequence[Found | ServiceError], results: Sequence[ImageResult | ImageFailure]) -> None:
        self._metrics.predicted(len(results))
        for each, result in zip(found, results, strict=True):
            if isinstance(result, ImageResult):
                objects = result.detections
                self._metrics.detected([one.class_id for one in objects], [one.score for one in objects])
            elif isinstance(each, ServiceError):
                self._metrics.refused(each.code)

    def _timings(self, found: Sequence[Found | ServiceError]) -> dict[str, float]:
        """Seconds by stage, added up over the images."""
        sums = dict.fromkeys(_STAGES, 0.0)
        for each in found:
            if isinstance(each, Found):
                self._metrics.ran(each.batch)
                for stage in _STAGES:
                    seconds: float = getattr(each, stage)
                    self._metrics.timed(stage, seconds)
                    sums[stage] += seconds
        return sums

    async def _tell_info(self, exchange: Exchange) -> Response:
        await _discard_body(exchange)
        return Response(self.info.model_dump_json(), media_type="application/json")

    async def _give_test_data(self, exchange: Exchange) -> Response:
        await _discard_body(exchange)
        data = self._test_image.read_bytes()
        media_type = f"image/{read_header(data).format.lower()}"
        name = self._test_image.name
        return Response(data, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'})

    async def _give_test_result(self, exchange: Exchange) -> Response:
        await _discard_body(exchange)
        return Response(self._test_result.model_dump_json(), media_type="application/json")

    async def _tell_ready(self, _: Exchange) -> Response:
        if not self.is_ready:
            message = "the test image gives other objects than when the model was packed; the server's log tells more"
            raise ServiceError(503, "not_ready", message)
        return Response("\n", media_type="text/plain")

    async def _show_page(self, _: Exchange) -> Response:
        return HTMLResponse(self._page)

    async def _show_api_page(self, _: Exchange) -> Response:
        return HTMLResponse(_API_PAGE)

    async def _show_openapi(self, _: Exchange) -> Response:
        return JSONResponse(self._openapi)


def _as_coco(classes: Sequence[str], names: Sequence[str], results: Sequence[ImageResult | ImageFailure]) -> CocoAnswer:
    """The results as a COCO data set; ids count from 1."""
    content: dict[str, Any] = {"images": [], "annotations": [], "errors": []}
    for number, (name, result) in enumerate(zip(names, results, strict=True), start=1):
        if isinstance(result, ImageFailure):
            content["errors"].append(result)
            continue
        content["images"].append({"id": number, "file_name": name, "width": result.width, "height": result.height})
        for each in result.detections:
            x1, y1, x2, y2 = each.box
            bbox = [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)]
            content["annotations"].append(
                {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": each.class_id + 1}
                | {"bbox": bbox, "area": round(bbox[2] * bbox[3], 3), "score": each.score}
            )
    categories = [CocoCategory(id=number, name=name) for number, name in enumerate(classes, start=1)]
    return CocoAnswer(categories=categories, **content)


async def _discard_body(exchange: Exchange) -> None:
    """Read and ignore the body of a call without parameters: many clients send `{}`."""
    length, more = 0, not exchange.is_read
    while more:
        message = await exchange.receive()
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
        if length > _OTHER_BODY_BYTES:
            raise too_long(_OTHER_BODY_BYTES)
