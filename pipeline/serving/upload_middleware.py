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
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import DataError, did_you_mean
from pipeline.serving.decoding import MAX_PIXELS, decode, read_header
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import available_cpus
from pipeline.serving.preprocessing import Letterboxed, letterbox

LIMITS = {"body_bytes": 32 * 2**20, "images": 32, "pixels": MAX_PIXELS}
"""Of one request: length of its body, number of images, and pixels of each by its header."""
UPLOAD_PATH = "/predict"
STATE_KEY = "images"

_FIELD = "images"
_MEDIA_TYPE = "multipart/form-data"
_HELD_BYTES = 2**30  # of the bodies of all unfinished requests
_OTHER_BODY_BYTES = 64 * 2**10
_DRAIN_BYTES = 32 * 2**20
_DRAIN_SECONDS = 2.0

PreparedImage = tuple[Letterboxed, float]
"""One letterboxed image, and the lowest score that its sender wants."""


class UploadRefusedError(Exception):
    """A request that is not served: HTTP status, a code for programs, a message for people, and further JSON values."""

    def __init__(self, status: int, code: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, **details}}


class UploadMiddleware:
    """ASGI middleware; see the module. The `model.json` tells the input size and the thresholds."""

    def __init__(self, app: ASGIApp, metadata_path: Path) -> None:
        self._app = app
        self._metadata = ModelMetadata.read(metadata_path)
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
            # nobody receives it, but BentoML's timer waits for an answer
            await Response(status_code=400)(scope, receive, send)
        else:
            headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-type", b"content-length")]
            await self._app({**scope, "headers": headers}, _after_body(receive), send)

    async def _admit(self, request: Request) -> list[PreparedImage]:
        threshold = self._read_threshold(request)
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != _MEDIA_TYPE:
            given = f"not {media_type}" if media_type else "and has no content type"
            message = f"the body must be {_MEDIA_TYPE} with files named '{_FIELD}', {given}"
            raise UploadRefusedError(415, "unsupported_media_type", message)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > LIMITS["body_bytes"]:  # before a byte of it is read
            raise _too_long(LIMITS["body_bytes"])
        held = [0]
        try:
            files = await _read_files(request, self._limited(request, held))
            return [(await self._prepare(index, *file), threshold) for index, file in enumerate(files)]
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
            if held[0] > LIMITS["body_bytes"]:
                raise _too_long(LIMITS["body_bytes"])
            if self._held_bytes > _HELD_BYTES:
                raise UploadRefusedError(503, "overloaded", "too many uploads at once; try again")
            yield chunk

    async def _prepare(self, index: int, name: str, data: bytes) -> Letterboxed:
        """Decode and letterbox in a thread: one image of a request at a time, so that others are served too."""
        try:
            header = read_header(data)
            if header.pixels > MAX_PIXELS:
                message = f"image {index} is {header.width} x {header.height}, more than {MAX_PIXELS} pixels"
                details = {"index": index, "file": name, "limit_pixels": MAX_PIXELS}
                raise UploadRefusedError(413, "image_too_large", message, **details)
            return await anyio.to_thread.run_sync(
                lambda: letterbox(decode(data), self._metadata.image_size), limiter=self._decoders
            )
        except DataError as error:
            message = f"image {index}: {error.problem}"
            raise UploadRefusedError(422, "invalid_image", message, index=index, file=name) from error


async def _read_files(request: Request, body: AsyncGenerator[bytes, None]) -> list[tuple[str, bytes]]:
    """Names and bytes of the form's files. A part without a file name is refused: it could be text, JSON or a URL."""
    parser = _InMemoryParser(request.headers, body, max_files=LIMITS["images"], max_fields=1)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            limit = LIMITS["images"]
            message = f"more than {limit} images in one request"
            raise UploadRefusedError(413, "too_many_images", message, limit_images=limit) from error
        message = f"the multipart form cannot be read: {error.message}"
        raise UploadRefusedError(400, "malformed_form", message) from error
    if not parser.closed:
        raise UploadRefusedError(400, "malformed_form", "the multipart form ends before its last boundary")
    files = []
    for index, (name, part) in enumerate(form.multi_items()):
        if not isinstance(part, UploadFile):
            message = f"part {index} ('{name}') is not a file: give it a file name"
            raise UploadRefusedError(400, "not_a_file", message, index=index)
        if name != _FIELD:
            message = f"part {index} is named '{name}': files must be named '{_FIELD}'"
            raise UploadRefusedError(400, "unexpected_field", message, index=index)
        files.append((part.filename or "", await part.read()))
    if not files:
        raise UploadRefusedError(400, "no_images", f"the form has no file named '{_FIELD}'")
    await form.close()
    return files


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without temporary files. It notes whether the form is complete."""

    spool_max_size = 2**40
    closed = False

    def on_end(self) -> None:
        """Note that the last boundary was read."""
        self.closed = True


def _too_long(limit: int) -> UploadRefusedError:
    return UploadRefusedError(413, "body_too_large", f"the body is longer than {limit} bytes", limit_bytes=limit)


async def _discard_body(request: Request) -> None:
    """Read and ignore the body of a call without parameters: many clients send `{}`."""
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > _OTHER_BODY_BYTES:
            raise _too_long(_OTHER_BODY_BYTES)


def _after_body(receive: Receive) -> Receive:
    """Replace the body by an empty JSON object; later messages, such as a disconnect, are passed on."""
    pending: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive_rest() -> Message:
        return pending.pop() if pending else await receive()

    return receive_rest


async def _refuse(error: UploadRefusedError, receive: Receive, send: Send) -> None:
    """Answer, then read on for a moment: to close on a client that still sends could destroy the answer."""
    headers = {"Connection": "close"} | ({"Retry-After": "1"} if error.status == 503 else {})
    response = JSONResponse(error.body, error.status, headers)
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
