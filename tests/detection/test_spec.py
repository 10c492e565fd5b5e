from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.detection.spec import DetectorSpec
from pipeline.errors import DataError, MissingError, UsageError


def test_round_trip(tmp_path: Path) -> None:
    spec = DetectorSpec("nano", (64, 64), ("gâteau", "b"), 0.02, 0.6, {"epochs": 3, "eval_mAP": None})
    spec.write(tmp_path)
    assert DetectorSpec.read(tmp_path) == spec


@pytest.mark.parametrize(
    ("variant", "size", "classes", "kind", "says"),
    [
        pytest.param("nanoo", (64, 64), ("a",), UsageError, "did you mean 'nano'", id="unknown variant"),
        pytest.param("s", (100, 100), ("a",), UsageError, "96 or 128", id="no multiple of 32"),
        pytest.param("s", (64, 96), ("a",), UsageError, "square", id="not square"),
        pytest.param("s", (0, 0), ("a",), UsageError, "32", id="no size"),
        pytest.param("s", (64, 64), (), DataError, "at least one class", id="no class"),
        pytest.param("s", (64, 64), ("a", "a"), DataError, "distinct", id="one name twice"),
    ],
)
def test_refuses(variant: str, size: tuple[int, int], classes: tuple[str, ...], kind: type, says: str) -> None:
    with pytest.raises(kind, match=says):
        DetectorSpec(variant, size, classes)


def test_a_folder_without_or_with_a_broken_spec(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="model_train"):
        DetectorSpec.read(tmp_path)
    (tmp_path / "model.json").write_text('{"variant": "s"}')
    with pytest.raises(DataError, match="cannot be read"):
        DetectorSpec.read(tmp_path)
