"""The packed service as a real server: its API, its batching, and all that it must refuse."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bentoml
import cv2
import jsonschema
import numpy as np
import pictures
import psutil
import pytest
import requests
from api_server import api_server
from cases import cases
from openapi_spec_validator import OpenAPIV31SpecValidator
from PIL import Image
from pycocotools.coco import COCO

from pipeline.client.service_process import serve
from pipeline.errors import StepError
from pipeline.serving.api_types import PredictParameters
from pipeline.serving.preprocessing import letterbox
from pipeline.serving.settings import available_cpus

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
    def test_info_whatever_small_body_comes(self, post: Any, packed: Any, tiny: Any, body: dict[Any, Any]) -> None:
        info = post("/info", **body).json()
        expected = json.loads(json.dumps(vars(tiny.metadata)))
        expected["input_size"] = expected.pop("image_size")
        expected["limits"] = {"body_bytes": 32 * MEBI, "images": 32, "pixels": 50_000_000}
        expected |= {"version": packed.tag, "run": "", "max_detections": 300}
        expected["formats"] = ["JPEG", "PNG", "WebP", "BMP"]
        expected |= {"name": "object_detector", "providers": tiny.predictor.providers}
        expected |= {"engine": f"onnxruntime {version('onnxruntime')}", "threads": available_cpus()}
        assert info == expected

    def test_bentomls_own_pages(self, server: Any) -> None:
        for path in ("/healthz", "/livez", "/readyz", "/metrics"):
            assert requests.get(server.url + path, timeout=10).status_code == 200, path

    @pytest.mark.parametrize("path", ["/info", "/info/", "/test_result", "/test_data"])
    def test_what_takes_nothing_may_be_asked_for_by_get(self, server: Any, post: Any, path: str) -> None:
        assert requests.get(server.url + path, timeout=10).content == post(path.rstrip("/")).content

    def test_the_api_page_loads_nothing_from_elsewhere(self, server: Any) -> None:
        page = requests.get(server.url + "/docs", timeout=10)
        assert page.headers["content-type"].startswith("text/html")
        links = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)
        assert links
        assert "http" not in page.text
        assert "validatorUrl: null" in page.text, "Swagger's validator would be told the service's address"
        for link in (link for link in links if link != "data:,"):
            assert requests.get(f"{server.url}/{link}", timeout=10).status_code == 200, link

    def test_the_version_and_the_time_of_each_stage(self, post: Any, packed: Any, png: Any) -> None:
        headers = post("/predict", files=files(png, png)).headers
        assert headers["x-model-version"] == packed.tag
        stages = dict(re.findall(r"(\w+);dur=([\d.]+)", headers["server-timing"]))
        assert list(stages) == ["read", "decode", "wait", "inference", "post"]
        assert all(float(milliseconds) >= 0 for milliseconds in stages.values())


def as_json(*contents: bytes, **parameters: Any) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(content).decode() for content in contents], **parameters}}


class TestWaysIn:
    """The same answer by every way in, and the same parameters."""

    def test_every_way_in_gives_the_answer_of_the_process(self, post: Any, tiny: Any, picture: Any) -> None:
        image = picture(211, 123, (31, 20, 140, 77))
        data = cv2.imencode(".png", image)[1].tobytes()
        expected = expected_answers(tiny, [image])
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        ways: list[dict[str, Any]] = [
            {"files": files(data)},
            {"data": data, "headers": {"Content-Type": "image/png"}},
            {"data": data, "headers": {"Content-Type": "application/octet-stream"}},
            {"data": iter([data[:100], data[100:]]), "headers": {"Content-Type": "image/jpeg"}},
            as_json(data),
            {"json": {"images": [url], "score_threshold": None}},
        ]
        for way in ways:
            assert post("/predict?score_threshold=0.01", **way).json() == expected

    @pytest.mark.parametrize("way", ["query", "form", "JSON in the form", "JSON"])
    def test_every_parameter_by_every_way(self, post: Any, png: Any, way: str) -> None:
        def ask(**parameters: Any) -> Any:
            if way == "query":
                return post("/predict", files=files(png), params=parameters).json()
            if way == "JSON":
                return post("/predict", **as_json(png, **parameters)).json()
            text = json.dumps if way == "JSON in the form" else lambda value: value
            fields = {name: text(value) for name, value in parameters.items()}
            return post("/predict", files=files(png), data=fields).json()

        (whole,) = ask(score_threshold=0.01)
        assert [each["label"] for each in whole["detections"]] == ["dim"]
        assert ask(score_threshold=0.99)[0]["detections"] == []
        assert ask(classes=["bright"])[0]["detections"] == []
        assert ask(classes=["bright", "dim"]) == [whole]
        assert ask(max_detections=1) == [whole]
        assert ask(strict=True) == [whole]
        assert ask(output="coco")["annotations"][0]["score"] == whole["detections"][0]["score"]

    def test_the_query_goes_before_the_body(self, post: Any, png: Any) -> None:
        asked = post("/predict?score_threshold=0.01", files=files(png), data={"score_threshold": "0.99"})
        assert len(asked.json()[0]["detections"]) == 1

    def test_a_coco_data_set_with_scores(self, post: Any, png: Any, tmp_path: Path) -> None:
        answer = post("/predict?output=coco&score_threshold=0.01", files=files(png, b"text", png)).json()
        assert [(each["id"], each["file_name"]) for each in answer["images"]] == [(1, "0.bin"), (3, "2.bin")]
        assert answer["categories"] == [{"id": 1, "name": "dim"}, {"id": 2, "name": "bright"}]
        assert [each["error"]["index"] for each in answer["errors"]] == [1]
        (tmp_path / "coco.json").write_text(json.dumps(answer))
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO(str(tmp_path / "coco.json"))
            results = coco.loadRes(answer["annotations"])
        (plain,) = post("/predict?score_threshold=0.01", files=files(png)).json()
        x1, y1, x2, y2 = plain["detections"][0]["box"]
        for each in results.loadAnns(results.getAnnIds()):
            assert each["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=2e-3)
            assert (each["category_id"], each["score"]) == (1, plain["detections"][0]["score"])

    @pytest.mark.parametrize("path", ["/predict?output=image", "/draw"])
    def test_the_image_with_its_boxes(self, post: Any, picture: Any, path: str) -> None:
        buffer = io.BytesIO()
        Image.fromarray(picture(200, 120)).save(buffer, "JPEG", exif=pictures.exif_of(6))
        answer = post(path, files=files(buffer.getvalue()))
        assert answer.headers["content-type"] == "image/jpeg"
        drawn = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert drawn.shape == (200, 120, 3)
        (one,) = post("/predict", files=files(buffer.getvalue())).json()
        x1, _, x2, y2 = (round(value) for value in one["detections"][0]["box"])
        saturation = cv2.cvtColor(drawn, cv2.COLOR_BGR2HSV)[..., 1]  # the picture is grey
        assert saturation[y2, (x1 + x2) // 2] > 100
        assert saturation[-1, -1] < 60

    def test_what_draw_does_not_have_is_refused(self, post: Any, png: Any) -> None:
        for name, value in (("output", "coco"), ("strict", "true")):
            check(post("/draw", files=files(png), params={name: value}), 400, "unknown_parameter")

    def test_a_bad_image_among_others_has_its_own_error(self, post: Any, png: Any) -> None:
        answer = post("/predict", files=files(png, b"text", png))
        assert answer.status_code == 200
        assert [each["status"] for each in answer.json()] == [200, 422, 200]
        error = answer.json()[1]["error"]
        assert (error["code"], error["index"], error["file"]) == ("invalid_image", 1, "1.bin")
        check(
            post("/predict?strict=true", files=files(png, b"text", png)), **NOT_AN_IMAGE | {"index": 1, "file": "1.bin"}
        )
        check(post("/predict", files=files(b"text", b"text")), **NOT_AN_IMAGE)


class TestDocumentation:
    def test_it_is_valid_and_tells_of_every_parameter_and_error(self, server: Any) -> None:
        document = requests.get(server.url + "/docs.json", timeout=10).json()
        OpenAPIV31SpecValidator(document).validate()
        assert set(document["paths"]) == {"/predict", "/draw", "/test_data", "/test_result", "/info"}
        predict = document["paths"]["/predict"]["post"]
        assert {each["name"] for each in predict["parameters"]} == set(PredictParameters.model_fields)
        form = predict["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form["properties"]["images"]["items"] == {"type": "string", "format": "binary"}
        assert set(form["properties"]) == {"images", *PredictParameters.model_fields}
        assert set(predict["responses"]) >= {"200", "400", "401", "413", "415", "422", "500", "503", "504"}

    def test_answers_are_as_they_are_documented(self, server: Any, post: Any, png: Any) -> None:
        document = requests.get(server.url + "/docs.json", timeout=10).json()

        def validate(model: str, value: Any) -> None:
            schema = {"$ref": f"#/components/schemas/{model}", "components": document["components"]}
            jsonschema.validate(value, schema)

        good, bad = post("/predict", files=files(png, b"text")).json()
        validate("ImageResult", good)
        validate("ImageFailure", bad)
        validate("CocoAnswer", post("/predict?output=coco", files=files(png, b"text")).json())
        validate("ServiceInfo", post("/info").json())
        validate("ImageResult", post("/test_result").json())
        validate("ErrorAnswer", post("/predict").json())

    def test_bentomls_own_clients_with_every_parameter(self, server: Any, packed: Any, post: Any, png: Any) -> None:
        image = packed.folder / "src" / "test_image.png"
        wanted: list[dict[str, Any]] = [
            {},
            {"score_threshold": 0.01},
            {"score_threshold": 0.99},
            {"classes": ["bright"]},
            {"classes": ["dim", "bright"], "max_detections": 1, "strict": True},
            {"output": "coco"},
        ]
        answers = [post("/predict", files=[("images", (image.name, image.read_bytes()))], params=each).json()
                   for each in wanted]  # fmt: skip
        with bentoml.SyncHTTPClient(server.url) as client:
            assert [client.predict(images=[image], **each) for each in wanted] == answers
            drawn = client.draw(images=image, score_threshold=0.1).read_bytes()
            assert client.info()["classes"] == ["dim", "bright"]
            assert client.test_result() == packed.test_result

        async def ask() -> list[Any]:
            async with bentoml.AsyncHTTPClient(server.url) as client:
                return [await client.predict(images=[image], **each) for each in wanted]

        assert asyncio.run(ask()) == answers
        assert drawn == post("/draw?score_threshold=0.1", files=files(png)).content

    def test_what_is_counted(self, server: Any, post: Any, png: Any) -> None:
        def counted(name: str) -> float:
            text = requests.get(server.url + "/metrics", timeout=10).text
            return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE).group(1))  # type: ignore[union-attr]

        post("/predict", files=files(png, b"text"))
        names = ("detector_images_total", 'detector_detections_total{label="dim"}', "detector_score_count",
                 'detector_requests_total{path="/predict",status="200"}', "detector_request_images_count",
                 'detector_refusals_total{code="invalid_image"}', "detector_batch_size_count",
                 *[f'detector_stage_seconds_count{{stage="{each}"}}' for each in ("read", "decode", "wait", "inference",
                                                                                 "post", "request")])  # fmt: skip
        before = {name: counted(name) for name in names}
        post("/predict", files=files(png, b"text"))
        rise = {name: counted(name) - before[name] for name in names}
        assert rise.pop("detector_images_total") == 2
        assert set(rise.values()) == {1}


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
BAD_JSON = {"status": 400, "code": "malformed_json"}
WRONG_VALUE = {"status": 400, "code": "invalid_parameter"}
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
        {"files": files(PNG, PNG, b"broken", PNG), "params": {"strict": "true"}},
        NOT_AN_IMAGE | {"index": 2, "file": "2.bin"}, "image 2",
    ),
    "a pickle": (raw(b"\x80\x04.", PICKLE), WRONG_TYPE, PICKLE),
    "another image type": (raw(PNG, "image/gif"), WRONG_TYPE, "image/gif"),
    "a raw text": (raw(b"text", "image/png"), NOT_AN_IMAGE | {"file": ""}, "image 0"),
    "no JSON": (raw(b"{", "application/json"), BAD_JSON, "not JSON"),
    "deep JSON": (raw(b"[" * 3_000, "application/json"), BAD_JSON, "not JSON"),
    "a JSON list": (raw(b"[]", "application/json"), BAD_JSON, "a list 'images'"),
    "JSON without images": (raw(b'{"image": "a"}', "application/json"), BAD_JSON, "a list 'images'"),
    "JSON with a URL": (
        {"json": {"images": ["http://127.0.0.1/a.jpg"]}}, {"status": 400, "code": "invalid_base64", "index": 0},
        "URLs are not fetched",
    ),
    "JSON with a number": ({"json": {"images": [7]}}, {"status": 400, "code": "invalid_base64"}, "image 0"),
    "JSON with no image": ({"json": {"images": []}}, {"status": 400, "code": "no_images"}, "'images' is empty"),
    "a million values": (
        raw(b'{"images":["AAAA"],"classes":[' + b"0," * 1_000_000 + b"0]}", "application/json"),
        {"status": 413, "code": "too_many_values"}, "4096",
    ),
    "a million objects for images": (
        raw(b'{"images":[' + b"{}," * 1_000_000 + b"{}]}", "application/json"),
        {"status": 413, "code": "too_many_values"}, "4096",
    ),
    "a long field": (
        {"files": files(PNG), "data": {"classes": "[" + "0," * 100_000}}, {"status": 413, "code": "field_too_large"},
        "'classes'",
    ),
    "a name of megabytes": (
        raw(b'{"images":["AAAA"],"' + b"x" * MEBI * 8 + b'":1}', "application/json"),
        {"status": 400, "code": "unknown_parameter"}, "unknown parameter 'xxx",
    ),
    "half a character": (
        raw(b'{"images":["AAAA"],"\\ud800":1}', "application/json"), {"status": 400, "code": "unknown_parameter"}, "?",
    ),
    "a thousand parameters": (
        {"files": files(PNG), "params": {"classes": ["dim"] * 1006}}, WRONG_VALUE, "more than 1005 parameters",
    ),
    "a picture that no JPEG holds": (
        {"files": files(cv2.imencode(".png", np.zeros((1, 66_000), np.uint8))[1].tobytes()),
         "params": {"output": "image"}}, {"status": 422, "code": "image_too_large"}, "66000 x 1",
    ),
    "an unknown class": (
        {"files": files(PNG), "params": {"classes": "brihgt"}}, {"status": 400, "code": "unknown_class"},
        "did you mean 'bright'?",
    ),
    "too many detections": (
        {"files": files(PNG), "params": {"max_detections": "301"}}, WRONG_VALUE, "less than or equal to 300",
    ),
    "no such output": ({"files": files(PNG), "params": {"output": "xml"}}, WRONG_VALUE, "'json', 'coco' or 'image'"),
    "a picture of two": (
        {"files": files(PNG, PNG), "params": {"output": "image"}}, {"status": 422, "code": "not_one_image"}, "not 2",
    ),
    "a value twice": ({"files": files(PNG), "params": {"strict": ["true", "false"]}}, WRONG_VALUE, "given twice"),
    "an unknown field": (
        {"files": files(PNG), "data": {"threshold": "1"}}, {"status": 400, "code": "unknown_parameter"},
        "did you mean 'score_threshold'?",
    ),
    "far too many fields": (form(b"".join(PART[:-4] + b"\r\n\r\nx\r\n" for _ in range(1100)) + b"--x--\r\n"),
                            {"status": 413, "code": "too_many_parts"}, "1037"),
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
        check(post("/predict", files=files(bomb)), 413, "image_too_large", index=0, limit_pixels=50_000_000)
        assert time.monotonic() - started < 1

    def test_a_url_is_not_fetched(self, post: Any) -> None:
        with api_server() as bait:
            url = f"{bait.root}/image.png"
            check(post("/predict", files={"images": (None, url)}), 400, "not_a_file", index=0)
            check(post("/predict", data={"images": url}), 415, "unsupported_media_type")
            check(post("/predict", json={"images": [url]}), 400, "invalid_base64")
            check(post("/predict", data=url, headers={"Content-Type": "text/plain"}), 415, "unsupported_media_type")
            for path in ("/info", "/test_data", "/test_result"):
                assert post(path, files={"images": (None, url)}).status_code == 200
            assert bait.requests == []

    def test_a_pickle_where_no_body_is_taken_is_not_read(self, post: Any) -> None:
        assert post("/info", **raw(b"\x80\x04.", PICKLE)).json()["name"] == "object_detector"

    def test_a_long_body_where_none_is_taken(self, post: Any) -> None:
        for path in ("/info", "/test_data", "/test_result"):
            check(post(path, data=bytes(MEBI)), 413, "body_too_large")

    def test_paths_that_clients_make_up_are_not_counted(self, server: Any) -> None:
        for i in range(20):
            assert requests.get(f"{server.url}/made-up-{i}", timeout=10).status_code == 404
            assert requests.get(f"{server.url}/static_content/made-up-{i}", timeout=10).status_code == 404
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


def held_bytes(server: Any) -> int:
    """Bytes of memory of the largest of the server's processes."""
    return max(each.memory_info().rss for each in psutil.Process(server.pid).children(recursive=True))


