"""What strangers send: files that are not what they say, stalled and cut connections, floods, and a killed worker."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pictures
import psutil
import pytest
import requests
from cases import cases
from PIL import Image

from pipeline.client.service_process import RunningService, serve
from pipeline.errors import DataError
from pipeline.serving.decoding import decode
from pipeline.serving.preprocessing import letterbox

MEBI = 2**20


@pytest.fixture(scope="module")
def alone(packed: Any) -> Iterator[RunningService]:
    """A server of this module's own."""
    with serve(packed.folder) as running:
        yield running


@pytest.fixture(scope="module")
def send(alone: RunningService) -> Callable[..., requests.Response]:
    session = requests.Session()
    session.trust_env = False

    def post(*contents: bytes, **options: Any) -> requests.Response:
        files = [("images", (f"{index}.bin", content)) for index, content in enumerate(contents)]
        return session.post(alone.url + "/predict?score_threshold=0.01", files=files, timeout=60, **options)

    return post


def encoded(kind: str, image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(width: int = 90, height: int = 60) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), 120, np.uint8))


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header claims a size, and whose pixels are black rows of one bit."""
    rows = zlib.compress(bytes((width // 8 + 2) * min(height, 200)), 9)
    data = pictures.png_chunk(b"IDAT", rows) + pictures.png_chunk(b"IEND", b"")
    return bytes(pictures.png_start(width, height, bits=1) + data)


JPEG = encoded("JPEG", grey())
DEEP = bytes(cv2.imencode(".png", np.full((60, 90, 3), 3000, np.uint16))[1])
FRAMES = [grey(), Image.fromarray(np.zeros((60, 90, 3), np.uint8))]
FILES: dict[str, tuple[bytes, str]] = {
    "truncated": (JPEG[: len(JPEG) // 2], "invalid_image"),
    "cut by one byte": (JPEG[:-3], "invalid_image"),
    "nothing but a start": (b"\xff\xd8\xff", "invalid_image"),
    "bytes after the end": (JPEG + b"trailing" * 100, ""),
    "a GIF": (encoded("GIF", grey()), "invalid_image"),
    "a TIFF": (encoded("TIFF", grey()), "invalid_image"),
    "an SVG": (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>', "invalid_image"),
    "an SVG that bombs": (b"<!DOCTYPE svg [<!ENTITY a 'aaaa'>]><svg>" + b"&a;" * 1000 + b"</svg>", "invalid_image"),
    "an animated PNG": (encoded("PNG", FRAMES[0], save_all=True, append_images=FRAMES[1:]), ""),
    "an animated WebP": (encoded("WebP", FRAMES[0], save_all=True, append_images=FRAMES[1:]), "?"),
    "16 bits": (DEEP, ""),
    "CMYK": (encoded("JPEG", grey().convert("CMYK")), ""),
    "grey": (encoded("JPEG", grey().convert("L")), ""),
    "a palette": (encoded("PNG", grey().convert("P")), ""),
    "alpha": (encoded("PNG", grey().convert("RGBA")), ""),
    "one bit": (encoded("PNG", grey().convert("1")), ""),
    "one pixel": (encoded("PNG", grey(1, 1)), ""),
    "a line": (encoded("PNG", grey(1, 20_000)), ""),
    "a wide line": (encoded("JPEG", grey(20_000, 1)), ""),
    "2.5 gigapixels by its header": (png_of(50_000, 50_000), "image_too_large"),
    "a bomb below the limit": (png_of(7_000, 7_000), "invalid_image"),
    "a chunk of 4 GB by its length": (DEEP[:33] + b"\xf0" + DEEP[34:], "invalid_image"),
    "no pixels": (png_of(0, 5), "invalid_image"),
    "a zip": (b"PK\x03\x04" + bytes(100), "invalid_image"),
    **{f"EXIF {i}": (encoded("JPEG", grey(), exif=pictures.exif_of(i)), "") for i in range(1, 9)},
}


@cases("data, code", FILES)
def test_files(send: Callable[..., requests.Response], tiny: Any, data: bytes, code: str) -> None:
    """A file is refused, or its answer is that of the process: exactly, whatever its name and type say."""
    response = send(data)
    if code == "?":  # what this build of OpenCV makes of it
        try:
            decode(data)
        except DataError:
            code = "invalid_image"
    if code and code != "?":
        assert response.status_code in {413, 422}, response.text
        assert response.json()["error"]["code"] == code
        return
    (expected,) = tiny.predictor.detect([letterbox(decode(data), tiny.metadata.image_size)])
    assert response.json() == [expected.to_json(tiny.metadata.classes, 0.01)]


def connect(running: RunningService) -> socket.socket:
    address = urllib.parse.urlsplit(running.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=30)


def test_stalled_headers_and_bodies_and_cut_connections_block_nobody(
    alone: RunningService, send: Callable[..., requests.Response]
) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with contextlib.ExitStack() as stalled:
        for rest in (b"", b"Content-Length: 5000\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"):
            for _ in range(30):
                stalled.enter_context(connect(alone)).sendall(head + rest)
        for _ in range(100):
            with connect(alone) as cut:
                cut.sendall(head + b"Content-Length: 5000\r\n\r\n" + bytes(2000))
        started = time.monotonic()
        assert send(JPEG).status_code == 200
        assert time.monotonic() - started < 5
    assert "Traceback" not in alone.log_path.read_text()


def test_two_hundred_at_once(send: Callable[..., requests.Response], alone: RunningService) -> None:
    gate = threading.Barrier(200)

    def ask(_: int) -> int:
        gate.wait()
        data = {"images": ("a.jpg", JPEG)}
        return requests.post(alone.url + "/predict", files=data, timeout=60).status_code

    with ThreadPoolExecutor(200) as pool:
        assert list(pool.map(ask, range(200))) == [200] * 200
    assert send(JPEG).status_code == 200


def test_what_is_no_http_is_refused(alone: RunningService, send: Callable[..., requests.Response]) -> None:
    for garbage in (b"\x16\x03\x01\x02\x00" + bytes(200), b"GET / SMTP\r\n\r\n", bytes(range(256)) * 40):
        with connect(alone) as client:
            client.sendall(garbage)
            client.settimeout(5)
            with contextlib.suppress(OSError):
                assert client.recv(100)[:12] in (b"", b"HTTP/1.1 400")
    assert send(JPEG).status_code == 200


@pytest.mark.slow
def test_a_body_of_two_gigabytes(alone: RunningService, send: Callable[..., requests.Response]) -> None:
    """It is refused by its length, and as it comes where it has none; memory stays."""
    before = memory(alone)
    for head in (b"Content-Length: 2147483648\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        piece = bytes(MEBI) if b"Length" in head else b"%x\r\n%s\r\n" % (MEBI, bytes(MEBI))
        with connect(alone) as client, contextlib.suppress(OSError):
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n" + head)
            for _ in range(2048):
                client.sendall(piece)
    assert send(JPEG).status_code == 200
    assert memory(alone) - before < 100 * MEBI


def memory(running: RunningService) -> int:
    """Bytes that the largest of the server's processes holds."""
    return max(int(each.memory_info().rss) for each in psutil.Process(running.pid).children(recursive=True))


