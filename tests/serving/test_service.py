"""The packed service as a real server: its API, its batching, and all that it must refuse."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pictures
import psutil
import pytest
import requests
from api_server import api_server
from cases import cases
from PIL import Image

from pipeline.serving.preprocessing import letterbox

MEBI = 2**20


@pytest.fixture(scope="module")
def png(picture: Any) -> Any:
    return cv2.imencode(".png", picture())[1].tobytes()


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


class TestAnswers:
    def test_one_image(self, post: Any, png: Any, tiny: Any) -> None:
        response = post("/predict?score_threshold=0.01", files=files(png))
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("application/json")
        assert response.json() == expected_answers(tiny, [cv2.imdecode(np.frombuffer(png, np.uint8), 1)])

    def test_every_format_and_orientation(self, post: Any, picture: Any) -> None:
        buffer = io.BytesIO()
        Image.fromarray(picture(200, 120)).save(buffer, "JPEG", exif=pictures.exif_of(6))
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

    @pytest.mark.parametrize("body", [{}, {"data": b"x" * 1000}, {"json": {"url": "http://127.0.0.1/"}}])
    def test_info_whatever_small_body_comes(self, post: Any, tiny: Any, body: dict[Any, Any]) -> None:
        info = post("/info", **body).json()
        expected = json.loads(json.dumps(vars(tiny.metadata)))
        expected["input_size"] = expected.pop("image_size")
        expected["limits"] = {"body_bytes": 32 * MEBI, "images": 32, "pixels": 50_000_000}
        expected["formats"] = ["JPEG", "PNG", "WebP", "BMP"]
        expected |= {"name": "object_detector", "providers": tiny.predictor.providers}
        assert info == expected

    def test_bentomls_own_pages(self, server: Any) -> None:
        for path in ("/healthz", "/livez", "/readyz", "/metrics"):
            assert requests.get(server.url + path, timeout=10).status_code == 200, path

    @pytest.mark.parametrize("path", ["/info", "/info/", "/test_result", "/test_data"])
    def test_what_takes_nothing_may_be_asked_for_by_get(self, server: Any, post: Any, path: str) -> None:
        assert requests.get(server.url + path, timeout=10).content == post(path.rstrip("/")).content

    def test_the_index_page_loads_nothing_from_elsewhere(self, server: Any) -> None:
        page = requests.get(server.url + "/docs", timeout=10)
        assert page.headers["content-type"].startswith("text/html")
        links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
        assert len([link for link in links if link.startswith("./static_content/")]) >= 5
        assert "googletagmanager" not in page.text
        assert "validatorUrl: null" in page.text, "Swagger's validator would be told the service's address"
        assert "swagger-initializer.js" not in page.text
        for link in (link for link in links if link.startswith("./")):
            assert requests.get(f"{server.url}/{link}", timeout=10).status_code == 200, link

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


def check(response: Any, status: int, code: str, **details: Any) -> str:
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/json")
    error = response.json()["error"]
    assert error["code"] == code
    assert {name: error[name] for name in details} == details
    return str(error["message"])


def form(body: bytes, boundary: str = "; boundary=x") -> dict[str, Any]:
    return {"data": body, "headers": {"Content-Type": f"multipart/form-data{boundary}"}}


def raw(body: bytes, content_type: str) -> dict[str, Any]:
    return {"data": body, "headers": {"Content-Type": content_type}}


PNG = cv2.imencode(".png", np.zeros((40, 40, 3), np.uint8))[1].tobytes()
JPEG = cv2.imencode(".jpg", np.zeros((400, 400, 3), np.uint8))[1].tobytes()
PART = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
PICKLE = "application/vnd.bentoml+pickle"
NOT_AN_IMAGE = {"status": 422, "code": "invalid_image", "index": 0, "file": "0.bin"}
WRONG_TYPE = {"status": 415, "code": "unsupported_media_type"}
MALFORMED = {"status": 400, "code": "malformed_form"}
TOO_MANY = {"status": 413, "code": "too_many_images", "limit_images": 32}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "text": ({"files": files(b"plain text, no image")}, NOT_AN_IMAGE, "image 0"),
    "an empty file": ({"files": files(b"")}, NOT_AN_IMAGE, "image 0"),
    "a GIF": ({"files": files(pictures.picture("GIF"))}, NOT_AN_IMAGE, "known format"),
    "a URL in a file": ({"files": files(b"http://127.0.0.1:9/image.png")}, NOT_AN_IMAGE, "image 0"),
    "a JPEG in its first bytes only": ({"files": files(b"\xff\xd8\xff\xe0" + bytes(500))}, NOT_AN_IMAGE, "image 0"),
    "half a PNG": ({"files": files(PNG[: len(PNG) // 2])}, NOT_AN_IMAGE, "truncated or broken"),
    "most of a JPEG": ({"files": files(JPEG[:-20])}, NOT_AN_IMAGE, "truncated or broken"),
    "one of several is bad": (
        {"files": files(PNG, PNG, b"broken", PNG)}, NOT_AN_IMAGE | {"index": 2, "file": "2.bin"}, "image 2",
    ),
    "a pickle": (raw(b"\x80\x04.", PICKLE), WRONG_TYPE, PICKLE),
    "a raw image": (raw(PNG, "image/png"), WRONG_TYPE, "image/png"),
    "no body": ({}, WRONG_TYPE, "no content type"),
    "another field": (
        {"files": files(PNG, name="image")}, {"status": 400, "code": "unexpected_field", "index": 0}, "'images'",
    ),
    "no part": (form(b"--x--\r\n"), {"status": 400, "code": "no_images"}, "'images'"),
    "no boundary": (form(b"", ""), MALFORMED, "cannot be read"),
    "no form": (form(b"no form at all"), MALFORMED, "cannot be read"),
    "no name": (form(b"--x\r\nContent-Disposition: form-data\r\n\r\nz\r\n--x--"), MALFORMED, "cannot be read"),
    "the first file breaks off": (form(PART + PNG), MALFORMED, "last boundary"),
    "the third file breaks off": (form((PART + PNG + b"\r\n") * 2 + PART + PNG), MALFORMED, "last boundary"),
    "one image too many": ({"files": files(*[PNG] * 33)}, TOO_MANY, "32"),
    "far too many images": ({"files": files(*[PNG] * 200)}, TOO_MANY, "32"),
    "a misspelt parameter": (
        {"files": files(PNG), "params": {"score_treshold": "0.5"}},
        {"status": 400, "code": "unknown_parameter"}, "did you mean 'score_threshold'",
    ),
    "too long by its own word": (
        {"files": files(bytes(33 * MEBI))}, {"status": 413, "code": "body_too_large", "limit_bytes": 32 * MEBI}, "",
    ),
}  # fmt: skip


class TestRefusals:
    @cases("request_, expected, message", REFUSED)
    def test_what_is_refused(self, post: Any, request_: dict[str, Any], expected: dict[str, Any], message: str) -> None:
        assert message in check(post("/predict", **request_), **expected)

    @pytest.mark.parametrize("value", ["", "high", "nan", "inf", "-1", "0", "0.009", "1.01"])
    def test_a_wrong_threshold(self, post: Any, value: str) -> None:
        check(post("/predict", params={"score_threshold": value}, files=files(PNG)), 400, "invalid_parameter")

    def test_a_small_file_of_169_megapixels(self, post: Any, png: Any, bomb: bytes) -> None:
        started = time.monotonic()
        check(post("/predict", files=files(png, bomb)), 413, "image_too_large", index=1, limit_pixels=50_000_000)
        assert time.monotonic() - started < 1

    def test_a_url_is_not_fetched(self, post: Any) -> None:
        with api_server() as bait:
            url = f"{bait.root}/image.png"
            check(post("/predict", files={"images": (None, url)}), 400, "not_a_file", index=0)
            check(post("/predict", data={"images": url}), 415, "unsupported_media_type")
            check(post("/predict", json={"images": [url]}), 415, "unsupported_media_type")
            check(post("/predict", data=url, headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
            for path in ("/info", "/test_data", "/test_result"):
                assert post(path, files={"images": (None, url)}).status_code == 200
            assert bait.requests == []

    def test_a_pickle_where_no_body_is_taken_is_not_read(self, post: Any) -> None:
        assert post("/info", **raw(b"\x80\x04.", PICKLE)).json()["name"] == "object_detector"

    def test_a_long_body_where_none_is_taken(self, post: Any) -> None:
        for path in ("/info", "/test_data", "/test_result"):
            check(post(path, data=bytes(MEBI)), 413, "body_too_large")

    @pytest.mark.parametrize(
        ("method", "path", "status", "code", "said"),
        [
            ("GET", "/predict", 405, "method_not_allowed", "/predict takes POST, not GET"),
            ("DELETE", "/info", 405, "method_not_allowed", "/info takes GET and POST, not DELETE"),
            ("POST", "/predcit", 404, "not_found", "did you mean '/predict'?"),
            ("GET", "/wp-admin/x.php", 404, "not_found", "there are: /"),
        ],
    )
    def test_paths_and_methods(self, server: Any, method: str, path: str, status: int, code: str, said: str) -> None:
        response = requests.request(method, server.url + path, timeout=10)
        assert said in check(response, status, code)
        assert ("allow" in response.headers) is (status == 405)

    def test_paths_that_clients_make_up_are_not_counted(self, server: Any) -> None:
        for i in range(20):
            requests.get(f"{server.url}/made-up-{i}", timeout=10)
        assert "made-up" not in requests.get(server.url + "/metrics", timeout=10).text


def connect(server: Any) -> Any:
    address = urllib.parse.urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: Any) -> Any:
    return b"%x\r\n%s\r\n" % (len(data), data)


class TestConnections:
    def test_500_mebibytes_without_a_length_are_refused_early(self, server: Any, post: Any, png: Any) -> None:
        piece, sent = chunk(bytes(MEBI)), 0
        with connect(server) as client:
            client.sendall(HEAD + chunk(PART))
            with contextlib.suppress(OSError):  # the server hangs up
                for _ in range(500):
                    client.sendall(piece)
                    sent += 1
        assert 32 <= sent < 150
        assert post("/predict", files=files(png)).status_code == 200

    def test_who_reads_while_sending_gets_the_refusal(self, server: Any) -> None:
        piece, answer = chunk(bytes(MEBI)), b""
        with connect(server) as client:
            client.sendall(HEAD + chunk(PART) + piece * 34)
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

    def test_slow_clients_block_nobody_and_leave_no_trace_when_they_go_away(
        self, server: Any, post: Any, png: Any
    ) -> None:
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
        assert "Traceback" not in server.log_path.read_text()

    def test_the_work_of_clients_that_go_away_is_dropped(self, server: Any, post: Any, png: Any) -> None:
        """Ten requests of twenty large images each would be decoded for many seconds, for nobody."""
        noise = np.random.default_rng(0).integers(0, 255, (1500, 2000, 3), np.uint8)
        large = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 30])[1].tobytes()
        request = requests.Request("POST", server.url + "/predict", files=files(*[large] * 20)).prepare()
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()
        before = busy_seconds(server)
        assert post("/predict", files=files(*[large] * 20)).status_code == 200
        one = busy_seconds(server) - before
        with contextlib.ExitStack() as clients:
            for _ in range(10):
                clients.enter_context(connect(server)).sendall(head + request.body)
            time.sleep(one / 2)  # the bodies are read, and the first images decoded
        before = now = busy_seconds(server)
        for _ in range(60):
            time.sleep(1)
            if (earlier := now) == (now := busy_seconds(server)) or now - earlier < 0.03:
                break  # it is idle
        assert now - before < 3 * one
        assert post("/predict", files=files(png)).status_code == 200
        assert "Traceback" not in server.log_path.read_text()


def busy_seconds(server: Any) -> float:
    """Seconds of CPU that the server's processes have used."""
    return sum(sum(each.cpu_times()[:2]) for each in psutil.Process(server.pid).children(recursive=True))


