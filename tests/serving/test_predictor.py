"""The predictor on a real small graph: right boxes in the image's own pixels, the same in any batch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import IntegrityError, MissingError
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import MAX_DETECTIONS, Detections, Predictor, restore
from pipeline.serving.preprocessing import letterbox


@pytest.fixture
def varied_images(picture: Any) -> Any:
    return [picture(150 + 13 * i, 90 + 7 * (i % 5), (10 + i, 5 + i % 9, 60 + 2 * i, 50 + i % 20)) for i in range(19)]


@pytest.fixture
def detect(tiny: Any) -> Any:
    return lambda *images: tiny.predictor.detect([letterbox(image, tiny.metadata.image_size) for image in images])


def test_the_box_is_found_in_original_pixels(detect: Any, picture: Any) -> None:
    (found,) = detect(picture(200, 120))
    np.testing.assert_allclose(found.boxes, np.array([[8, 8, 40, 40]]) / 0.48, rtol=0.01)
    assert found.labels.tolist() == [0]


@pytest.fixture(params=["cpu", "openvino"])
def metadata(request: pytest.FixtureRequest, tiny: Any) -> ModelMetadata:
    """The tiny model's, for each library."""
    return replace(tiny.metadata, runtime=request.param)


def same(one: Detections, other: Detections) -> None:
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("alone", [True, False])
def test_alone_beside_others_and_in_a_batch_the_same(
    tiny: Any, metadata: ModelMetadata, varied_images: Any, batch_size: int, alone: bool
) -> None:
    predictor = Predictor(tiny.onnx_path, metadata, threads=2, batch_size=batch_size)
    images = [letterbox(image, metadata.image_size) for image in varied_images]
    single = [Predictor(tiny.onnx_path, metadata, threads=1).detect([image])[0] for image in images]
    with ThreadPoolExecutor(6) as threads:  # more than the model has
        side_by_side = list(threads.map(lambda image: predictor.detect([image], alone=alone)[0], images))
    for found in (predictor.detect(images, alone=alone), side_by_side):
        for one, expected in zip(found, single, strict=True):
            same(one, expected)


def test_both_libraries_find_the_same(tiny: Any, detect: Any, varied_images: Any) -> None:
    other = Predictor(tiny.onnx_path, replace(tiny.metadata, runtime="openvino"))
    assert (other.providers, other.precision, other.batch_size) == (["OpenVINO CPU"], "fp32", 1)
    assert (tiny.predictor.providers, tiny.predictor.precision) == (["CPUExecutionProvider"], "fp32")
    for image, expected in zip(varied_images, detect(*varied_images), strict=True):
        (found,) = other.detect([letterbox(image, tiny.metadata.image_size)])
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_array_equal(found.labels, expected.labels)


def test_an_image_without_anything_and_no_image(tiny: Any, metadata: ModelMetadata, picture: Any) -> None:
    predictor = Predictor(tiny.onnx_path, metadata)
    images = [letterbox(image, metadata.image_size) for image in (np.zeros((50, 50, 3), np.uint8), picture())]
    assert predictor.detect([]) == []
    assert [len(found.scores) for found in predictor.detect(images)] == [0, 1]


