"""The OpenAPI 3.1 document of the service, made from the types that answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from pipeline.serving import api_types as types
from pipeline.serving.upload import FIELD, FORM_TYPE, JSON_TYPE, RAW_TYPES

NOT_DRAWN = ("output", "strict")
"""Parameters of `predict` that `draw` does not have."""
_REFERENCE = "#/components/schemas/{model}"
_REFUSED = {
    400: "the request is malformed, or a parameter is wrong",
    401: "the API key is missing or wrong",
    413: "the body or an image is too large",
    415: "the body has another media type",
    422: "an image cannot be read",
    500: "a fault of the service",
    503: "too much load; send it again",
    504: "it took too long",
}
_PREDICT = """Send image files as a form, one image as the body, or files in base64 as JSON:

    curl -F images=@one.jpg -F images=@two.jpg 'URL/predict?score_threshold=0.3'
    curl --data-binary @one.jpg -H 'Content-Type: image/jpeg' URL/predict

The answer has one item an image, in order. Where some images cannot be read, their items hold the error and its
`status`; where none can, or with `strict`, the whole answer is the error. Parameters may come in the query, in the form
or in the JSON object. `Server-Timing` tells the milliseconds of each stage, added up over the images."""


def openapi_document(
    name: str,
    version: str,
    description: str,
    classes: Sequence[str],
    floor: float,
    max_images: int,
    *,
    needs_key: bool,
) -> dict[str, Any]:
    """Make the document.

    Args:
        name: Of the service.
        version: Of the service.
        description: What the service is.
        classes: Of the model.
        floor: The least score threshold.
        max_images: Of a request.
        needs_key: Whether requests need an API key.
    """
    models = (
        *(types.ImageResult, types.ImageFailure, types.CocoAnswer, types.ErrorAnswer, types.ServiceInfo),
        *(types.PredictParameters, types.JsonUpload),
    )
    modes = [(model, "validation" if model is types.JsonUpload else "serialization") for model in models]
    _, definitions = models_json_schema(modes, ref_template=_REFERENCE)  # type: ignore[arg-type]
    schemas: dict[str, Any] = definitions["$defs"]
    parameters = schemas.pop("PredictParameters")["properties"]
    members = schemas["JsonUpload"]["properties"]
    for properties in (parameters, members):
        for schema in properties.values():
            _drop_null(schema)
        properties["score_threshold"]["minimum"] = floor
        properties["classes"]["items"] = {"type": "string", "enum": list(classes)}
    members |= {name: _or_null(members[name]) for name in ("score_threshold", "classes")}
    query = [
        {"name": key, "in": "query", "schema": schema, "description": schema.pop("description", "")}
        for key, schema in ((key, dict(schema)) for key, schema in parameters.items())
    ]
    file = {"type": "string", "format": "binary"}
    schemas["JsonUpload"]["properties"]["images"] |= {"minItems": 1, "maxItems": max_images}
    results = {"type": "array", "items": {"anyOf": [_reference("ImageResult"), _reference("ImageFailure")]}}
    answers = {
        JSON_TYPE: {"schema": {"anyOf": [results, _reference("CocoAnswer")]}},
        "image/jpeg": {"schema": file},
    }
    jpeg = {"image/jpeg": {"schema": file}}
    drawn = {name: each for name, each in parameters.items() if name not in NOT_DRAWN}
    paths = {
        "/predict": {
            "post": _operation(
                "predict", "Detect objects in images", answers, query, _body(parameters, max_images), _PREDICT
            )
        },
        "/draw": {
            "post": _operation(
                "draw",
                "Detect objects, and draw them into the one image",
                jpeg,
                [each for each in query if each["name"] in drawn],
                _body(drawn, 1),
            )
        },
    }
    image_types = {media: {"schema": file} for media in RAW_TYPES[:4]}
    for path, summary, content in (
        ("info", "The model, and the limits of a request", {JSON_TYPE: {"schema": _reference("ServiceInfo")}}),
        ("test_data", "The test image that the model was packed with", image_types),
        ("test_result", "Its detections at packing", {JSON_TYPE: {"schema": _reference("ImageResult")}}),
    ):
        paths[f"/{path}"] = {
            "get": _operation(path, summary, content),
            "post": _operation(f"post_{path}", summary, content, codes=(401, 413, 500)),
        }
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version, "description": description},
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": schemas},
    }
    if needs_key:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]
    return document


def _body(parameters: dict[str, Any], most: int) -> dict[str, Any]:
    """The ways in which images come, at most so many."""
    file = {"type": "string", "format": "binary"}
    images = {"type": "array", "items": file, "minItems": 1, "maxItems": most}
    # BentoML's client sends null for what is not given
    fields = {name: each if "default" in each else _or_word_null(each) for name, each in parameters.items()}
    form = {"type": "object", "properties": {FIELD: images, **fields}, "required": [FIELD]}
    upload: dict[str, Any] = _reference("JsonUpload")
    if most == 1:
        upload = {"allOf": [upload, {"type": "object", "properties": {FIELD: {"type": "array", "maxItems": 1}}}]}
        upload["allOf"] += [{"not": {"required": [name]}} for name in NOT_DRAWN]
    content: dict[str, Any] = {FORM_TYPE: {"schema": form | {"additionalProperties": False}}}
    content |= {JSON_TYPE: {"schema": upload}}
    return {"required": True, "content": content | {media: {"schema": file} for media in RAW_TYPES}}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return schema | {"type": [schema["type"], "null"]}


def _or_word_null(schema: dict[str, Any]) -> dict[str, Any]:
    """In a form everything is text, null too."""
    if schema["type"] == "array":
        return _or_null(schema)
    return schema | {"type": [schema["type"], "null", "string"], "pattern": "^null$"}


def _reference(model: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model)}


def _drop_null(schema: dict[str, Any]) -> None:
    """A parameter that is not given is left out; null is no value of it."""
    choices = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
    for choice in choices:
        schema.update(choice)
    if schema.get("default", 0) is None:
        del schema["default"]


def _operation(
    name: str,
    summary: str,
    content: dict[str, Any],
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    description: str = "",
    codes: tuple[int, ...] = (401, 500),
) -> dict[str, Any]:
    headers = {"X-Model-Version": {"schema": {"type": "string"}, "description": "name and version of the service"}}
    if body:
        headers["Server-Timing"] = {"schema": {"type": "string"}, "description": "milliseconds of each stage"}
    error = {JSON_TYPE: {"schema": _reference("ErrorAnswer")}}
    refusals = {str(code): {"description": _REFUSED[code], "content": error} for code in (_REFUSED if body else codes)}
    operation: dict[str, Any] = {"operationId": name, "summary": summary, "description": description}
    if parameters:
        operation["parameters"] = parameters
    if body:
        operation["requestBody"] = body
    return operation | {"responses": {"200": {"description": "OK", "headers": headers, "content": content}} | refusals}
