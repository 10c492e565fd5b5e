"""The model card's JSON form and its checks."""

import json

import pytest

from pipeline.errors import DataError, MissingError
from pipeline.serving.model_metadata import ModelCard

VALUES = {
    "variant": "nano",
    "image_size": [256, 320],
    "classes": ["circle", "größe"],
    "score_threshold": 0.01,
    "nms_iou_threshold": 0.65,
    "serving_score_threshold": 0.3,
    "onnx_sha256": "ab" * 32,
    "metrics": {"parity": {"boxes_px": 1e-4}},
    "training": {"epochs": 20},
}


def test_round_trip_gives_the_same_bytes(tmp_path):
    card = ModelCard.from_dict(VALUES)
    card.write(tmp_path / "a.json")
    again = ModelCard.read(tmp_path / "a.json")
    again.write(tmp_path / "b.json")
    assert again == card
    assert card.image_size == (256, 320)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == VALUES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"image_size": [0, 320]}, "image_size", id="no height"),
        pytest.param({"image_size": [320]}, "wrong type", id="one number for the size"),
        pytest.param({"image_size": None}, "wrong type", id="no size"),
        pytest.param({"classes": []}, "classes must not be empty", id="no classes"),
        pytest.param({"classes": ["a", "a"]}, "classes must not repeat", id="a class twice"),
        pytest.param({"score_threshold": 2}, "score_threshold", id="a score above one"),
        pytest.param({"serving_score_threshold": 0.001}, "serving_score_threshold", id="below the graph's floor"),
        pytest.param({"score_threshold": "high"}, "wrong type", id="a word for a number"),
        pytest.param({"image_sise": [1, 2]}, "did you mean 'image_size'", id="misspelt"),
    ],
)
def test_a_wrong_card_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        ModelCard.from_dict({**VALUES, **change})


def test_a_missing_field_is_named():
    with pytest.raises(DataError, match="classes"):
        ModelCard.from_dict({name: value for name, value in VALUES.items() if name != "classes"})


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(MissingError, match="no model card"):
        ModelCard.read(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        ModelCard.read(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("[]")
    with pytest.raises(DataError, match="not a JSON object"):
        ModelCard.read(tmp_path / "model.json")
