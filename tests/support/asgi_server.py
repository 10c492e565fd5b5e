"""A real uvicorn, as the packed service has one, with an application that shows what reaches it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn


@dataclass
class Shown:
    """What the application saw, and what holds it up."""

    name: str
    url: str = ""
    go: threading.Event = field(default_factory=threading.Event)  # /stream and /slow wait for it
    first_piece: threading.Event = field(default_factory=threading.Event)  # of a body has come
    began: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)  # the client of /slow has gone

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.began.set()
        path = scope["path"]
        if path == "/refuse":
            await self._answer(send, 413, b"too much")
        elif path == "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x-kind", b"stream")]})
            await send({"type": "http.response.body", "body": b"first ", "more_body": True})
            await self._wait(self.go)
            await send({"type": "http.response.body", "body": b"last"})
        elif path == "/break":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError
        elif path == "/slow":
            gone = asyncio.ensure_future(self._until_gone(receive))
            await asyncio.wait([gone, asyncio.ensure_future(self._wait(self.go))], return_when="FIRST_COMPLETED")
            if not gone.done():
                await self._answer(send, 200, self.name.encode())
        elif path == "/empty":
            await self._answer(send, 204, b"")
        else:
            length = 0
            while (message := await receive()).get("more_body"):
                length += len(message["body"])
                self.first_piece.set()
            length += len(message.get("body", b""))
            headers = [(key.decode(), value.decode()) for key, value in scope["headers"]]
            seen = {"server": self.name, "method": scope["method"], "path": scope["raw_path"].decode()}
            seen |= {"query": scope["query_string"].decode(), "headers": headers, "body": length}
            await self._answer(send, 200, json.dumps(seen).encode())

    async def _until_gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()

    @staticmethod
    async def _wait(event: threading.Event) -> None:
        while not event.is_set():
            await asyncio.sleep(0.01)

    @staticmethod
    async def _answer(send: Any, status: int, body: bytes) -> None:
        length = [(b"content-length", str(len(body)).encode())] if status != 204 else []
        headers = [
            *length,
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"connection", b"x-hop"),
            (b"x-hop", b"1"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextmanager
def asgi_server(name: str = "one") -> Iterator[Shown]:
    """Run one while the block runs."""
    shown = Shown(name)
    listening = socket.create_server(("127.0.0.1", 0))
    shown.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(shown, log_level="critical", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        shown.go.set()
        server.should_exit = True
        thread.join(5)
        listening.close()
