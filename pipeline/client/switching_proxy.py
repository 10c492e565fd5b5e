"""An HTTP proxy on one address, before a service that another can replace without a failed request.

Each request goes to the service that is current when it begins, and ends there. Bodies are passed on in pieces as they
come, in both directions. Hop-by-hop headers are dropped (RFC 9110, section 7.6.1), all others stay as they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

T = TypeVar("T")

log = logging.getLogger(__name__)

_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
_NOT_ADDED = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.CONTENT_TYPE, hdrs.USER_AGENT)  # aiohttp would, if absent
_IDLE_SECONDS = 2.0  # a connection is not used after this; uvicorn closes it after 5
_CONNECT_SECONDS = 10.0
_SILENT_SECONDS = 600.0  # without a byte of an answer; a service answers long before
_DRAIN_SECONDS = 70.0  # more than the 60 s that the service gives a request
_ANNOUNCED = b"HTTP/1.1 100 Continue\r\n\r\n"
_FIELD_BYTES = 1 << 16  # of a header; uvicorn takes no more


class _Backend:
    """One service behind the proxy, and the number of its unfinished requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_idle = asyncio.Event()
        self.is_idle.set()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS),
            auto_decompress=False,
            max_line_size=_FIELD_BYTES,
            max_field_size=_FIELD_BYTES,
        )
        self._unfinished = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request."""
        self._unfinished += 1
        self.is_idle.clear()
        try:
            yield
        finally:
            self._unfinished -= 1
            if not self._unfinished:
                self.is_idle.set()


class SwitchingProxy:
    """A proxy that listens while its `with` block runs, in a thread of its own.

    Without a service, or where it is gone, the answer is 503 with `Retry-After`.

    Args:
        listening: The socket that it takes connections from.
    """

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, daemon=True)
        self._current: _Backend | None = None
        self._runner: web.ServerRunner | None = None

    def __enter__(self) -> SwitchingProxy:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)

    def switch(self, url: str) -> None:
        """Send all requests from now on to this service; returns when the one before has answered all of its own.

        With an empty URL there is none.
        """
        self._run(self._switch(url))

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> None:
        # a plain server: an application would announce a body that the service may not want
        server = web.Server(
            self._handle,
            handler_cancellation=True,
            auto_decompress=False,
            access_log=None,
            max_line_size=_FIELD_BYTES,
            max_field_size=_FIELD_BYTES,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.SockSite(self._runner, self._listening).start()

    async def _stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
        if self._current:
            await self._current.session.close()

    async def _switch(self, url: str) -> None:
        before, self._current = self._current, _Backend(url) if url else None
        if before:
            try:
                await asyncio.wait_for(before.is_idle.wait(), _DRAIN_SECONDS)
            except TimeoutError:
                log.warning("requests to the service before did not end within %g s, and are cut", _DRAIN_SECONDS)
            await before.session.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        backend = self._current
        if backend is None:
            return _unavailable()
        if request.method == "CONNECT" or request.raw_path == "*":
            return _wrong("a path of the service is wanted, not a proxy")
        with backend.counted():
            return await _pass_on(request, backend)


async def _pass_on(request: web.BaseRequest, backend: _Backend) -> web.StreamResponse:
    # what an absolute URL in the request line names is in the header Host too
    path = request.raw_path if request.raw_path.startswith("/") else str(request.rel_url.relative())
    answer: web.StreamResponse | None = None
    try:
        async with backend.session.request(
            request.method,
            URL(backend.url + path, encoded=True),
            headers=_request_headers(request),
            data=_body(request) if request.can_read_body else None,
            allow_redirects=False,
            skip_auto_headers=_NOT_ADDED,
        ) as upstream:
            answer = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            answer.headers.clear()
            answer.headers.extend(_end_to_end(upstream.headers))
            if hdrs.CONTENT_LENGTH in upstream.headers:
                answer.content_length = int(upstream.headers[hdrs.CONTENT_LENGTH])
            await answer.prepare(request)
            async for piece in upstream.content.iter_any():
                await answer.write(piece)
            await answer.write_eof()
            return answer
    except aiohttp.ClientError as error:
        if answer is None:
            log.warning("%s %s: the service does not answer: %s", request.method, request.path, error)
            return _unavailable()
        if request.transport and not request.transport.is_closing():  # else the client has gone
            log.warning("%s %s: the service broke off its answer: %s", request.method, request.path, error)
            request.transport.abort()  # an answer that ends here must not pass for a whole one
        raise asyncio.CancelledError from error


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """The request's body in pieces. Where the client waits for `100 Continue`, the service has asked for the body."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport:
        request.transport.write(_ANNOUNCED)
    async for piece in request.content.iter_any():
        yield piece


def _request_headers(request: web.BaseRequest) -> CIMultiDict[str]:
    headers = _end_to_end(request.headers)
    earlier = request.headers.getall(hdrs.X_FORWARDED_FOR, [])
    headers[hdrs.X_FORWARDED_FOR] = ", ".join([*earlier, request.remote or "unknown"])
    headers.setdefault(hdrs.X_FORWARDED_PROTO, request.scheme)
    headers.setdefault(hdrs.X_FORWARDED_HOST, request.host)
    return headers


def _end_to_end(headers: Any) -> CIMultiDict[str]:
    named = {name.strip().lower() for line in headers.getall(hdrs.CONNECTION, []) for name in line.split(",")}
    dropped = _HOP_BY_HOP | named
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)


def _wrong(message: str) -> web.Response:
    error = {"error": {"code": "bad_request", "message": message}}
    return web.Response(status=400, body=json.dumps(error).encode(), content_type="application/json")


def _unavailable() -> web.Response:
    error = {"error": {"code": "unavailable", "message": "the service cannot answer now; try again"}}
    return web.Response(
        status=503, body=json.dumps(error).encode(), content_type="application/json", headers={hdrs.RETRY_AFTER: "1"}
    )
