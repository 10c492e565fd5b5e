"""The file beside a model's weights that says what it was trained from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.data.dataset_origin import DatasetOrigin, ImageLicence
from pipeline.data.pretrained import WeightsOrigin
from pipeline.detection.training_origins import TrainingOrigins
from pipeline.errors import DataError

TRAIN = DatasetOrigin(
    "a.zip", "b.json", "coco", "Größe", {"url": "https://x.org"}, (ImageLicence("CC0", "", 3),), 1, 4, 9, ("cat",)
)
ORIGINS = {
    "fine-tuned": TrainingOrigins(WeightsOrigin("w.pth", "a" * 64, "MIT"), {"train": TRAIN, "eval": DatasetOrigin()}),
    "from scratch": TrainingOrigins(None, {"train": TRAIN}),
    "nothing trained": TrainingOrigins(WeightsOrigin("w.pth", "a" * 64), {}),
}


@pytest.mark.parametrize("origins", ORIGINS.values(), ids=ORIGINS)
def test_they_are_read_as_they_were_written(tmp_path: Path, origins: TrainingOrigins) -> None:
    path = tmp_path / "origins.json"
    origins.write(path)
    written = path.read_bytes()
    assert TrainingOrigins.read(path) == origins
    origins.write(path)
    assert path.read_bytes() == written


def test_earlier_versions_wrote_none(tmp_path: Path) -> None:
    assert TrainingOrigins.read(tmp_path / "origins.json") is None


@pytest.mark.parametrize("content", ["", "{}", '{"weights": 3, "sets": {}}'])
def test_a_damaged_file_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "origins.json").write_text(content)
    with pytest.raises(DataError, match="the origins of the training cannot be read"):
        TrainingOrigins.read(tmp_path / "origins.json")