def test_a_cpu_without_bf16_computes_in_fp32_and_says_so(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from pipeline.serving import openvino_backend

    monkeypatch.setitem(openvino_backend._HINTS, "bf16", "f32")  # as OpenVINO does it there by itself
    assert Predictor(tiny.onnx_path, replace(tiny.metadata, runtime="openvino", precision="bf16")).precision == "fp32"
    assert "this CPU has no bf16" in caplog.text


def test_a_library_that_is_not_installed(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match=r"'openvino'(.|\n)*pip install openvino"):
        Predictor(tiny.onnx_path, replace(tiny.metadata, runtime="openvino"))


def test_a_model_that_the_metadata_does_not_name(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny.onnx_path.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="SHA-256"):
        Predictor(tmp_path / "model.onnx", tiny.metadata)


def test_nothing_is_reported_nor_written_to_the_users_home_and_no_other_library_is_needed(
    tiny: Any, metadata: ModelMetadata, tmp_path: Path
) -> None:
    """ONNX Runtime would leave a device id and a store of events below the home, OpenVINO the id of a client.

    In CI ONNX Runtime keeps still by itself.
    """
    metadata.write(tmp_path / "model.json")
    other = {"cpu": "openvino", "openvino": "onnxruntime"}[metadata.runtime]
    (tmp_path / "home").mkdir()
    program = (
        f"import sys; sys.modules['{other}'] = None;"
        "from pathlib import Path; from pipeline.serving.model_metadata import ModelMetadata;"
        "from pipeline.serving.predictor import Predictor;"
        "Predictor(Path(sys.argv[1]), ModelMetadata.read(Path(sys.argv[2])))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    subprocess.run(
        [sys.executable, "-c", program, str(tiny.onnx_path), str(tmp_path / "model.json")],
        env={**environment, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    assert not list((tmp_path / "home").rglob("*"))


def restored(rows: Any, height: int = 120, width: int = 200) -> Detections:
    """What becomes of rows of (x1, y1, x2, y2, score, label)."""
    values = np.array(rows, np.float32).reshape(-1, 6)
    image = letterbox(np.zeros((height, width, 3), np.uint8), (96, 96))
    return restore(values[:, :4], values[:, 4], values[:, 5].astype(np.int64), image)


def test_boxes_are_scaled_back_per_axis() -> None:
    found = restored([[48, 31, 96, 62, 0.5, 1]], height=101, width=157)  # 96 x int(61.76 + 0.5) = 96 x 62
    np.testing.assert_allclose(found.boxes, [[157 / 2, 101 / 2, 157, 101]], rtol=1e-6)
    assert (found.width, found.height) == (157, 101)


def test_boxes_are_clipped_and_those_in_the_padding_dropped() -> None:
    found = restored(
        [
            [-10, -10, 50, 30, 0.9, 0],
            [40, 40, 120, 90, 0.8, 0],
            [10, 70, 20, 90, 0.7, 0],  # the image ends at row 58
            [30, 30, 30, 40, 0.6, 0],  # no width
            [np.nan, 0, 9, 9, 0.9, 0],
        ]
    )
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert found.boxes.min() == 0
    assert found.boxes[1, 2:].tolist() == [200, 120]


@given(st.permutations(range(6)))
@settings(max_examples=40, deadline=None)
def test_the_graphs_order_does_not_matter(order: Any) -> None:
    rows = [[1 + i // 2, 0, 9 + i % 2, 9, 0.5, i % 3] for i in range(6)]
    expected, found = restored(rows), restored([rows[i] for i in order])
    np.testing.assert_array_equal(found.boxes, expected.boxes)
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_threshold_and_limit_keep_the_best() -> None:
    found = restored([[0, 0, 9, 9, i / 1000, 0] for i in range(1000)] + [[0, 0, 9, 9, np.nan, 0]])
    assert len(found.scores) == MAX_DETECTIONS
    assert found.scores[0] == pytest.approx(0.999)
    assert len(found.to_json(["a"], 0.01)["detections"]) == MAX_DETECTIONS
    assert len(found.to_json(["a"], 0.99)["detections"]) == 10
    assert restored([[0, 0, 9, 9, np.nan, 0]]).to_json(["a"], 0.0)["detections"] == []


def test_detections_of_some_classes_and_only_so_many() -> None:
    found = restored([[0, 0, 9, 9, i / 10, i % 3] for i in range(1, 10)])
    assert found.select(0.35, [1, 2], 3).scores.tolist() == pytest.approx([0.8, 0.7, 0.5])
    assert found.select(0.0, []).labels.tolist() == []
    assert len(found.select(0.0).scores) == 9


def test_json_form() -> None:
    assert restored([[12, 12, 48, 24, 0.123456789, 1]]).to_json(["a", "b"], 0.1) == {
        "status": 200,
        "width": 200,
        "height": 120,
        "detections": [{"box": [25.0, 24.828, 100.0, 49.655], "score": 0.123457, "label": "b", "class_id": 1}],
    }