class TestLoad:
    def test_what_nobody_waits_for_is_let_go(self, server: Any, post: Any, png: Any) -> None:
        """Long bodies of clients that go away while others are served take no memory."""
        noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
        large = cv2.imencode(".png", noise)[1].tobytes()  # 27 MB
        before = held_bytes(server)
        part = PART + large + b"\r\n--x--\r\n"
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        for _ in range(24):
            with connect(server) as client:
                client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(part) + part)
        assert post("/predict", files=files(png)).status_code == 200
        assert held_bytes(server) - before < 400 * MEBI
        text = requests.get(server.url + "/metrics", timeout=10).text
        assert re.search(r"^detector_waiting_images 0\.0$", text, re.MULTILINE)

    def test_an_answer_that_nobody_reads_holds_up_nobody(self, server: Any, post: Any, png: Any) -> None:
        noise = cv2.imencode(".png", np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8))[1].tobytes()
        part = PART + noise + b"\r\n--x--\r\n"
        head = b"POST /draw HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        with contextlib.ExitStack() as clients:
            for _ in range(8):
                client = clients.enter_context(connect(server))
                client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(part) + part)
            for _ in range(3):
                assert post("/predict", files=files(png)).status_code == 200
        assert "Traceback" not in server.log_path.read_text()

    def test_each_of_many_requests_at_once_gets_its_own(self, server: Any, picture: Any, tiny: Any) -> None:
        images = [picture(150 + i, 100 + i % 7, (5 + i % 11, 5, 60 + i, 60)) for i in range(32)]
        encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images]
        expected = expected_answers(tiny, images)

        def send(part: slice) -> None:
            url = server.url + "/predict?score_threshold=0.01"
            answer = requests.post(url, files=files(*encoded[part]), timeout=60)
            assert answer.status_code == 200
            assert answer.json() == expected[part]

        send(slice(1))
        with ThreadPoolExecutor(64) as pool:
            list(pool.map(send, [slice(n, n + 1) for n in range(32)] * 8))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(send, [slice(count) for count in (1, 32, 3, 17, 16, 31, 2, 5)] * 4))


