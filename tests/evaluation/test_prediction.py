"""A test set through a real packed service, and through a server that misbehaves."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, MissingError, StepError
from pipeline.evaluation import client as client_module
from pipeline.evaluation.client import ServedDetection, _pair, check_test_image
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.prediction import predict_dataset
from pipeline.evaluation.service_process import RunningService, serve

GREYS = [250, 200, 160, 100, 60, 40, 30]


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT", 0.001)
    monkeypatch.setattr(client_module, "_LONGEST_WAIT", 0.01)


def test_the_packed_service_finds_what_its_model_finds(
    served: RunningService,
    write_dataset: Callable,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing there; the service must be reached without it
    dataset = write_dataset(GREYS)
    predictions = predict_dataset(served.url, dataset, workers=2)
    assert [one["image_id"] for one in predictions.results] == list(range(len(GREYS)))
    # the service lists "dark" first, the test set "bright"
    assert [one["category_id"] for one in predictions.results] == [1, 1, 1, 2, 2, 2, 2]
    assert [one["score"] for one in predictions.results] == pytest.approx([grey / 255 for grey in GREYS], abs=1e-4)
    assert predictions.results[0]["bbox"] == pytest.approx([8, 8, 32, 32])
    assert (predictions.images, predictions.retries, predictions.unknown_classes) == (len(GREYS), 0, ())
    assert 0 < predictions.latency.p50 <= predictions.latency.p99 <= predictions.latency.max
    assert predictions.images_per_second == pytest.approx(len(GREYS) / predictions.seconds)
    written = json.loads(predictions.write_results(tmp_path / "results.json").read_text())
    assert written == predictions.results
    assert evaluate(dataset, written).map == pytest.approx(1.0)


def test_a_threshold_below_the_services_floor_is_raised_to_it(served: RunningService, write_dataset: Callable) -> None:
    assert predict_dataset(served.url, write_dataset([250, 40]), score_threshold=0.0).score_threshold == 0.01


def test_the_threshold_reaches_the_service(served: RunningService, write_dataset: Callable) -> None:
    predictions = predict_dataset(served.url, write_dataset(GREYS), score_threshold=0.7)
    assert [one["image_id"] for one in predictions.results] == [0, 1]


def test_classes_are_matched_by_name(
    served: RunningService, write_dataset: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = predict_dataset(served.url, write_dataset(GREYS, categories=("owl", "dark")))
    assert {one["category_id"] for one in predictions.results} == {2}
    assert predictions.dropped == {"bright": 3}
    assert predictions.unknown_classes == ("owl",)
    assert "owl" in caplog.text


def test_no_class_in_common_is_an_error(served: RunningService, write_dataset: Callable) -> None:
    with pytest.raises(DataError, match=r"(?s)owl, cat.*dark, bright"):
        predict_dataset(served.url, write_dataset(GREYS, categories=("owl", "cat")))


def test_an_image_that_the_service_refuses_is_named_with_its_words(
    served: RunningService, write_dataset: Callable
) -> None:
    dataset = write_dataset(GREYS)
    dataset.path_of("3.png").write_bytes(b"not an image")
    with pytest.raises(StepError, match=r"3\.png: HTTP 4\d\d: \w+"):
        predict_dataset(served.url, dataset)


def test_a_missing_image_is_named(served: RunningService, write_dataset: Callable) -> None:
    dataset = write_dataset(GREYS)
    dataset.path_of("3.png").unlink()
    with pytest.raises(MissingError, match=r"3\.png"):
        predict_dataset(served.url, dataset)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([429, 429, 429], id="too-many-requests"),
        pytest.param(["hang up", 429, "reset", 503], id="all-of-it"),
    ],
)
def test_a_busy_service_is_asked_again(scripted: Callable, write_dataset: Callable, script: list) -> None:
    server = scripted(*script)
    predictions = predict_dataset(server.url, write_dataset(GREYS), workers=2)
    assert [one["image_id"] for one in predictions.results] == list(range(len(GREYS)))
    assert predictions.retries == len(script)
    assert server.state.calls == len(script) + len(GREYS)


def test_a_service_that_stays_busy_is_given_up(scripted: Callable, write_dataset: Callable) -> None:
    with pytest.raises(StepError, match=r"0\.png: 10 attempts, the last: HTTP 429: scripted: told to"):
        predict_dataset(scripted(*[429] * 100).url, write_dataset([200]))


def test_a_service_that_is_gone_is_told(write_dataset: Callable) -> None:
    with pytest.raises(StepError, match="attempts, the last: the connection broke"):
        predict_dataset("http://127.0.0.1:9", write_dataset([200]))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(500, "HTTP 500: scripted: told to", id="internal-error"),
        pytest.param(404, "HTTP 404", id="not-found"),
        pytest.param(b"<html>", "malformed: Invalid JSON", id="not-json"),
        pytest.param(b"{}", "malformed: Input should be a valid array", id="no-list"),
        pytest.param(b"[]", "malformed: 0 items for one image", id="too-few-items"),
        pytest.param(b'[{"width": 1, "height": 1}]', "malformed: [0].detections: Field required", id="no-detections"),
        pytest.param(
            b'[{"width": 1, "height": 1, "detections": [{"box": [1, 2], "score": 1, "label": "dark"}]}]',
            "malformed: [0].detections[0].box: List should have at least 4 items",
            id="half-a-box",
        ),
        pytest.param(
            b'[{"width": 1, "height": 1, "detections": [{"box": [1, 2, 3, "x"], "score": 1, "label": "dark"}]}]',
            "malformed: [0].detections[0].box[3]: Input should be a valid number",
            id="no-number",
        ),
    ],
)
def test_other_failures_are_not_repeated_and_name_the_image(
    scripted: Callable, write_dataset: Callable, answer: Any, message: str
) -> None:
    server = scripted(answer)
    with pytest.raises(StepError, match=r"0\.png") as raised:
        predict_dataset(server.url, write_dataset([200]))
    assert message in str(raised.value)
    assert server.state.calls == 1


def test_a_service_too_slow_is_told(write_dataset: Callable) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(StepError, match=r"no answer within 0\.2 s"):
            predict_dataset(f"http://127.0.0.1:{silent.getsockname()[1]}", write_dataset([200]), timeout=0.2)


def test_an_image_of_another_size_than_annotated_is_reported(
    scripted: Callable, write_dataset: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    predictions = predict_dataset(scripted(size=(48, 64)).url, write_dataset([200, 210]))
    assert predictions.resized == ("0.png", "1.png")
    assert "differs from the annotations" in caplog.text


def test_a_packed_service_agrees_with_its_record(served: RunningService) -> None:
    check = check_test_image(served.url).require()
    assert (check.detections, check.recorded, check.unmatched) == (1, 1, 0)
    assert check.max_box_difference_px < 0.05
    assert check.max_score_difference < 1e-3


def test_a_service_that_changed_since_packing_is_noticed(bento: Path, tmp_path: Path) -> None:
    changed = tmp_path / "bento"
    shutil.copytree(bento, changed)
    (record,) = changed.rglob("test_result.json")
    result = json.loads(record.read_text())
    result["detections"][0]["box"][0] += 2.5
    result["detections"].append({"box": [1, 1, 9, 9], "score": 0.4, "label": "bright", "class_id": 1})
    record.write_text(json.dumps(result))
    with serve(changed) as server:
        check = check_test_image(server.url)
    assert check.max_box_difference_px == pytest.approx(2.5, abs=1e-3)
    assert (check.detections, check.recorded, check.unmatched) == (1, 2, 1)
    with pytest.raises(StepError, match="in 1 of 2 detections"):
        check.require()


def test_equal_scores_in_another_order_are_paired_by_place() -> None:
    one = ServedDetection(box=[0, 0, 9, 9], score=0.5, label="cat")
    two = ServedDetection(box=[50, 0, 60, 9], score=0.5, label="cat")
    dog = ServedDetection(box=[50, 0, 60, 9], score=0.5, label="dog")
    assert _pair([one, two], [two, one, dog]) == ([(one, one), (two, two)], [dog])