def batches(server: Any) -> Any:
    """(runs of the model, images in them) from BentoML's own histogram; a request counts as one entry."""
    text = requests.get(server.url + "/metrics", timeout=10).text
    name = r"bentoml_service_adaptive_batch_size_{}\{{[^}}]*method_name=\"predict\"[^}}]*\}} (\S+)"
    return [float(re.search(name.format(suffix), text).group(1)) for suffix in ("count", "sum")]


class TestLoad:
    def test_requests_at_once_share_batches_and_each_gets_its_own(self, server: Any, picture: Any, tiny: Any) -> None:
        images = [picture(150 + i, 100 + i % 7, (5 + i % 11, 5, 60 + i, 60)) for i in range(32)]
        encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images]
        expected = expected_answers(tiny, images)

        def send(part: slice) -> None:
            url = server.url + "/predict?score_threshold=0.01"
            answer = requests.post(url, files=files(*encoded[part]), timeout=60)
            assert answer.status_code == 200
            assert answer.json() == expected[part]

        send(slice(1))
        runs_before, entries_before = batches(server)
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(send, [slice(n, n + 1) for n in range(32)] * 8))
        runs, entries = batches(server)
        assert entries - entries_before == 256
        assert runs - runs_before < 200, "requests were not batched together"
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(send, [slice(count) for count in (1, 32, 3, 17, 16, 31, 2, 5)] * 4))
