"""`model.json`: its JSON form, the files of earlier versions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import DataError, MissingError
from pipeline.serving.model_metadata import ModelMetadata

VALUES: dict[str, Any] = {
    "variant": "nano",
    "image_size": [256, 320],
    "classes": ["circle", "größe"],
    "score_threshold": 0.01,
    "nms_iou_threshold": 0.65,
    "serving_score_threshold": 0.3,
    "onnx_sha256": "ab" * 32,
    "metrics": {"parity": {"boxes_px": 1e-4}, "parity_max_box_difference": None},
    "training": {"epochs": 20},
}
BEFORE_PACKING = ("serving_score_threshold", "onnx_sha256", "metrics")


def test_round_trip_gives_the_same_bytes(tmp_path: Path) -> None:
    metadata = ModelMetadata.from_dict(VALUES)
    metadata.write(tmp_path / "a.json")
    again = ModelMetadata.read(tmp_path / "a.json")
    again.write(tmp_path / "b.json")
    assert again == metadata
    assert metadata.image_size == (256, 320)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == VALUES


def test_a_file_that_training_wrote_before_there_was_one_schema(tmp_path: Path) -> None:
    values = {name: value for name, value in VALUES.items() if name not in BEFORE_PACKING}
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    metadata = ModelMetadata.read(tmp_path / "model.json")
    assert metadata == ModelMetadata("nano", (256, 320), ("circle", "größe"), training={"epochs": 20})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"image_size": [0, 320]}, "image_size", id="no height"),
        pytest.param({"image_size": [320]}, r"'image_size\.1'.* is not valid", id="one number for the size"),
        pytest.param({"image_size": None}, "'image_size' .*is not valid", id="no size"),
        pytest.param({"classes": []}, "classes must not be empty", id="no classes"),
        pytest.param({"classes": ["a", "a"]}, "classes must not repeat", id="a class twice"),
        pytest.param({"score_threshold": 2}, "score_threshold", id="a score above one"),
        pytest.param({"serving_score_threshold": 0.001}, "serving_score_threshold", id="below the graph's threshold"),
        pytest.param({"score_threshold": "high"}, r"'score_threshold'[\s\S]*number", id="a word for a number"),
        pytest.param({"image_sise": [1, 2]}, r"unknown field[\s\S]*did you mean 'image_size'", id="misspelt"),
    ],
)
def test_wrong_metadata_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ModelMetadata.from_dict({**VALUES, **change})


@pytest.mark.parametrize("name", ["variant", "image_size", "classes"])
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(DataError, match=f"'{name}'"):
        ModelMetadata.from_dict({key: value for key, value in VALUES.items() if key != name})


def test_a_file_that_is_not_metadata(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no model metadata"):
        ModelMetadata.read(tmp_path / "model.json")
    for content, message in (("{", "not JSON"), ("[]", "is not valid")):
        (tmp_path / "model.json").write_text(content)
        with pytest.raises(DataError, match=message):
            ModelMetadata.read(tmp_path / "model.json")