def test_the_settings_hold_for_a_real_server(packed: Any, png: Any, tmp_path: Path) -> None:
    """An API key, a default threshold, limits, a page of another origin: all that only the start decides."""
    given = {"API_KEY": "geheim", "SCORE_THRESHOLD": "0.99", "MAX_IMAGES": "2", "RUN": "2026-a"}
    given["CORS_ORIGINS"] = "https://shop.example"
    environment = {f"DETECTOR_{name}": value for name, value in given.items()}
    log = tmp_path / "server.log"
    with serve(packed.folder, log_path=log, environment=environment) as running:
        key, origin = {"Authorization": "Bearer geheim"}, {"Origin": "https://shop.example"}
        with requests.Session() as session:
            session.trust_env = False
            check(session.post(running.url + "/predict", files=files(png)), 401, "unauthorized")
            answer = session.post(running.url + "/predict", files=files(png), headers=key | origin)
            assert answer.json()[0]["detections"] == []
            assert answer.headers["access-control-allow-origin"] == "https://shop.example"
            refused = session.post(running.url + "/predict", files=files(png, png, png), headers=key | origin)
            check(refused, 413, "too_many_images", limit_images=2)
            assert refused.headers["access-control-allow-origin"] == "https://shop.example"
            asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
            assert session.options(running.url + "/predict", headers=origin | asked).status_code == 200
            info = session.get(running.url + "/info", headers=key).json()
            assert (info["run"], info["serving_score_threshold"], info["limits"]["images"]) == ("2026-a", 0.99, 2)
            assert session.get(running.url + "/readyz").status_code == 200
        with bentoml.SyncHTTPClient(running.url, token="geheim") as client:
            assert client.predict(images=[packed.folder / "src" / "test_image.png"], score_threshold=0.01)
    assert "geheim" not in log.read_text()


def test_a_wrong_setting_is_said_at_once(packed: Any) -> None:
    environment = {"DETECTOR_THREADS": "many"}
    with pytest.raises(StepError, match="DETECTOR_THREADS is 'many'"), serve(packed.folder, environment=environment):
        pass