class Peak(threading.Thread):
    """Watches the memory of a server."""

    def __init__(self, running: RunningService) -> None:
        super().__init__(daemon=True)
        self._running, self.bytes, self.is_over = running, 0, threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.02):
            self.bytes = max(self.bytes, memory(self._running))

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()
        self.join()


@pytest.mark.slow
def test_memory_stays_within_what_the_documentation_says(packed: Any) -> None:
    """Clients that send as much as they may, at once: long bodies, many images, and images of 50 megapixels."""
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1400, 3), np.uint8)
    large = bytes(cv2.imencode(".jpg", cv2.resize(noise, (8600, 5800)), [cv2.IMWRITE_JPEG_QUALITY, 20])[1])
    middle = bytes(cv2.imencode(".png", noise)[1])
    floods = {"large": [large] * 4, "long": [middle] * 7, "many": [JPEG] * 32}
    limit = 256 * MEBI + 300_000_000 + 100_000_000 * ((os.cpu_count() or 1) - 1)
    with serve(packed.folder) as running:
        session = requests.Session()
        for name, contents in floods.items():
            files = [("images", ("a", content)) for content in contents]
            before = memory(running)

            def ask(_: int, files: Any = files) -> int:
                return requests.post(running.url + "/predict", files=files, timeout=120).status_code

            with Peak(running) as peak, ThreadPoolExecutor(24) as pool:
                statuses = list(pool.map(ask, range(48)))
            assert set(statuses) <= {200, 503}, name
            assert 200 in statuses
            assert peak.bytes - before < limit, name
            time.sleep(1)
            assert memory(running) - before < 150_000_000, f"{name}: memory does not return"
        assert session.post(running.url + "/predict", files={"images": ("a", JPEG)}, timeout=60).ok


@pytest.mark.slow
def test_a_killed_worker_comes_back(packed: Any) -> None:
    with serve(packed.folder) as running:
        (worker,) = [each for each in psutil.Process(running.pid).children(recursive=True)
                     if any(one.status == psutil.CONN_LISTEN for one in each.net_connections("tcp"))]  # fmt: skip
        worker.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                if requests.get(running.url + "/readyz", timeout=5).ok:
                    break
            time.sleep(0.2)
        data = {"images": ("a.jpg", JPEG)}
        assert requests.post(running.url + "/predict", files=data, timeout=60).status_code == 200


@pytest.mark.slow
def test_ten_minutes_under_load_leave_memory_flat_and_no_error(packed: Any, picture: Callable[..., Any]) -> None:
    """Four clients at eight tenths of what the service can do, with images of many sizes."""
    images = [bytes(cv2.imencode(".jpg", picture(200 + 40 * i, 150 + 30 * i))[1]) for i in range(20)]
    minutes = int(os.environ.get("SOAK_MINUTES", "10"))

    def ask(session: requests.Session, number: int) -> float:
        started = time.monotonic()
        data = {"images": ("a.jpg", images[number % len(images)])}
        assert session.post(running.url + "/predict", files=data, timeout=60).status_code == 200
        return time.monotonic() - started

    def client(pause: float) -> int:
        session, number = requests.Session(), 0
        session.trust_env = False
        while time.monotonic() < end:
            time.sleep(pause * ask(session, number))
            number += 1
        return number

    with serve(packed.folder) as running, ThreadPoolExecutor(4) as pool:
        end = time.monotonic() + 20
        assert min(pool.map(client, [0.0] * 4)) > 0  # warm
        settled = memory(running)
        end = time.monotonic() + 60 * minutes
        counts = list(pool.map(client, [0.25] * 4))  # a pause of a quarter of each answer's time
        assert memory(running) < 1.1 * settled + 10 * MEBI
        assert "Traceback" not in running.log_path.read_text()
    assert min(counts) > 100 * minutes
