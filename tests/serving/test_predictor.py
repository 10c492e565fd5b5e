"""The predictor on a real small graph: right boxes, the same in any batch, and clear refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import DataError, IntegrityError, MissingError
from pipeline.serving.predictor import MAX_BATCH, Predictor, available_cpus


def same(one: Any, other: Any) -> Any:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels"))


@pytest.fixture
def varied_images(picture: Any) -> Any:
    return [
        picture(150 + 13 * i, 90 + 7 * (i % 5), (10 + i, 5 + i % 9, 60 + 2 * i, 50 + i % 20))
        for i in range(2 * MAX_BATCH + 3)
    ]


def test_the_box_is_found_in_original_pixels(tiny: Any, picture: Any) -> None:
    (found,) = tiny.predictor.predict([picture(200, 120, (40, 20, 140, 80))], score_threshold=0.01)
    np.testing.assert_allclose(found.boxes, [[40, 20, 140, 80]], atol=2.5)  # one letterboxed pixel is 2.08 pixels
    assert found.labels.tolist() == [0]


def test_files_and_arrays_give_the_same(tiny: Any, picture: Any) -> None:
    image = picture()
    (from_array,) = tiny.predictor.predict([image], score_threshold=0.01)
    (from_bytes,) = tiny.predictor.predict_bytes([cv2.imencode(".png", image)[1].tobytes()], score_threshold=0.01)
    assert same(from_array, from_bytes)


def test_alone_and_in_a_batch_the_same(tiny: Any, varied_images: Any) -> None:
    images = varied_images
    together = tiny.predictor.predict(images, score_threshold=0.01)
    alone = [tiny.predictor.predict([image], score_threshold=0.01)[0] for image in images]
    assert len(together) == len(images)
    assert all(same(one, other) for one, other in zip(together, alone, strict=True))


def test_an_image_without_anything_and_no_image(tiny: Any) -> None:
    assert tiny.predictor.predict([]) == []
    assert len(tiny.predictor.predict([np.zeros((50, 50, 3), np.uint8)], score_threshold=0.01)[0]) == 0


def test_the_threshold_of_the_metadata_holds_unless_another_is_given(tiny: Any, picture: Any) -> None:
    image = picture(200, 200, (0, 0, 60, 60))  # mean of green: (60 * 0.91 + 255 * 0.09) / 255 = 0.30
    assert len(tiny.predictor.predict([image])[0]) == 1
    assert len(tiny.predictor.predict([image], score_threshold=0.4)[0]) == 0


def test_a_missing_model(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no ONNX model"):
        Predictor(tmp_path / "model.onnx", tiny.metadata)


def test_a_model_that_the_metadata_does_not_name(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(tiny.onnx_path.read_bytes() + b"\0")
    with pytest.raises(IntegrityError, match="SHA-256"):
        Predictor(tmp_path / "model.onnx", tiny.metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"model": b"no graph at all"}, "not a usable ONNX model", id="not ONNX"),
        pytest.param({"model": b""}, "not a usable ONNX model", id="empty"),
        pytest.param({"size": (64, 96)}, "the ONNX model has inputs", id="another size"),
        pytest.param({"batch": 1}, "dynamic batch", id="a fixed batch"),
        pytest.param({"input_name": "pixels"}, "'images'", id="another name"),
    ],
)
def test_an_unfit_model(tmp_path: Path, write_model: Any, change: dict[Any, Any], message: str) -> None:
    metadata = write_model(tmp_path / "model.onnx", **change)
    with pytest.raises(DataError, match=message):
        Predictor(tmp_path / "model.onnx", metadata)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_cpus_are_those_this_process_may_use() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_nothing_is_reported_nor_written_to_the_users_home(tiny: Any, tmp_path: Path) -> None:
    """ONNX Runtime would leave a device id and a store of events below the home; in CI it keeps still by itself."""
    tiny.metadata.write(tmp_path / "model.json")
    (tmp_path / "home").mkdir()
    program = (
        "import sys; from pathlib import Path; from pipeline.serving.model_metadata import ModelMetadata;"
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
