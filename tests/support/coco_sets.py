"""Test sets: drawn by hand, at random, and the real photographs. A plugin of fixtures for metrics and evaluation."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detections import found

from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth


@pytest.fixture(scope="session")
def real_truth(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    archive = real_data / "annotations_trainval2017.zip"
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(archive) as opened:
        return read_ground_truth(Path(opened.extract("annotations/instances_val2017.json", folder)))


@pytest.fixture(scope="session")
def coco_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., GroundTruth]:
    """Make a test set: `boxes` are (image_id, category_id, [x, y, w, h]) or the same with a dict of extras.

    `images` is how many there are, or their names.
    """

    def write(
        boxes: Any, categories: Any = ("cat", "dog", "owl"), images: Any = 4, size: Any = (300, 200), first_id: int = 1
    ) -> GroundTruth:
        width, height = size
        names = [f"{number}.png" for number in range(1, images + 1)] if isinstance(images, int) else images
        document = {
            "images": [
                {"id": number, "file_name": name, "width": width, "height": height}
                for number, name in enumerate(names, 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
            "annotations": [
                {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(box), "iscrowd": 0}
                | {"area": box[2] * box[3]}
                | dict(*extras)
                for number, (image_id, category_id, box, *extras) in enumerate(boxes, first_id)
            ],
        }
        path = tmp_path_factory.mktemp("set") / "annotations.json"
        path.write_text(json.dumps(document))
        return read_ground_truth(path)

    return write


@pytest.fixture
def jittered() -> Callable[[GroundTruth, int], list[dict]]:
    """Detections made of annotations: moved, mislabelled, dropped and invented, with scores of two digits (ties!)."""

    def make(truth: GroundTruth, seed: int) -> list[dict]:
        rng = np.random.default_rng(seed)
        ids = list(truth.categories)
        results = []
        for one in truth.annotations:
            x, y, w, h = one.bbox
            scale = max(w, h) * 0.12
            moved = np.array([x, y, w, h]) + rng.normal(0, 1, 4) * scale
            moved[2:] = np.maximum(moved[2:], 1)
            if rng.random() > 0.2:
                label = int(rng.choice(ids)) if rng.random() < 0.15 else one.category_id
                results.append(found(one.image_id, label, moved.tolist(), round(float(rng.random()), 2)))
            if rng.random() < 0.5:
                image = truth.images[int(rng.integers(len(truth.images)))].id
                results.append(found(image, int(rng.choice(ids)), moved.tolist(), round(float(rng.random()), 2)))
        return results

    return make
