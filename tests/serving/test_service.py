"""The packed service as a real server: its API, its batching, and all that it must refuse."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import time
import urllib.parse
import zlib
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pytest
import requests
from PIL import Image

from pipeline.serving.preprocessing import letterbox

MEBI = 2**20


@pytest.fixture(scope="module")
def png(picture: Any) -> Any:
    return cv2.imencode(".png", picture())[1].tobytes()


@pytest.fixture(scope="module")
def jpeg(picture: Any) -> Any:
    return cv2.imencode(".jpg", picture())[1].tobytes()


@pytest.fixture(scope="module")
def post(server: Any) -> Any:
    session = requests.Session()
    session.trust_env = False

    def send(path: Any, **options: Any) -> Any:
        return session.post(server.url + path, timeout=60, **options)

    return send


def files(*contents: Any, name: Any = "images") -> Any:
    return [(name, (f"{index}.bin", content)) for index, content in enumerate(contents)]


def expected_answers(tiny: Any, images: list[Any]) -> list[Any]:
    found = tiny.predictor.detect([letterbox(image, tiny.metadata.image_size) for image in images])
    return [one.to_json(tiny.metadata.classes, 0.01) for one in found]


def png_bomb(side: Any) -> Any:
    def chunk(kind: Any, body: Any) -> Any:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer, row = zlib.compressobj(9), bytes(side + 1)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif() -> Any:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20)).save(buffer, "GIF")
    return buffer.getvalue()


class TestAnswers:
    def test_one_image(self, post: Any, png: Any, tiny: Any) -> None:
        response = post("/predict?score_threshold=0.01", files=files(png))
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("application/json")
        assert response.json() == expected_answers(tiny, [cv2.imdecode(np.frombuffer(png, np.uint8), 1)])

    def test_many_images_in_order(self, post: Any, picture: Any) -> None:
        sizes = [(100 + 7 * i, 60 + 3 * i) for i in range(32)]
        images = [cv2.imencode(".png", picture(w, h, (5, 5, 50, 50)))[1].tobytes() for w, h in sizes]
        answer = post("/predict?score_threshold=0.01", files=files(*images)).json()
        assert [(one["width"], one["height"]) for one in answer] == sizes
        assert all(len(one["detections"]) == 1 for one in answer)

    def test_every_format_and_orientation(self, post: Any, picture: Any) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        buffer = io.BytesIO()
        Image.fromarray(picture(200, 120)).save(buffer, "JPEG", exif=exif)
        images = [cv2.imencode(suffix, picture(200, 120))[1].tobytes() for suffix in (".jpg", ".png", ".webp", ".bmp")]
        answer = post("/predict", files=files(*images, buffer.getvalue())).json()
        assert [(one["width"], one["height"]) for one in answer] == [(200, 120)] * 4 + [(120, 200)]
        assert all(one["detections"] for one in answer)

    def test_the_threshold_of_each_request(self, post: Any, png: Any) -> None:
        score = post("/predict", files=files(png)).json()[0]["detections"][0]["score"]
        for threshold, count in ((0.01, 1), (score - 0.01, 1), (score + 0.01, 0), (1, 0)):
            (one,) = post(f"/predict?score_threshold={threshold}", files=files(png)).json()
            assert len(one["detections"]) == count

    def test_the_threshold_of_the_metadata_is_the_default(self, post: Any, picture: Any) -> None:
        faint = cv2.imencode(".png", picture(200, 200, (0, 0, 4, 4)))[1].tobytes()  # its score is 0.237
        assert post("/predict", files=files(faint)).json()[0]["detections"] == []
        assert len(post("/predict?score_threshold=0.2", files=files(faint)).json()[0]["detections"]) == 1

    def test_test_data_still_gives_test_result(self, post: Any, packed: Any, picture: Any) -> None:
        data = post("/test_data")
        assert data.headers["content-type"] == "image/png"
        np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data.content, np.uint8), 1), picture())
        result = post("/test_result").json()
        assert result == packed.test_result
        assert post("/predict?score_threshold=0.01", files=files(data.content)).json() == [result]

    @pytest.mark.parametrize("body", [{}, {"json": {}}, {"data": b"x" * 1000}, {"json": {"url": "http://127.0.0.1/"}}])
    def test_info_whatever_small_body_comes(self, post: Any, tiny: Any, body: dict[Any, Any]) -> None:
        info = post("/info", **body).json()
        assert info["classes"] == list(tiny.metadata.classes)
        assert info["input_size"] == list(tiny.metadata.image_size)
        assert info["onnx_sha256"] == tiny.metadata.onnx_sha256
        assert info["limits"] == {"body_bytes": 32 * MEBI, "images": 32, "pixels": 50_000_000}
        assert info["formats"] == ["JPEG", "PNG", "WebP", "BMP"]
        assert (info["score_threshold"], info["serving_score_threshold"], info["nms_iou_threshold"]) == (
            0.01,
            0.25,
            0.65,
        )

    @pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/metrics", "/", "/docs.json"])
    def test_bentomls_own_pages(self, server: Any, path: str) -> None:
        assert requests.get(server.url + path, timeout=10).status_code == 200

    def test_the_documentation_tells_of_files_and_answers(self, server: Any) -> None:
        paths = requests.get(server.url + "/docs.json", timeout=10).json()["paths"]
        assert {"/predict", "/test_data", "/test_result", "/info"} <= set(paths)
        form = paths["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"]["images"]["items"] == {"type": "string", "format": "binary"}
        assert "score_threshold" in paths["/predict"]["post"]["description"]

    def test_bentomls_own_client(self, server: Any, packed: Any) -> None:
        import bentoml

        with bentoml.SyncHTTPClient(server.url) as client:
            answer = client.predict(images=[packed.folder / "src" / "test_image.png"])
        assert len(answer) == 1


class TestRefusals:
    def check(self, response: Any, status: Any, code: Any, **details: Any) -> Any:
        assert response.status_code == status, response.text
        assert response.headers["content-type"].startswith("application/json")
        error = response.json()["error"]
        assert error["code"] == code
        assert error["message"]
        assert {name: error[name] for name in details} == details
        return error["message"]

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"plain text, no image", id="text"),
            pytest.param(b"", id="empty"),
            pytest.param(gif(), id="gif"),
            pytest.param(b"http://127.0.0.1:9/image.png", id="a URL in a file"),
            pytest.param(b"\xff\xd8\xff\xe0" + bytes(500), id="a JPEG in its first bytes only"),
        ],
    )
    def test_no_image(self, post: Any, content: Any) -> None:
        self.check(post("/predict", files=files(content)), 422, "invalid_image", index=0, file="0.bin")

    @pytest.mark.parametrize("keep", [0.05, 0.5, 0.99])
    def test_truncated_images(self, post: Any, png: Any, jpeg: Any, keep: float) -> None:
        for whole in (png, jpeg):
            self.check(post("/predict", files=files(whole[: int(len(whole) * keep)])), 422, "invalid_image")

    def test_good_and_bad_together_name_the_bad_one(self, post: Any, png: Any) -> None:
        response = post("/predict", files=files(png, png, b"broken", png))
        assert "image 2" in self.check(response, 422, "invalid_image", index=2, file="2.bin")

    def test_a_small_file_of_169_megapixels(self, post: Any, png: Any) -> None:
        bomb = png_bomb(13_000)
        assert len(bomb) < 250_000
        started = time.monotonic()
        response = post("/predict", files=files(png, bomb))
        self.check(response, 413, "image_too_large", index=1, limit_pixels=50_000_000)
        assert time.monotonic() - started < 1

    def test_a_url_is_not_fetched(self, post: Any) -> None:
        asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_error(404)

        with HTTPServer(("127.0.0.1", 0), Handler) as bait:
            Thread(target=bait.serve_forever, daemon=True).start()
            url = f"http://127.0.0.1:{bait.server_port}/image.png"
            self.check(post("/predict", files={"images": (None, url)}), 400, "not_a_file", index=0)
            self.check(post("/predict", data={"images": url}), 415, "unsupported_media_type")
            self.check(post("/predict", json={"images": [url]}), 415, "unsupported_media_type")
            self.check(
                post("/predict", data=url, headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type"
            )
            for path in ("/info", "/test_data", "/test_result"):
                assert post(path, files={"images": (None, url)}).status_code == 200
            bait.shutdown()
        assert asked == []

    def test_a_pickle(self, post: Any) -> None:
        for path in ("/predict", "/predict/"):
            response = post(path, data=b"\x80\x04.", headers={"Content-Type": "application/vnd.bentoml+pickle"})
            self.check(response, 415, "unsupported_media_type")
        response = post("/info", data=b"\x80\x04.", headers={"Content-Type": "application/vnd.bentoml+pickle"})
        assert response.json()["name"] == "object_detector"

    def test_a_raw_image_and_no_body(self, post: Any, png: Any) -> None:
        self.check(post("/predict", data=png, headers={"Content-Type": "image/png"}), 415, "unsupported_media_type")
        self.check(post("/predict"), 415, "unsupported_media_type")

    def test_the_wrong_field(self, post: Any, png: Any) -> None:
        response = post("/predict", files=files(png, name="image"))
        assert "'images'" in self.check(response, 400, "unexpected_field", index=0)

    def test_no_part(self, post: Any) -> None:
        empty = {"data": b"--x--\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
        self.check(post("/predict", **empty), 400, "no_images")

    @pytest.mark.parametrize(
        ("body", "content_type"),
        [
            pytest.param(b"", "multipart/form-data", id="no boundary"),
            pytest.param(b"no form at all", "multipart/form-data; boundary=x", id="no form"),
            pytest.param(
                b"--x\r\nContent-Disposition: form-data\r\n\r\nz\r\n--x--",
                "multipart/form-data; boundary=x",
                id="no name",
            ),
        ],
    )
    def test_a_malformed_form(self, post: Any, body: bytes, content_type: str) -> None:
        self.check(post("/predict", data=body, headers={"Content-Type": content_type}), 400, "malformed_form")

    @pytest.mark.parametrize("whole_parts", [0, 2])
    def test_a_form_that_breaks_off(self, post: Any, png: Any, whole_parts: int) -> None:
        part = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + png
        body = (part + b"\r\n") * whole_parts + part
        response = post("/predict", data=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert "last boundary" in self.check(response, 400, "malformed_form")

    def test_too_many_images(self, post: Any, png: Any) -> None:
        self.check(post("/predict", files=files(*[png] * 33)), 413, "too_many_images", limit_images=32)
        self.check(post("/predict", files=files(*[png] * 200)), 413, "too_many_images", limit_images=32)

    @pytest.mark.parametrize("value", ["", "high", "nan", "inf", "-1", "0", "0.009", "1.01"])
    def test_a_wrong_threshold(self, post: Any, png: Any, value: str) -> None:
        self.check(post("/predict", params={"score_threshold": value}, files=files(png)), 400, "invalid_parameter")

    def test_an_unknown_parameter(self, post: Any, png: Any) -> None:
        message = self.check(post("/predict?score_treshold=0.5", files=files(png)), 400, "unknown_parameter")
        assert "did you mean 'score_threshold'" in message

    def test_a_body_too_long_by_its_own_word(self, post: Any) -> None:
        response = post("/predict", files=files(bytes(33 * MEBI)))
        self.check(response, 413, "body_too_large", limit_bytes=32 * MEBI)

    def test_a_long_body_where_none_is_taken(self, post: Any) -> None:
        for path in ("/info", "/test_data", "/test_result"):
            self.check(post(path, data=bytes(MEBI)), 413, "body_too_large")


def connect(server: Any) -> Any:
    address = urllib.parse.urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
PART = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'


def chunk(data: Any) -> Any:
    return b"%x\r\n%s\r\n" % (len(data), data)


class TestConnections:
    def test_500_mebibytes_without_a_length_are_refused_early(self, server: Any, post: Any, png: Any) -> None:
        piece, sent = chunk(bytes(MEBI)), 0
        with connect(server) as client:
            client.sendall(HEAD + chunk(PART))
            try:
                for _ in range(500):
                    client.sendall(piece)
                    sent += 1
            except OSError:  # the server hung up
                pass
            assert 32 <= sent < 150
        assert post("/predict", files=files(png)).status_code == 200

    def test_who_reads_while_sending_gets_the_refusal(self, server: Any) -> None:
        piece, answer = chunk(bytes(MEBI)), b""
        with connect(server) as client:
            client.sendall(HEAD + chunk(PART))
            for _ in range(34):
                client.sendall(piece)
            client.settimeout(10)
            while b"body_too_large" not in answer:
                answer += client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")

    def test_who_waits_to_continue_sends_nothing(self, server: Any) -> None:
        with connect(server) as client:
            client.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                b"Content-Length: 524288000\r\nExpect: 100-continue\r\n\r\n"
            )
            answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 413")

    def test_slow_clients_block_nobody(self, server: Any, post: Any, png: Any) -> None:
        slow = [connect(server) for _ in range(40)]
        try:
            for client in slow:
                client.sendall(HEAD + chunk(PART + png[:10]))
            started = time.monotonic()
            for _ in range(5):
                assert post("/predict", files=files(png)).status_code == 200
            assert time.monotonic() - started < 5
        finally:
            for client in slow:
                client.close()
        assert post("/predict", files=files(png)).status_code == 200

    def test_a_client_that_goes_away_leaves_no_trace(self, server: Any, post: Any, png: Any) -> None:
        for _ in range(10):
            with connect(server) as client:
                client.sendall(HEAD + chunk(PART + png[:10]))
        assert post("/predict", files=files(png)).status_code == 200
        assert "Traceback" not in server.log_path.read_text()


def batches(server: Any) -> Any:
    """(runs of the model, images in them) from BentoML's own histogram; a request counts as one entry."""
    text = requests.get(server.url + "/metrics", timeout=10).text
    name = r"bentoml_service_adaptive_batch_size_{}\{{[^}}]*method_name=\"predict\"[^}}]*\}} (\S+)"
    return [float(re.search(name.format(suffix), text).group(1)) for suffix in ("count", "sum")]


