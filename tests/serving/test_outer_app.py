"""What stands before BentoML's server: one shape of errors, whatever the application answers or raises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.serving import upload_middleware
from pipeline.serving.outer_app import OuterApp, ServiceError
from pipeline.serving.upload_middleware import UploadMiddleware

PAGE = """<html><!-- Google Tag Manager --><script src="https://x.example/gtm.js"></script>
<!-- End Google Tag Manager --><link href="./static/a.css"></html>"""


@pytest.fixture
def client(tmp_path: Path) -> Any:
    """`client(app)`: asks an application behind the outer one."""
    (tmp_path / "index.html").write_text(PAGE)

    def behind(app: ASGIApp) -> TestClient:
        methods = {"/": ["GET"], "/predict": ["POST"], "/info": ["POST"]}
        return TestClient(OuterApp(app, methods, ("/static/",), tmp_path / "index.html"))

    return behind


REFUSED = ServiceError(422, "invalid_image", "image 0: no image", index=0)


@cases(
    "answer, status, code, message",
    {
        "a timeout": (JSONResponse({"error": "Not able to process"}, 504), 504, "timeout", "took too long"),
        "too many": (JSONResponse({"error": "Too many requests"}, 429), 429, "too_many_requests", "try again"),
        "an exception of BentoML": (JSONResponse([{"error": "wrong"}], 400), 400, "bad_request", "wrong"),
        "plain text": (PlainTextResponse("Not Found", 404), 404, "not_found", "Not Found"),
        "nothing": (PlainTextResponse("", 500), 500, "internal_error", "the server's log"),
        "its own": (REFUSED.response(), 422, "invalid_image", "image 0: no image"),
    },
)
def test_every_error_has_one_shape(client: Any, answer: Any, status: int, code: str, message: str) -> None:
    response = client(answer).post("/predict")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert message in error["message"]
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert ("retry-after" in response.headers) is (status in {429, 503})


def test_an_unforeseen_exception_is_answered_and_logged_once(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise MemoryError

    response = client(broken).post("/predict")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [MemoryError]


def test_answers_pass_as_they_are(client: Any) -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse([scope["method"], scope["path"]])(scope, receive, send)

    asked = client(echo)
    assert asked.post("/predict/").json() == ["POST", "/predict"]
    assert asked.get("/info").json() == ["POST", "/info"]
    assert asked.get("/static/a.css").json() == ["GET", "/static/a.css"]
    assert "example" not in asked.get("/docs").text
    assert "./static/a.css" in asked.get("/docs").text
    assert json.loads(asked.get("/nowhere").text)["error"]["code"] == "not_found"


def test_an_unforeseen_exception_in_decoding_is_answered_at_once(
    packed: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(data: bytes) -> Any:
        raise MemoryError

    monkeypatch.setattr(upload_middleware, "decode", fail)
    app = UploadMiddleware(PlainTextResponse("never"), packed.folder / "src" / "model.json")
    image = (packed.folder / "src" / "test_image.png").read_bytes()
    response = TestClient(app).post("/predict", files={"images": ("a.png", image)})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [MemoryError]
    assert app._held_bytes == 0
