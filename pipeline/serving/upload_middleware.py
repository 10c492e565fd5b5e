"""The upload middleware: it reads and checks request bodies, so that BentoML receives only prepared images.

BentoML 1.4 reads bodies of any length, fetches a URL that is sent instead of a file, and answers 500 to a broken image.
This ASGI middleware reads the body itself, refuses invalid uploads, decodes images in its own threads, and puts the
prepared images into the request's state, from where the service's input takes them.

The bytes of bodies and of prepared images count until the answer is sent, and beyond a limit further uploads are
refused. The work of a client that goes away is dropped, wherever it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import DataError, did_you_mean
from pipeline.serving.decoding import MAX_PIXELS, decode, read_header
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.outer_app import ServiceError, unexpected_error
from pipeline.serving.predictor import available_cpus
from pipeline.serving.preprocessing import Letterboxed, letterbox

log = logging.getLogger(__name__)

LIMITS = {"body_bytes": 32 * 2**20, "images": 32, "pixels": MAX_PIXELS}
"""Of one request: length of its body, number of images, and pixels of each by its header."""
UPLOAD_PATH = "/predict"
STATE_KEY = "images"

_FIELD = "images"
_MEDIA_TYPE = "multipart/form-data"
_HELD_BYTES = 2**28  # of the bodies and the prepared images of all unfinished requests
_OTHER_BODY_BYTES = 64 * 2**10
_DRAIN_BYTES = 32 * 2**20
_DRAIN_SECONDS = 2.0

PreparedImage = tuple[Letterboxed, float]
"""One letterboxed image, and the lowest score that its sender wants."""


@dataclass
class _Exchange:
    """A request under way."""

    request: Request
    send: Send
    held: int = 0  # bytes of its body and its prepared images
    is_answered: bool = False

    async def answer(self, message: Message) -> None:
        """Send a message to the client."""
        self.is_answered = True
        await self.send(message)


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
        exchange = _Exchange(Request(scope, receive), send)
        try:
            await self._serve(exchange)
        except ServiceError as error:
            await _refuse(error, receive, exchange.answer)
        except ClientDisconnect:
            # nobody receives it, but BentoML's timer waits for an answer
            await Response(status_code=400)(scope, receive, exchange.answer)
        except Exception:
            log.exception("an unexpected error at %s", scope["path"])
            if not exchange.is_answered:
                await _refuse(unexpected_error(), receive, exchange.answer)
        finally:
            self._held_bytes -= exchange.held

    async def _serve(self, exchange: _Exchange) -> None:
        scope, threshold = exchange.request.scope, 0.0
        files: list[tuple[str, bytes]] = []
        if scope["path"] == UPLOAD_PATH:
            threshold = self._read_threshold(exchange.request)
            files = await self._read(exchange)
        else:
            await _discard_body(exchange.request)

        async def work(receive: Receive) -> None:
            if scope["path"] == UPLOAD_PATH:
                prepared = [(await self._prepare(exchange, i, *file), threshold) for i, file in enumerate(files)]
                scope.setdefault("state", {})[STATE_KEY] = prepared
            headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-type", b"content-length")]
            await self._app({**scope, "headers": headers}, receive, exchange.answer)

        await _unless_gone(work, exchange)

    async def _read(self, exchange: _Exchange) -> list[tuple[str, bytes]]:
        request = exchange.request
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != _MEDIA_TYPE:
            given = f"not {media_type}" if media_type else "and has no content type"
            message = f"the body must be {_MEDIA_TYPE} with files named '{_FIELD}', {given}"
            raise ServiceError(415, "unsupported_media_type", message)
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > LIMITS["body_bytes"]:  # before a byte of it is read
            raise _too_long(LIMITS["body_bytes"])
        return await _read_files(request, self._limited(exchange))

    def _read_threshold(self, request: Request) -> float:
        for name in request.query_params:
            if name != "score_threshold":
                hint = did_you_mean(name, ["score_threshold"], otherwise="the only one is 'score_threshold'")
                raise ServiceError(400, "unknown_parameter", f"unknown parameter '{name}': {hint}")
        text = request.query_params.get("score_threshold", str(self._metadata.serving_score_threshold))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        floor = self._metadata.score_threshold
        if not floor <= value <= 1:
            message = f"score_threshold must be a number within {floor}..1, not '{text[:40]}'"
            raise ServiceError(400, "invalid_parameter", message)
        return value

    async def _limited(self, exchange: _Exchange) -> AsyncGenerator[bytes, None]:
        """Yield the body chunk by chunk up to the limits."""
        async for chunk in exchange.request.stream():
            self._hold(exchange, len(chunk))
            if exchange.held > LIMITS["body_bytes"]:
                raise _too_long(LIMITS["body_bytes"])
            yield chunk

    def _hold(self, exchange: _Exchange, count: int) -> None:
        exchange.held += count
        self._held_bytes += count
        if self._held_bytes > _HELD_BYTES:
            raise ServiceError(503, "overloaded", "too many uploads at once; try again")

    async def _prepare(self, exchange: _Exchange, index: int, name: str, data: bytes) -> Letterboxed:
        """Decode and letterbox in a thread: one image of a request at a time, so that others are served too."""
        height, width = self._metadata.image_size
        self._hold(exchange, height * width * 3)
        try:
            header = read_header(data)
            if header.pixels > MAX_PIXELS:
                message = f"image {index} is {header.width} x {header.height}, more than {MAX_PIXELS} pixels"
                details = {"index": index, "file": name, "limit_pixels": MAX_PIXELS}
                raise ServiceError(413, "image_too_large", message, **details)
            return await anyio.to_thread.run_sync(
                lambda: letterbox(decode(data), self._metadata.image_size), limiter=self._decoders
            )
        except DataError as error:
            message = f"image {index}: {error.problem}"
            raise ServiceError(422, "invalid_image", message, index=index, file=name) from error


async def _read_files(request: Request, body: AsyncGenerator[bytes, None]) -> list[tuple[str, bytes]]:
    """Names and bytes of the form's files. A part without a file name is refused: it could be text, JSON or a URL."""
    parser = _InMemoryParser(request.headers, body, max_files=LIMITS["images"], max_fields=1)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            limit = LIMITS["images"]
            message = f"more than {limit} images in one request"
            raise ServiceError(413, "too_many_images", message, limit_images=limit) from error
        message = f"the multipart form cannot be read: {error.message}"
        raise ServiceError(400, "malformed_form", message) from error
    if not parser.closed:
        raise ServiceError(400, "malformed_form", "the multipart form ends before its last boundary")
    files = []
    for index, (name, part) in enumerate(form.multi_items()):
        if not isinstance(part, UploadFile):
            message = f"part {index} ('{name}') is not a file: give it a file name"
            raise ServiceError(400, "not_a_file", message, index=index)
        if name != _FIELD:
            message = f"part {index} is named '{name}': files must be named '{_FIELD}'"
            raise ServiceError(400, "unexpected_field", message, index=index)
        files.append((part.filename or "", await part.read()))
    if not files:
        raise ServiceError(400, "no_images", f"the form has no file named '{_FIELD}'")
    await form.close()
    return files