class TestLoad:
    def test_64_requests_at_once_share_batches_and_all_get_their_own(self, server: Any, picture: Any, tiny: Any) -> Any:
        images = [picture(150 + i, 100 + i % 7, (5 + i % 11, 5, 60 + i, 60)) for i in range(64)]
        encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images]
        expected = expected_answers(tiny, images)

        def send(data: Any) -> Any:
            return requests.post(server.url + "/predict?score_threshold=0.01", files=files(data), timeout=60)

        send(encoded[0])
        runs_before, entries_before = batches(server)
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(send, encoded * 4))
        assert {answer.status_code for answer in answers} == {200}
        assert [answer.json()[0] for answer in answers] == expected * 4
        runs, entries = batches(server)
        assert entries - entries_before == 256
        assert runs - runs_before < 200, "requests were not batched together"

    def test_large_and_small_requests_at_once(self, server: Any, picture: Any, tiny: Any) -> tuple[Any, ...]:
        images = [picture(150 + i, 100, (5, 5, 60 + i, 60)) for i in range(32)]
        encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images]
        expected = expected_answers(tiny, images)

        def send(count: Any) -> tuple[Any, ...]:
            response = requests.post(
                server.url + "/predict?score_threshold=0.01", files=files(*encoded[:count]), timeout=60
            )
            return count, response.status_code, json.loads(response.content)

        with ThreadPoolExecutor(16) as pool:
            for count, status, answer in pool.map(send, [1, 32, 3, 17, 16, 31, 2, 5] * 4):
                assert status == 200
                assert answer == expected[:count]
