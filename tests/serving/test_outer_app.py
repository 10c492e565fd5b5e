"""What stands before BentoML's server: paths, methods, the API key, timeouts, and one shape of errors."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cases import cases
from prometheus_client import CollectorRegistry
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from pipeline.serving.memory import Memory
from pipeline.serving.outer_app import Api, Endpoint, Exchange, OuterApp
from pipeline.serving.service_errors import ServiceError
from pipeline.serving.service_metrics import ServiceMetrics
from pipeline.serving.settings import read_settings


async def _answer(_: Exchange) -> Response:
    return JSONResponse({"right": True})


async def _refuse(_: Exchange) -> Response:
    raise ServiceError(422, "invalid_image", "image 0: no image", index=0)


async def _overloaded(_: Exchange) -> Response:
    raise ServiceError(503, "overloaded", "try again")


async def _break(_: Exchange) -> Response:
    raise MemoryError


async def _sleep(_: Exchange) -> Response:
    await asyncio.sleep(30)
    raise AssertionError


async def _read(exchange: Exchange) -> Response:
    return PlainTextResponse(str(len(await exchange.read_body(2**20))))


ENDPOINTS = {
    "/read": Endpoint(_read, ("POST",)),
    "/": Endpoint(_answer),
    "/predict": Endpoint(_answer, ("POST",), needs_key=True),
    "/info": Endpoint(_answer, ("GET", "POST"), needs_key=True),
    "/refuse": Endpoint(_refuse),
    "/overloaded": Endpoint(_overloaded),
    "/break": Endpoint(_break),
    "/sleep": Endpoint(_sleep),
}


class Asked:
    def __init__(self, **environment: str) -> None:
        self.registry = CollectorRegistry()
        metrics = ServiceMetrics(("dim",), list(ENDPOINTS), self.registry)
        api = Api(ENDPOINTS, read_settings(0.3, 0.01, environment), metrics, "detector:1", Memory(2**20))

        async def inner(scope: Scope, receive: Receive, send: Send) -> None:
            await PlainTextResponse(f"BentoML {scope['path']}")(scope, receive, send)

        self.app = OuterApp(inner, lambda: api)
        self.memory = api.memory
        self.client = TestClient(self.app, raise_server_exceptions=False)

    def count(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def asked() -> Asked:
    return Asked()


@cases(
    "method, path, status, code, message",
    {
        "an error of its own": ("GET", "/refuse", 422, "invalid_image", "image 0: no image"),
        "too much load": ("GET", "/overloaded", 503, "overloaded", "try again"),
        "an unforeseen exception": ("GET", "/break", 500, "internal_error", "the server's log"),
        "a wrong method": ("GET", "/predict", 405, "method_not_allowed", "/predict takes POST, not GET"),
        "another wrong method": ("DELETE", "/info", 405, "method_not_allowed", "takes GET and POST, not DELETE"),
        "a near path": ("POST", "/predcit", 404, "not_found", "did you mean '/predict'?"),
        "no path": ("GET", "/wp-admin/x.php", 404, "not_found", "there are: /"),
        "the wrong method for BentoML's": ("POST", "/healthz", 404, "not_found", "there is no path"),
    },
)
def test_every_error_has_one_shape(asked: Asked, method: str, path: str, status: int, code: str, message: str) -> None:
    response = asked.client.request(method, path)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert message in error["message"]
    assert response.headers["content-type"] == "application/json"
    assert ("retry-after" in response.headers) is (status in {429, 503})
    assert ("allow" in response.headers) is (status == 405)
    assert asked.count("detector_refusals_total", code=code) == 1


def test_an_unforeseen_exception_is_logged_once(asked: Asked, caplog: pytest.LogCaptureFixture) -> None:
    asked.client.get("/break")
    assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [MemoryError]


def test_a_request_that_takes_too_long() -> None:
    response = Asked(DETECTOR_TIMEOUT_SECONDS="1").client.get("/sleep")
    assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")


class Upload:
    """A client that sends its body piece by piece."""

    def __init__(self, asked: Asked) -> None:
        self.pieces: asyncio.Queue[Message] = asyncio.Queue()
        self.statuses: list[int] = []
        scope = {"type": "http", "method": "POST", "path": "/read", "query_string": b"", "headers": []}
        self.task = asyncio.create_task(asked.app(scope, self.pieces.get, self._send))

    async def _send(self, message: Message) -> None:
        if "status" in message:
            self.statuses.append(message["status"])

    async def piece(self, count: int, *, more: bool = True) -> None:
        await self.pieces.put({"type": "http.request", "body": bytes(count), "more_body": more})
        while not self.pieces.empty():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.01)


def test_a_refused_upload_does_not_take_the_room_of_others(asked: Asked) -> None:
    """What it sends on is read and dropped for a moment; meanwhile its bytes do not count."""

    async def upload() -> list[list[int]]:
        first, second = Upload(asked), Upload(asked)
        await first.piece(600_000)
        await second.piece(600_000)
        assert (first.statuses, second.statuses) == ([], [503])
        assert not second.task.done()
        await first.piece(300_000, more=False)
        await second.piece(600_000, more=False)
        await asyncio.gather(first.task, second.task)
        return [first.statuses, second.statuses]

    assert asyncio.run(upload()) == [[200], [503]]
    assert asked.memory.held == 0


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/metrics", "/schema.json", "/static_content/swagger-ui.css"])
def test_bentomls_paths_are_passed_on(asked: Asked, path: str) -> None:
    assert asked.client.get(path).text == f"BentoML {path}"


def test_answers_tell_the_version_and_are_counted(asked: Asked) -> None:
    for path in ("/info", "/info/", "/"):
        response = asked.client.get(path)
        assert response.json() == {"right": True}
        assert response.headers["x-model-version"] == "detector:1"
    assert asked.client.head("/info").content == b""
    asked.client.get("/made-up")
    assert asked.count("detector_requests_total", path="/info", status="200") == 3
    assert not [each for family in asked.registry.collect() for each in family.samples if "made" in str(each.labels)]


@cases(
    "headers, status",
    {
        "none": ({}, 401),
        "a wrong one": ({"Authorization": "Bearer geheim2"}, 401),
        "another scheme": ({"Authorization": "Basic geheim"}, 401),
        "an empty one": ({"X-API-Key": ""}, 401),
        "not ASCII": ({"X-API-Key": "geheim\xe9".encode("latin-1")}, 401),
        "a bearer": ({"Authorization": "bearer geheim"}, 200),
        "a header": ({"X-API-Key": "geheim"}, 200),
    },
)
def test_the_api_key(headers: Any, status: int) -> None:
    asked = Asked(DETECTOR_API_KEY="geheim")
    for method, path in (("POST", "/predict"), ("GET", "/info")):
        response = asked.client.request(method, path, headers=headers)
        assert response.status_code == status
        assert ("www-authenticate" in response.headers) is (status == 401)
        assert "geheim" not in response.text
    assert asked.client.get("/").status_code == asked.client.get("/healthz").status_code == 200