class _InMemoryParser(MultiPartParser):
    """Starlette's parser without temporary files. It notes whether the form is complete."""

    spool_max_size = 2**40
    closed = False

    def on_end(self) -> None:
        """Note that the last boundary was read."""
        self.closed = True


def _too_long(limit: int) -> ServiceError:
    return ServiceError(413, "body_too_large", f"the body is longer than {limit} bytes", limit_bytes=limit)


async def _discard_body(request: Request) -> None:
    """Read and ignore the body of a call without parameters: many clients send `{}`."""
    length = 0
    async for chunk in request.stream():
        length += len(chunk)
        if length > _OTHER_BODY_BYTES:
            raise _too_long(_OTHER_BODY_BYTES)


async def _unless_gone(work: Callable[[Receive], Awaitable[None]], exchange: _Exchange) -> None:
    """Do the work of a request whose body was read; a `ClientDisconnect` ends it before its answer.

    The work gets an empty JSON object as the body, and then learns, as this does, that the client has gone.
    """
    gone = asyncio.ensure_future(_disconnect(exchange.request.receive))
    pending: list[Message] = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def receive_rest() -> Message:
        return pending.pop() if pending else await asyncio.shield(gone)

    working = asyncio.ensure_future(work(receive_rest))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not exchange.is_answered:  # a server says that all have gone whom it has answered
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await working
            raise ClientDisconnect
        await working
    finally:
        for task in (working, gone):
            task.cancel()


async def _disconnect(receive: Receive) -> Message:
    while (message := await receive())["type"] != "http.disconnect":
        pass
    return message


async def _refuse(error: ServiceError, receive: Receive, send: Send) -> None:
    """Answer, then read on for a moment: to close on a client that still sends could destroy the answer."""
    response = error.response()
    response.headers["Connection"] = "close"
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
