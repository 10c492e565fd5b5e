"""A real HTTP API on loopback: JSON routes, pages in several manners, a token, and failures planned ahead."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True)
class Reply:
    """What goes out; of the body only `sent` bytes, then the connection is closed; after `delay` seconds."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    sent: int = -1
    delay: float = 0.0


Route = Callable[[Request], Reply]


class ApiServer:
    """Answers by `routes`; where `token` is set, only who sends it; `planned` replies come first, one a request."""

    def __init__(self) -> None:
        self.routes: dict[str, Route] = {}
        self.open: set[str] = set()  # paths that want no token
        self.token = ""  # what the Authorization header must be, whole
        self.planned: list[Reply] = []
        self.cuts: list[int] = []  # of the next files, send so many bytes, then close the connection
        self.ranges = self.validators = True  # whether files are served from where they are asked to, and with ETags
        self.requests: list[Request] = []
        self.sent = 0  # bytes of bodies
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def json(self, path: str, data: Any, status: int = 200, headers: dict[str, str] | None = None) -> str:
        """Serve JSON; returns the URL."""
        return self.route(path, lambda _: json_reply(data, status, headers))

    def file(self, path: str, data: bytes) -> str:
        """Serve a file from where it is asked to, with an ETag that answers conditional requests; returns the URL."""
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'

        def answer(request: Request) -> Reply:
            if self.validators and request.headers.get("If-None-Match") == tag:
                return Reply(304)
            asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
            start = int(asked[1]) if asked and self.ranges and request.headers.get("If-Range") == tag else 0
            if start >= len(data) and start:
                return Reply(416)
            headers = {"ETag": tag} if self.validators else {}
            if start:
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return Reply(206 if start else 200, data[start:], headers, sent=self.cuts.pop(0) if self.cuts else -1)

        return self.route(path, answer)

    def route(self, path: str, answer: Route) -> str:
        self.routes[path] = answer
        return self.root + path

    def pages(self, path: str, items: list[Any], size: int, manner: str) -> str:
        """Serve a list in pages; `manner` is `url`, `relative`, `link`, `number` or `missing`."""
        parts = [items[start : start + size] for start in range(0, len(items), size)] or [[]]

        def answer(request: Request) -> Reply:
            if manner in {"number", "missing"}:
                number = int(request.query.get("page", "1")) - 1
                if number >= len(parts):
                    return Reply(404) if manner == "missing" else json_reply([])
                return json_reply(parts[number])
            number = int(request.query.get("after", "0"))
            more = number + 1 < len(parts)
            following = f"{path}?after={number + 1}"
            if manner == "link":
                return json_reply(parts[number], headers={"Link": f'<{following}>; rel="next"'} if more else {})
            target = {"relative": following, "url": self.root + following}[manner]
            return json_reply({"data": {"results": parts[number]}, "next": target if more else None})

        return self.route(path, answer)

    def paths(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [request.path for request in self.requests]

    def seen(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def _reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            if self.planned:
                return self.planned.pop(0)
        if self.token and request.path not in self.open and request.headers.get("Authorization") != self.token:
            return json_reply({"detail": f"bad token {request.headers.get('Authorization')}"}, 401)
        route = self.routes.get(request.path)
        return route(request) if route else json_reply({"detail": "not found"}, 404)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self._send(server._reply(Request(self.command, parts.path, query, dict(self.headers), body)))

            do_POST = do_GET  # noqa: N815 - the name that the server calls

            def _send(self, reply: Reply) -> None:
                time.sleep(reply.delay)
                self.send_response(reply.status)
                for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(name, value)
                self.end_headers()
                body = reply.body if reply.sent < 0 else reply.body[: reply.sent]
                server.sent += len(body)
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def json_reply(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(data).encode(), {"Content-Type": "application/json"} | (headers or {}))


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """Run one while the block runs."""
    server = ApiServer()
    try:
        yield server
    finally:
        server.close()
