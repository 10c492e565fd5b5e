"""The application that stands before BentoML's server: the REST API and its pages, and one shape for all errors.

BentoML's own server parses bodies of any length, passes every request through five layers, counts a metric for each
path that a client makes up, and answers errors in several shapes. It keeps what it does well: health, metrics, and the
schema that its own client reads. Those paths are passed on, and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import did_you_mean
from pipeline.serving.memory import BodyBuffer, Memory
from pipeline.serving.service_errors import ServiceError, overloaded, too_long, unexpected_error
from pipeline.serving.service_metrics import ServiceMetrics
from pipeline.serving.settings import Settings

log = logging.getLogger(__name__)
access_log = logging.getLogger("bentoml.access")  # where BentoML writes, in the same form

T = TypeVar("T")

PASSED_ON = ("/healthz", "/livez", "/metrics", "/schema.json")
"""Paths that BentoML answers."""
STATIC = ("/static_content/swagger-ui.css", "/static_content/swagger-ui-bundle.js")
"""Files of the API page, which BentoML answers. It counts each path that it is asked for, so there are no others."""

_CLIENT_GONE = 499  # nginx's code, in metrics and in the log; nobody receives it
_DRAIN_BYTES = 32 * 2**20
_DRAIN_SECONDS = 2.0
_PIECE_BYTES = 64 * 2**10


@dataclass
class Exchange:
    """A request under way."""

    scope: Scope
    _receive: Receive
    headers: dict[str, str]  # by name in lower case
    memory: Memory
    held: int = 0  # bytes of its body and of its answer, which count until the answer is sent
    is_read: bool = False  # whether its body was read to its end

    def hold(self, count: int) -> None:
        """Count bytes of this request."""
        self.held += count
        self.memory.hold(count)

    def release(self) -> None:
        """Count its bytes no longer."""
        self.memory.release(self.held)
        self.held = 0

    async def receive(self) -> Message:
        """The next message of the client."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_read = True
        return message

    async def read_body(self, limit: int) -> bytes:
        """Read all of the body.

        Raises:
            ServiceError: It is longer than the limit, or too much is held already.
            ClientDisconnect: The client has gone.
        """
        length = self.headers.get("content-length", "")
        expected = int(length) if length.isdigit() else limit
        if expected > limit:  # before a byte of it is read
            raise too_long(limit)
        buffer: BodyBuffer | None = None
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            piece: bytes = message.get("body", b"")
            self.hold(len(piece))
            if self.held > limit:
                raise too_long(limit)
            if self.memory.held > self.memory.limit:
                raise overloaded("too many uploads at once")
            if self.is_read and buffer is None:  # it came in one piece
                return piece
            buffer = buffer or BodyBuffer(expected)
            buffer.append(piece)
            if self.is_read:
                return buffer.content()

    async def unless_gone(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work of a request whose body was read; a `ClientDisconnect` ends it where its client goes away."""
        working, gone = asyncio.ensure_future(work), asyncio.ensure_future(self._disconnect())
        try:
            await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            return working.result()
        finally:
            gone.cancel()
            if not working.done():
                working.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await working

    async def _disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


Handler = Callable[[Exchange], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path's handler and methods."""

    handler: Handler
    methods: tuple[str, ...] = ("GET",)
    needs_key: bool = False  # whether it asks for the API key
    is_page: bool = False  # whether its links are relative, so that a slash at its end would lead them astray


@dataclass(frozen=True)
class Api:
    """The REST API of a service: its endpoints by path, and what holds for all of them."""

    endpoints: Mapping[str, Endpoint]
    settings: Settings
    metrics: ServiceMetrics
    version: str  # name and version of the service
    memory: Memory


class OuterApp:
    """ASGI application around BentoML's.

    Args:
        app: BentoML's application.
        api: Gives the API, once BentoML has started the service.
        logs_access: Whether each request is a line in the log.
    """

    def __init__(self, app: ASGIApp, api: Callable[[], Api], *, logs_access: bool = True) -> None:
        self._app = app
        self._api = api
        self._logs_access = logs_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path in (*PASSED_ON, *STATIC) and scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        api = self._api()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = Exchange(scope, receive, headers, api.memory)
        plain = path.rstrip("/") or "/"
        endpoint = api.endpoints.get(plain)
        try:
            response = await _answer(api, exchange, plain, endpoint)
            response.headers["X-Model-Version"] = api.version
            if exchange.is_read or response.status_code < 400:
                exchange.hold(len(response.body))
                async with asyncio.timeout(api.settings.timeout_seconds):  # a client that does not read
                    await _send(response, send)
            else:
                exchange.release()  # else the bytes of refused uploads would have all others refused, too
                await _refuse(response, exchange.receive, send)
            status = response.status_code
        except (ClientDisconnect, TimeoutError):
            status = _CLIENT_GONE
        finally:
            exchange.release()
        seconds = time.perf_counter() - started
        if endpoint:
            api.metrics.answered(plain, status)
            api.metrics.timed("request", seconds)
        if self._logs_access and plain != "/readyz":  # probes would fill the log
            access_log.info("%s %s %d  %.1f ms", scope["method"], quote(plain[:80]), status, 1000 * seconds)


async def _answer(api: Api, exchange: Exchange, path: str, endpoint: Endpoint | None) -> Response:
    try:
        if endpoint is None:
            raise _unknown(api, path)
        method = exchange.scope["method"]
        if method not in endpoint.methods and not (method == "HEAD" and "GET" in endpoint.methods):
            raise _wrong_method(path, method, endpoint.methods)
        if endpoint.needs_key and api.settings.api_key:
            _check_key(api.settings.api_key, exchange.headers)
        if endpoint.is_page and exchange.scope["path"] != path:
            return RedirectResponse(f"..{path}")
        async with asyncio.timeout(api.settings.timeout_seconds):
            return await endpoint.handler(exchange)
    except ServiceError as error:
        api.metrics.refused(error.code)
        return error.response()
    except TimeoutError:
        api.metrics.refused("timeout")
        message = f"the request took longer than {api.settings.timeout_seconds} s"
        return ServiceError(504, "timeout", message).response()
    except ClientDisconnect:
        raise
    except Exception:
        log.exception("an unexpected error at %s", path[:80])
        api.metrics.refused("internal_error")
        return unexpected_error().response()


def _unknown(api: Api, path: str) -> ServiceError:
    known = sorted([*api.endpoints, *PASSED_ON])
    hint = did_you_mean(path, known, otherwise=f"there are: {', '.join(known)}")
    return ServiceError(404, "not_found", f"there is no path '{path[:80]}': {hint}")


def _check_key(key: str, headers: Mapping[str, str]) -> None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    if not hmac.compare_digest(given.encode(), key.encode()):
        message = "the API key is missing or wrong: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
        raise ServiceError(401, "unauthorized", message)


def _wrong_method(path: str, method: str, allowed: tuple[str, ...]) -> ServiceError:
    message = f"{path} takes {' and '.join(allowed)}, not {method}"
    return ServiceError(405, "method_not_allowed", message, allow=list(allowed))


async def _send(response: Response, send: Send) -> None:
    """Send an answer piece by piece: the server waits for the client before it takes the next."""
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    body = bytes(response.body)
    for start in range(0, max(1, len(body)), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})


async def _refuse(response: Response, receive: Receive, send: Send) -> None:
    """Answer, then read on for a moment: to close on a client that still sends could destroy the answer."""
    headers = [*response.raw_headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    drained, more = 0, True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            while more and drained < _DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                more = message.get("more_body", False)  # absent in a disconnect
    await send({"type": "http.response.body", "body": b"", "more_body": False})
