"""A test set through a real packed service, and through a server that misbehaves."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_server import Reply, json_reply
from cases import cases

from pipeline.client import http_client
from pipeline.client.service_process import RunningService
from pipeline.errors import DataError, MissingError, StepError
from pipeline.evaluation.prediction import STAGES, check_test_image, predict_dataset
from pipeline.metrics.detection_metrics import evaluate

TOLD = {"code": "scripted", "message": "told to"}
BUSY = json_reply({"error": TOLD}, 429)
BROKEN = Reply(200, b"[]", sent=0)
GREYS = [250, 200, 160, 100, 60, 40, 30]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(http_client, "_LONGEST_WAIT", 0.01)


def test_the_packed_service_finds_what_its_model_finds(
    served: RunningService,
    write_dataset: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing there; the service must be reached without it
    dataset = write_dataset(GREYS)
    predictions = predict_dataset(served.url, dataset, workers=2)
    assert [one["image_id"] for one in predictions.results] == list(range(1, len(GREYS) + 1))
    # the service lists "dark" first, the test set "bright"
    assert [one["category_id"] for one in predictions.results] == [1, 1, 1, 2, 2, 2, 2]
    assert [one["score"] for one in predictions.results] == pytest.approx([grey / 255 for grey in GREYS], abs=1e-4)
    assert predictions.results[0]["bbox"] == pytest.approx([8, 8, 32, 32])
    assert (predictions.retries, predictions.unknown_classes) == (0, ())
    assert 0 < predictions.latency["p50"] <= predictions.latency["p99"] <= predictions.latency["max"]
    assert predictions.images_per_second > 0
    predictions.write_results(tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == predictions.results
    assert evaluate(dataset, written).map == pytest.approx(1.0)


def test_the_times_of_the_stages_add_up_to_those_of_the_requests(
    served: RunningService, write_dataset: Callable
) -> None:
    predictions = predict_dataset(served.url, write_dataset(GREYS), workers=2)
    assert list(predictions.stages) == list(STAGES)
    assert sum(times["mean"] for times in predictions.stages.values()) == pytest.approx(predictions.latency["mean"])
    for times in (*predictions.stages.values(), predictions.latency):
        assert 0 <= times["p50"] <= times["p90"] <= times["p95"] <= times["p99"] <= times["max"]
    assert predictions.service["engine"].startswith("onnxruntime ")
    assert predictions.service["threads"] >= 1


@cases(
    "header, expected",
    {
        "all": ("read;dur=1, decode;dur=2.5, wait;dur=0.25, inference;dur=30, post;dur=4", (1, 0.25, 2.5, 30, 4)),
        "with one of a proxy": ('cdn;desc="hit;dur=x", inference;dur=30, edge;dur=9', (0, 0, 0, 30, 0)),
        "none": ("", None),
    },
)
def test_stages_are_read_as_the_service_tells_them(
    scripted: Callable, write_dataset: Callable, header: str, expected: tuple[float, ...] | None
) -> None:
    headers = {"Server-Timing": header} if header else {}
    replies = [json_reply([{"width": 64, "height": 64, "detections": []}], headers=headers) for _ in range(2)]
    stages = predict_dataset(scripted(*replies).root, write_dataset([200, 210])).stages
    if expected is None:
        assert stages == {}
        return
    assert tuple(times["mean"] for times in list(stages.values())[1:]) == expected
    assert stages["transfer"]["mean"] >= 0


def test_the_threshold_reaches_the_service_and_is_at_least_its_own(
    served: RunningService, write_dataset: Callable
) -> None:
    truth = write_dataset(GREYS)
    assert [one["image_id"] for one in predict_dataset(served.url, truth, score_threshold=0.7).results] == [1, 2]
    assert predict_dataset(served.url, truth, score_threshold=0.0).score_threshold == 0.01


def test_classes_are_matched_by_name(served: RunningService, write_dataset: Callable) -> None:
    predictions = predict_dataset(served.url, write_dataset(GREYS, categories=("owl", "dark")))
    assert {one["category_id"] for one in predictions.results} == {2}
    assert predictions.dropped == {"bright": 3}
    assert predictions.unknown_classes == ("owl",)


def test_no_class_in_common_is_an_error(served: RunningService, write_dataset: Callable) -> None:
    with pytest.raises(DataError, match=r"(?s)owl, cat.*dark, bright"):
        predict_dataset(served.url, write_dataset(GREYS, categories=("owl", "cat")))


@cases(
    "spoil, error, message",
    {
        "refused by the service": (lambda path: path.write_text("x"), StepError, r"3\.png: HTTP 422: .*invalid_image"),
        "missing": (Path.unlink, MissingError, r"3\.png"),
    },
)
def test_a_spoilt_image_is_named(
    served: RunningService, write_dataset: Callable, spoil: Callable, error: type[Exception], message: str
) -> None:
    dataset = write_dataset(GREYS)
    spoil(dataset.path_of("3.png"))
    with pytest.raises(error, match=message):
        predict_dataset(served.url, dataset)


def test_a_busy_service_is_asked_again(scripted: Callable, write_dataset: Callable) -> None:
    script = [BROKEN, BUSY, BUSY, BROKEN, json_reply({}, 503)]
    server = scripted(*script)
    predictions = predict_dataset(server.root, write_dataset(GREYS), workers=2)
    assert [one["image_id"] for one in predictions.results] == list(range(1, len(GREYS) + 1))
    assert predictions.retries == len(script)
    assert len(server.seen("/predict")) == len(script) + len(GREYS)


def answer(found: dict[str, Any]) -> Reply:
    return json_reply([{"width": 1, "height": 1, **found}])


@cases(
    "reply, message",
    {
        "internal error": (
            json_reply({"error": TOLD}, 500),
            '500: {"error": {"code": "scripted", "message": "told to"}}',
        ),
        "not found": (Reply(404), "HTTP 404"),
        "not JSON": (Reply(200, b"<html>"), "malformed: Invalid JSON"),
        "no list": (json_reply({}), "malformed: Input should be a valid"),
        "too few items": (json_reply([]), "malformed: 0: Field required"),
        "nothing": (answer({}), "malformed: 0.detections: Field"),
        "half a box": (
            answer({"detections": [{"box": [1, 2], "score": 1, "label": "dark"}]}),
            "malformed: 0.detections.0.box: List should have at least 4 items",
        ),
        "busy for ever": (BUSY, 'HTTP 429: {"error": {"code": "scripted", "message": "told to"}}'),
    },
)
def test_a_failure_names_the_image_and_is_repeated_only_where_the_service_is_busy(
    scripted: Callable, write_dataset: Callable, reply: Reply, message: str
) -> None:
    server = scripted(*[reply] * 100)
    with pytest.raises(StepError, match=r"1\.png") as raised:
        predict_dataset(server.root, write_dataset([200]))
    assert message in str(raised.value)
    assert (len(server.seen("/predict")) == 1) == (reply is not BUSY)


def test_a_service_that_is_gone_or_too_slow_is_told(write_dataset: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StepError, match="its info: the connection broke"):
        predict_dataset("http://127.0.0.1:9", write_dataset([200]))
    monkeypatch.setattr(http_client, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(StepError, match=r"no answer within 0\.2 s"):
        predict_dataset(f"http://127.0.0.1:{silent.getsockname()[1]}", write_dataset([200]))


def test_an_image_of_another_size_than_annotated_is_reported(scripted: Callable, write_dataset: Callable) -> None:
    predictions = predict_dataset(scripted(size=(48, 64)).root, write_dataset([200, 210]))
    assert predictions.resized == ("1.png", "2.png")


def test_a_packed_service_agrees_with_its_record(served: RunningService) -> None:
    assert check_test_image(served.url) == 1


def box(left: float, score: float, label: str = "bright") -> dict[str, Any]:
    return {"box": [left, 8, 40, 40], "score": score, "label": label, "class_id": 0}


@cases(
    "recorded, differing",
    {
        "the same": ([box(8, 0.9)], 0),
        "last digits, and one at the threshold": ([box(8.04, 0.9005), box(8, 0.0105)], 0),
        "moved": ([box(10.5, 0.9)], 2),
        "another score": ([box(8, 0.7)], 2),
        "another label": ([box(8, 0.9, "dark")], 2),
        "one is not found": ([box(8, 0.9), box(1, 0.4)], 1),
        "one was not recorded": ([], 1),
    },
)
def test_a_service_that_changed_since_packing_is_noticed(
    scripted: Callable, recorded: list[dict[str, Any]], differing: int
) -> None:
    server = scripted(recorded=recorded)
    if not differing:
        assert check_test_image(server.root) == 1
        return
    with pytest.raises(StepError, match=f"{differing} of 1 detected and {len(recorded)} recorded objects have no"):
        check_test_image(server.root)
