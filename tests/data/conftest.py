"""Fixtures of the data tests: a real HTTP server that breaks on request, real photographs, small data sets."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image


class FileServer:
    """Serves `files` on loopback; what is in its lists happens to the next requests, one item each."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # send so many bytes of the body, then close the connection
        self.statuses: list[int] = []  # answer with these instead
        self.ranges = True
        self.validators = True
        self.lengths = True
        self.requests: list[dict[str, str]] = []
        self.sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, name: str, data: bytes) -> str:
        self.files[f"/{name}"] = data
        return f"{self.root}/{name}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(dict(self.headers))
                data = server.files.get(self.path.partition("?")[0])
                if server.statuses:
                    self._answer(server.statuses.pop(0))
                elif data is None:
                    self._answer(404)
                else:
                    self._send(data)

            def _send(self, data: bytes) -> None:
                etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
                if server.validators and self.headers.get("If-None-Match") == etag:
                    self._answer(304)
                    return
                start = self._start(etag)
                if start >= len(data) and start:
                    self._answer(416)
                    return
                headers = {"ETag": etag} if server.validators else {}
                if server.lengths:
                    headers["Content-Length"] = str(len(data) - start)
                if start:
                    headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                self._answer(206 if start else 200, headers)
                body = data[start:]
                if server.cuts:
                    body = body[: server.cuts.pop(0)]
                server.sent += len(body)
                self.wfile.write(body)
                self.close_connection = True

            def _start(self, etag: str) -> int:
                match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                return int(match[1]) if match and server.ranges and self.headers.get("If-Range") == etag else 0

            def _answer(self, status: int, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {"Content-Length": "0"}).items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[FileServer]:
    files = FileServer()
    yield files
    files.close()


def _write_picture(path: Path, width: int, height: int) -> None:
    """A picture of noise, so that no two corners look alike, and no two pictures of other names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([width, height, *path.name.encode()])
    cv2.imwrite(str(path), noise.integers(0, 255, (height, width, 3), np.uint8))


@pytest.fixture
def write_picture() -> Callable[[Path, int, int], None]:
    """Writes a picture of a width and height, as the suffix says."""
    return _write_picture


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[CocoDataset, Path]:
    """Three pictures of 60x40, of a cat, a cat and a dog, and nothing; with their folder."""
    images = tuple(Image(i, f"{i}.png", 60, 40) for i in (1, 2, 3))
    for image in images:
        _write_picture(tmp_path / "pictures" / image.file_name, 60, 40)
    annotations = (
        Annotation(1, 1, 7, (5.0, 5.0, 20.0, 10.0), 200.0),
        Annotation(2, 2, 7, (0.0, 0.0, 10.0, 10.0), 100.0),
        Annotation(3, 2, 3, (30.0, 10.0, 30.0, 30.0), 900.0),
    )
    return CocoDataset(images, annotations, (Category(7, "cat"), Category(3, "dog"))), tmp_path / "pictures"
