"""Data sets and weights small enough to train on in a test."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from pipeline.detection.hyperparameters import Hyperparameters, TrainingOptions

if TYPE_CHECKING:
    from pipeline.detection.training import TrainingResult

CLASSES = ("disc", "block")


@pytest.fixture(scope="session")
def pretrained(real_data: Path) -> Path:
    """YOLOX-nano's weights of all 80 COCO classes."""
    return real_data / "yolox_nano_coco.pth"


@pytest.fixture(scope="session")
def photographs(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six photographs of COCO."""
    archive = real_data / "val2017.zip"
    folder = tmp_path_factory.mktemp("photographs")
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.endswith(".jpg"))[:6]
        for name in names:
            (folder / Path(name).name).write_bytes(opened.read(name))
    return sorted(folder.iterdir())


def write_dataset(folder: Path, images: int, seed: int, *, classes: tuple[str, ...] = CLASSES, size: int = 64) -> Path:
    """Discs and blocks on noise; the last image is empty, and one box is a crowd's."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for number in range(1, images + 1):
        canvas = rng.integers(90, 120, (size, size, 3), dtype=np.uint8)
        boxes = 0 if number == images else int(rng.integers(1, 3))
        for _ in range(boxes):
            side = int(rng.integers(size // 4, size // 2))
            x, y = (int(value) for value in rng.integers(0, size - side, 2))
            label = int(rng.integers(2))
            if label == 0:
                cv2.circle(canvas, (x + side // 2, y + side // 2), side // 2, (0, 0, 255), -1)
            else:
                cv2.rectangle(canvas, (x, y), (x + side, y + side), (255, 0, 0), -1)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "area": side * side,
                    "bbox": [x, y, side, side],
                    "iscrowd": int(len(annotations) == 3),
                }
            )
        cv2.imwrite(str(folder / "images" / f"{number:03}.png"), canvas)
        entries.append({"id": number, "file_name": f"{number:03}.png", "width": size, "height": size})
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, 1)]
    content = {"images": entries, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    """`write_dataset`, for a test that needs one of its own."""
    return write_dataset


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A train and an eval set of 64 px images with two classes."""
    base = tmp_path_factory.mktemp("datasets")
    return write_dataset(base / "train", 13, 1), write_dataset(base / "eval", 5, 2)


@pytest.fixture
def run(datasets: tuple[Path, Path], tmp_path: Path) -> Callable[..., TrainingResult]:
    """Train, on `datasets` if no others are given, each time into a folder of its own."""

    def start(options: TrainingOptions, *sets: Path, **named: Any) -> TrainingResult:
        from pipeline.detection.training import train  # imported here: slow, and most tests need no training

        return train(options, *(sets or datasets), Path(mkdtemp(dir=tmp_path)), **named)

    return start


@pytest.fixture(scope="session")
def skilled(datasets: tuple[Path, Path], pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YOLOX-nano's weights after they have met the discs and blocks: they find some."""
    from pipeline.detection.training import train

    folder = tmp_path_factory.mktemp("skilled")
    result = train(
        TrainingOptions("yolox-nano", 64, 3, 4, seed=3),
        *datasets,
        folder,
        weights=pretrained,
        hyperparameters=Hyperparameters(freeze="stem", learning_rate=1e-3),
    )
    assert (result.metrics()["eval_mAP"] or 0) > 0.1
    return folder / "best.pth"
