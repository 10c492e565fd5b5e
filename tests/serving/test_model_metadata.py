"""`model.json`: its JSON form, the files of earlier versions, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cases import cases

from pipeline.errors import DataError, MissingError
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.tiling import Tiling

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
    "runtime": "openvino",
    "precision": "int8",
    "origin": {"commit": "ab" * 20, "created": "2026-11-29T02:46:27Z", "data": {"one": "cd" * 32}, "licence": "MIT"},
    "family": "RTMDet",
    "tile": 640,
    "overlap": 0.25,
}
BEFORE_PACKING = ("serving_score_threshold", "onnx_sha256", "metrics", "runtime", "precision", "origin")
LATER = ("family", "tile", "overlap")


def test_round_trip_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(VALUES, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    metadata = ModelMetadata.read(tmp_path / "a.json")
    metadata.write(tmp_path / "b.json")
    assert (metadata.image_size, metadata.name, metadata.detector) == ((256, 320), "RTMDet-nano", "rtmdet-nano")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_file_that_training_wrote_before_there_was_one_schema(tmp_path: Path) -> None:
    values = {name: value for name, value in VALUES.items() if name not in BEFORE_PACKING + LATER}
    (tmp_path / "model.json").write_text(json.dumps(values), encoding="utf-8")
    metadata = ModelMetadata.read(tmp_path / "model.json")
    assert metadata == ModelMetadata("nano", (256, 320), ("circle", "größe"), training={"epochs": 20})
    assert metadata.name == "YOLOX-nano", "the only family that there was"
    assert metadata.tiling.tiles(5000, 5000) == (), "images stayed whole"


def test_packing_keeps_or_changes_the_tiles() -> None:
    trained = ModelMetadata("nano", (64, 64), ("a",), tile=640, overlap=0.25)
    assert trained.in_tiles(-1, -1) == trained
    assert trained.in_tiles(0, -1).tiling == Tiling(0, 0.25)
    assert trained.in_tiles(320, 0.1).tiling == Tiling(320, 0.1)


WRONG: dict[str, tuple[Any, str]] = {
    "one number for the size": (VALUES | {"image_size": [320]}, "not valid: image_size: 1: "),
    "no size": (VALUES | {"image_size": None}, "not valid: image_size: "),
    "no classes": (VALUES | {"classes": []}, "one or more different classes"),
    "a class twice": (VALUES | {"classes": ["a", "a"]}, "one or more different classes"),
    "below the graph's threshold": (VALUES | {"serving_score_threshold": 0.001}, "serving_score_threshold is 0.001"),
    "a word for a number": (VALUES | {"score_threshold": "high"}, "not valid: score_threshold: .* number"),
    "misspelt": (VALUES | {"image_sise": [1, 2]}, "not valid: image_sise: "),
    "no variant": ({name: value for name, value in VALUES.items() if name != "variant"}, "not valid: variant: "),
    "a runtime that there is not": (VALUES | {"runtime": "cudaa"}, "runtime 'cudaa'(.|\\n)*did you mean 'cuda'"),
    "a precision that there is not": (
        VALUES | {"precision": "int4"},
        "precision 'int4'(.|\\n)*one of fp32, bf16, int8",
    ),
    "a precision of another runtime": (
        VALUES | {"runtime": "cpu", "precision": "bf16"},
        "'cpu' does not compute in bf16(.|\\n)*for cpu, fp32 or int8; for bf16, openvino",
    ),
    "a tile smaller than any network's input": (VALUES | {"tile": 31}, "tile is 31"),
    "more overlap than half a tile": (VALUES | {"overlap": 0.6}, "overlap is 0.6"),
    "a list": ([], "is not valid"),
}


@cases("content, message", WRONG)
def test_wrong_metadata_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        ModelMetadata.read(tmp_path / "model.json")


def test_a_file_that_is_not_metadata(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no model metadata"):
        ModelMetadata.read(tmp_path / "model.json")
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(DataError, match="Invalid JSON"):
        ModelMetadata.read(tmp_path / "model.json")
