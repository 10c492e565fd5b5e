"""A test set through a real packed service, and through a server that misbehaves."""

import json

import pytest

from pipeline.errors import DataError, MissingError, StepError
from pipeline.evaluation import client as client_module
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.prediction import predict_dataset

GREYS = [250, 200, 160, 100, 60, 40, 30]


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch):
    monkeypatch.setattr(client_module, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(client_module, "_LONGEST_PAUSE", 0.01)


@pytest.mark.parametrize("images_per_request", [1, 3, 20])
def test_the_packed_service_finds_what_its_model_finds(
    served, write_dataset, tmp_path, monkeypatch, images_per_request
):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing there; the service must be reached without it
    dataset = write_dataset(GREYS)
    predictions = predict_dataset(served.url, dataset, images_per_request=images_per_request, workers=2)
    assert [one["image_id"] for one in predictions.results] == list(range(len(GREYS)))
    # the service lists "dark" first, the test set "bright"
    assert [one["category_id"] for one in predictions.results] == [1, 1, 1, 2, 2, 2, 2]
    assert [one["score"] for one in predictions.results] == pytest.approx([grey / 255 for grey in GREYS], abs=1e-4)
    assert predictions.results[0]["bbox"] == pytest.approx([8, 8, 32, 32])
    assert predictions.requests == -(-len(GREYS) // images_per_request)
    assert (predictions.images, predictions.retries, predictions.unknown_classes) == (len(GREYS), 0, ())
    assert 0 < predictions.latency.p50 <= predictions.latency.p99 <= predictions.latency.max
    assert predictions.images_per_second == pytest.approx(len(GREYS) / predictions.seconds)
    written = json.loads(predictions.write_results(tmp_path / "results.json").read_text())
    assert written == predictions.results
    assert evaluate(dataset, written).map == pytest.approx(1.0)
    assert json.loads(json.dumps(predictions.to_json()))["detections"] == len(GREYS)


def test_a_threshold_below_the_services_floor_is_raised_to_it(served, write_dataset):
    assert predict_dataset(served.url, write_dataset([250, 40]), score_threshold=0.0).score_threshold == 0.01


def test_the_threshold_reaches_the_service(served, write_dataset):
    predictions = predict_dataset(served.url, write_dataset(GREYS), score_threshold=0.7)
    assert [one["image_id"] for one in predictions.results] == [0, 1]


def test_classes_are_matched_by_name(served, write_dataset, caplog):
    predictions = predict_dataset(served.url, write_dataset(GREYS, categories=("owl", "dark")))
    assert {one["category_id"] for one in predictions.results} == {2}
    assert predictions.dropped == {"bright": 3}
    assert predictions.unknown_classes == ("owl",)
    assert "owl" in caplog.text


def test_no_class_in_common_is_an_error(served, write_dataset):
    with pytest.raises(DataError, match=r"(?s)owl, cat.*dark, bright"):
        predict_dataset(served.url, write_dataset(GREYS, categories=("owl", "cat")))


def test_an_image_that_the_service_refuses_is_named_with_its_words(served, write_dataset):
    dataset = write_dataset(GREYS)
    (dataset / "images" / "3.png").write_bytes(b"not an image")
    with pytest.raises(StepError, match=r"3\.png: HTTP 4\d\d: \w+"):
        predict_dataset(served.url, dataset)


def test_a_missing_image_is_named(served, write_dataset):
    dataset = write_dataset(GREYS)
    (dataset / "images" / "3.png").unlink()
    with pytest.raises(MissingError, match=r"3\.png"):
        predict_dataset(served.url, dataset)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([429, 429, 429], id="too-many-requests"),
        pytest.param([503, 503], id="unavailable"),
        pytest.param(["reset", "reset"], id="reset"),
        pytest.param(["hang up", 429, "reset", 503], id="all-of-it"),
    ],
)
def test_a_busy_service_is_asked_again(scripted, write_dataset, script):
    server = scripted(*script)
    predictions = predict_dataset(server.url, write_dataset(GREYS), workers=2)
    assert [one["image_id"] for one in predictions.results] == list(range(len(GREYS)))
    assert predictions.retries == len(script)
    assert server.state.calls == len(script) + len(GREYS)


def test_a_service_that_stays_busy_is_given_up(scripted, write_dataset):
    with pytest.raises(StepError, match=r"0\.png: 10 attempts, the last: HTTP 429: scripted: told to"):
        predict_dataset(scripted(*[429] * 100).url, write_dataset([200]))


def test_a_service_that_is_gone_is_told(write_dataset):
    with pytest.raises(StepError, match="attempts, the last: the connection broke"):
        predict_dataset("http://127.0.0.1:9", write_dataset([200]))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(500, "HTTP 500: scripted: told to", id="internal-error"),
        pytest.param(404, "HTTP 404", id="not-found"),
        pytest.param(b"<html>", "malformed: not JSON", id="not-json"),
        pytest.param(b"{}", "malformed: not a list of 1 items", id="no-list"),
        pytest.param(b"[]", "malformed: not a list of 1 items", id="too-few-items"),
        pytest.param(b'[{"width": 1}]', "malformed: KeyError", id="no-detections"),
        pytest.param(
            b'[{"width": 1, "height": 1, "detections": [{"box": [1, 2], "score": 1, "label": "dark"}]}]',
            "malformed: ValueError: a box without four numbers",
            id="half-a-box",
        ),
        pytest.param(
            b'[{"width": 1, "height": 1, "detections": [{"box": [1, 2, 3, "x"], "score": 1, "label": "dark"}]}]',
            "malformed: ValueError",
            id="no-number",
        ),
    ],
)
def test_other_failures_are_not_repeated_and_name_the_image(scripted, write_dataset, answer, message):
    server = scripted(answer)
    with pytest.raises(StepError, match=r"0\.png") as raised:
        predict_dataset(server.url, write_dataset([200]))
    assert message in str(raised.value)
    assert server.state.calls == 1


def test_a_service_too_slow_is_told(write_dataset):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(StepError, match=r"no answer within 0\.2 s"):
            predict_dataset(f"http://127.0.0.1:{silent.getsockname()[1]}", write_dataset([200]), timeout=0.2)


def test_an_image_of_another_size_than_annotated_is_reported(scripted, write_dataset, caplog):
    predictions = predict_dataset(scripted(size=(48, 64)).url, write_dataset([200, 210]))
    assert predictions.resized == ("0.png", "1.png")
    assert "another size" in caplog.text
