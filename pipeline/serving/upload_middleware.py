"""The upload middleware: it reads and checks request bodies, so that BentoML receives only prepared images.

BentoML 1.4 reads bodies of any length, fetches a URL that is sent instead of a file, and answers 500 to a broken image.
This ASGI middleware reads the body itself, refuses invalid uploads, decodes images in its own threads, and puts the
prepared images into the request's state, from where the service's input takes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import DataError, did_you_mean
from pipeline.serving.decoding import decode, read_header
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import available_cpus
from pipeline.serving.preprocessing import Letterboxed, letterbox
from pipeline.serving.upload_parsing import (
    UploadedFile,
    UploadLimits,
    UploadRefusedError,
    check_headers,
    read_files,
    too_long,
)

UPLOAD_PATH = "/predict"
STATE_KEY = "images"
_OTHER_BODY_BYTES = 64 * 2**10
_DRAIN_BYTES = 32 * 2**20
_DRAIN_SECONDS = 2.0


@dataclass(frozen=True)
class PreparedImage:
    """One letterboxed image, and the lowest score that its sender wants."""

    image: Letterboxed
    score_threshold: float


class UploadMiddleware:
    """ASGI middleware; see the module.

    Args:
        app: The service.
        metadata_path: The `model.json`, for the input size and the thresholds.
        limits: What a request may ask for.
    """

    def __init__(self, app: ASGIApp, metadata_path: Path, limits: UploadLimits) -> None:
        self._app = app
        self._metadata = ModelMetadata.read(metadata_path)
        self._limits = limits
        self._held_bytes = 0
        self._decoders = anyio.CapacityLimiter(available_cpus())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)  # these have no body
            return
        request = Request(scope, receive)
        try:
            if scope["path"] == UPLOAD_PATH:
                request.scope.setdefault("state", {})[STATE_KEY] = await self._admit(request)
            else:
                await _discard_body(request)
        except UploadRefusedError as error:
            await _refuse(error, receive, send)
        except ClientDisconnect:
            await Response(status_code=400)(
                scope, receive, send
            )  # nobody receives it, but BentoML's timer waits for an answer
        else:
            await self._app(_without_body(scope), _after_body(receive), send)

    async def _admit(self, request: Request) -> list[PreparedImage]:
        threshold = self._read_threshold(request)
        check_headers(request.headers, self._limits)
        held = [0]
        try:
            files = await read_files(request.headers, self._limited(request, held), self._limits)
            for index, file in enumerate(files):
                _check_header(index, file, self._limits)
            return [PreparedImage(await self._prepare(index, file), threshold) for index, file in enumerate(files)]
        finally:
            self._held_bytes -= held[0]

    def _read_threshold(self, request: Request) -> float:
        for name in request.query_params:
            if name != "score_threshold":
                hint = did_you_mean(name, ["score_threshold"], otherwise="the only one is 'score_threshold'")
                raise UploadRefusedError(400, "unknown_parameter", f"unknown parameter '{name}': {hint}")
        text = request.query_params.get("score_threshold", str(self._metadata.serving_score_threshold))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        floor = self._metadata.score_threshold
        if not floor <= value <= 1:
            message = f"score_threshold must be a number within {floor}..1, not '{text[:40]}'"
            raise UploadRefusedError(400, "invalid_parameter", message)
        return value

    async def _limited(self, request: Request, held: list[int]) -> AsyncGenerator[bytes, None]:
        """Yield the body chunk by chunk up to the limits; `held` counts the bytes that this request keeps."""
        async for chunk in request.stream():
            held[0] += len(chunk)
            self._held_bytes += len(chunk)
            if held[0] > self._limits.body_bytes:
                raise too_long(self._limits.body_bytes)
            if self._held_bytes > self._limits.held_bytes:
                raise UploadRefusedError(503, "overloaded", "too many uploads at once; try again")
            yield chunk

    async def _prepare(self, index: int, file: UploadedFile) -> Letterboxed:
        """Decode and letterbox in a thread: one image of a request at a time, so that others are served too."""

        def run() -> Letterboxed:
            return letterbox(decode(file.data, max_pixels=self._limits.pixels), self._metadata.image_size)

        try:
            return await anyio.to_thread.run_sync(run, limiter=self._decoders)
        except DataError as error:
            raise _bad_image(index, file, error) from error


def _check_header(index: int, file: UploadedFile, limits: UploadLimits) -> None:
    try:
        header = read_header(file.data)
    except DataError as error:
        raise _bad_image(index, file, error) from error
    if header.pixels > limits.pixels:
        message = f"image {index} is {header.width} x {header.height}, more than {limits.pixels} pixels"
        raise UploadRefusedError(
            413, "image_too_large", message, index=index, file=file.name, limit_pixels=limits.pixels
        )


def _bad_image(index: int, file: UploadedFile, error: DataError) -> UploadRefusedError:
    return UploadRefusedError(422, "invalid_image", f"image {index}: {error.problem}", index=index, file=file.name)


async def _discard_body(request: Request) -> None:
    """Read and ignore the body of a call without parameters: many clients send `{}`."""
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > _OTHER_BODY_BYTES:
            raise too_long(_OTHER_BODY_BYTES)


def _without_body(scope: Scope) -> Scope:
    headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-type", b"content-length")]
    return {**scope, "headers": headers}


def _after_body(receive: Receive) -> Receive:
    """Replace the body by an empty JSON object; later messages, such as a disconnect, are passed on."""
    pending: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive_rest() -> Message:
        return pending.pop() if pending else await receive()

    return receive_rest


async def _refuse(error: UploadRefusedError, receive: Receive, send: Send) -> None:
    """Answer, then read on for a moment: to close on a client that still sends could destroy the answer."""
    response = error.response()
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    drained, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while more and drained < _DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                more = message.get("more_body", False)  # absent in a disconnect
    await send({"type": "http.response.body", "body": b"", "more_body": False})
