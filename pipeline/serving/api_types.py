"""The types of the REST API: parameters, answers and errors. The OpenAPI document is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pipeline.serving.predictor import MAX_DETECTIONS

_BASE64 = {"pattern": r"^(data:[^,]*;base64,)?([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"}
MOST_CLASSES = 1000
"""That a request may name."""

Output = Literal["json", "coco", "image"]
Box = Annotated[list[float], Field(min_length=4, max_length=4)]
"""Not a tuple, whose `prefixItems` many generators of clients do not know."""


def _read_bool(value: object) -> object:
    """True and false as JSON and Python write them, none of the other words that pydantic takes for them."""
    if isinstance(value, bool) or value in ("true", "false", "True", "False"):
        return value
    raise PydanticCustomError("bool", "input should be true or false")


class PredictParameters(BaseModel):
    """What a request may ask for, in its query, its form or its JSON object."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    score_threshold: float | None = Field(None, ge=0, le=1, description="least score of a detection in the answer")
    classes: list[str] | None = Field(
        None, max_length=MOST_CLASSES, description="names of the classes to answer; all by default"
    )
    max_detections: int = Field(
        MAX_DETECTIONS, ge=1, le=MAX_DETECTIONS, description="detections of an image, the most certain first"
    )
    output: Output = Field(
        "json", description="a list of results, a COCO data set with scores, or the one image with its boxes drawn"
    )
    strict: Annotated[bool, BeforeValidator(_read_bool)] = Field(
        False, description="whether one image that cannot be read fails the whole request"
    )


class DetectedObject(BaseModel):
    """One detected object."""

    box: Box = Field(description="x1, y1, x2, y2 in pixels of the upright image")
    score: float = Field(ge=0, le=1, description="certainty")
    label: str = Field(description="name of the class")
    class_id: int = Field(ge=0, description="index of the class")


class ImageResult(BaseModel):
    """The detections in one image."""

    status: Literal[200] = 200
    width: int = Field(description="width of the upright image in pixels")
    height: int = Field(description="height of the upright image in pixels")
    detections: list[DetectedObject] = Field(description=f"most certain first, at most {MAX_DETECTIONS}")


class ErrorDetail(BaseModel):
    """What went wrong; some errors have further members, such as a limit."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="for programs")
    message: str = Field(description="for people")
    index: int | None = Field(None, description="index of the image that it is about, from 0")
    file: str | None = Field(None, description="name of the file that it is about")


class ErrorAnswer(BaseModel):
    """The answer to a request that is not served."""

    error: ErrorDetail


class ImageFailure(BaseModel):
    """An image that could not be read, among others that could."""

    status: int = Field(ge=400, le=499, description="the HTTP status that it would have had alone")
    error: ErrorDetail


class CocoImage(BaseModel):
    """An image; its id is its index in the request plus 1."""

    id: int
    file_name: str
    width: int
    height: int


class CocoCategory(BaseModel):
    """A class; its id is its index plus 1."""

    id: int
    name: str


class CocoAnnotation(BaseModel):
    """A detection, which is a result in COCO's results format, too."""

    id: int
    image_id: int
    category_id: int
    bbox: Box = Field(description="x, y, width, height in pixels of the upright image")
    area: float
    iscrowd: Literal[0] = 0
    score: float


class CocoAnswer(BaseModel):
    """A COCO data set, whose annotations have scores."""

    images: list[CocoImage]
    categories: list[CocoCategory]
    annotations: list[CocoAnnotation]
    errors: list[ImageFailure] = Field(description="images that could not be read")


class JsonUpload(PredictParameters):
    """A JSON body of `predict`."""

    images: list[Annotated[str, Field(description="a file in base64, or a data: URL", json_schema_extra=_BASE64)]]


class ServiceInfo(BaseModel):
    """The model, and the limits of a request."""

    name: str
    version: str = Field(description="a digest of the service's content")
    run: str = Field(description="the run that the service comes from, where it was told")
    family: str = Field(description="of the detector, such as YOLOX")
    variant: str = Field(description="size of the detector, such as s")
    runtime: str
    precision: str = Field(description="in which the model computes on this machine")
    classes: list[str]
    input_size: list[int] = Field(
        min_length=2, max_length=2, description="height, width of the network's input in pixels"
    )
    tile: int = Field(description="side in pixels of the tiles that larger images are cut into; 0: images stay whole")
    overlap: float = Field(description="share of a tile that neighbours have in common at least")
    score_threshold: float = Field(description="least score that can be asked for")
    serving_score_threshold: float = Field(description="least score of an answer when none is asked for")
    nms_iou_threshold: float
    max_detections: int
    formats: list[str]
    limits: dict[str, int]
    onnx_sha256: str
    providers: list[str] = Field(description="ONNX Runtime's execution providers in use, or OpenVINO's device")
    engine: str = Field(description="name and version of the library that runs the model")
    threads: int = Field(description="CPU threads")
    origin: dict[str, Any] = Field(description="commit, data and licence that the model comes from")
    metrics: dict[str, Any]
    training: dict[str, Any]
