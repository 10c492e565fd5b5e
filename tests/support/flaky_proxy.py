"""An HTTP proxy in front of a server: it refuses, delays or loses some requests, as a test asks."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

UNAVAILABLE = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>try later</Message></Error>"


@dataclass
class Behaviour:
    """Which requests fail: those of a `method` (empty: any) with `part` in their path, but not the first `spare`.

    Of the others the first `refuse` get the answer 503 and never reach the server; the next `lose` reach it, and get
    no answer. Every request waits `delay` seconds. `seen` counts those that fit; `at_once` is the most at one time.
    """

    method: str = ""
    part: str = ""
    spare: int = 0
    refuse: int = 0
    lose: int = 0
    delay: float = 0.0
    seen: int = 0
    at_once: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts a request while it is under way."""
        with self.lock:
            self.under_way += 1
            self.at_once = max(self.at_once, self.under_way)
        try:
            yield
        finally:
            with self.lock:
                self.under_way -= 1

    def next(self, method: str, path: str) -> str:
        """The treatment of a request: `refuse`, `lose` or `pass`."""
        with self.lock:
            if (self.method and method != self.method) or self.part not in path:
                return "pass"
            self.seen += 1
            for action in ("refuse", "lose") if self.seen > self.spare else ():
                left = getattr(self, action)
                if left:
                    setattr(self, action, left - 1)
                    return action
            return "pass"


@contextmanager
def flaky_proxy(endpoint: str, behaviour: Behaviour) -> Iterator[str]:
    """Run the proxy during the block; yields its endpoint."""
    target = urlsplit(endpoint)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            action = behaviour.next(self.command, self.path)
            with behaviour.counted():
                time.sleep(behaviour.delay)
            if action == "refuse":
                self._answer(503, {"Content-Type": "application/xml"}, UNAVAILABLE)
                return
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=60)
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            if action == "lose":
                self.close_connection = True
                self.connection.close()
                return
            self._answer(answer.status, dict(answer.getheaders()), content)

        def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            length = headers.get("Content-Length") if self.command == "HEAD" else str(len(content))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", length or "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815, as http.server calls them

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
