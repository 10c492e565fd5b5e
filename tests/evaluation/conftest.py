"""Test sets: drawn by hand, at random, and the real photographs."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

REAL_DATA = Path(os.environ.get("CV_REAL_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_annotations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = REAL_DATA / "annotations_trainval2017.zip"
    if not archive.is_file():
        pytest.skip(f"no real photographs: {archive} is absent (set CV_REAL_DATA)")
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(archive) as opened:
        return Path(opened.extract("annotations/instances_val2017.json", folder))


@pytest.fixture
def coco_file(tmp_path: Path):
    """Write a COCO file: `boxes` are (image_id, category_id, [x, y, w, h]) or the same with a dict of extras."""

    def write(boxes, *, categories=("cat", "dog", "owl"), images=4, size=(200, 100), first_id=1) -> Path:
        document = {
            "images": [
                {"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]}
                for number in range(1, images + 1)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(categories, 1)],
            "annotations": [
                {"id": number, "image_id": image_id, "category_id": category_id, "bbox": list(box), "iscrowd": 0}
                | {"area": box[2] * box[3]}
                | dict(*extras)
                for number, (image_id, category_id, box, *extras) in enumerate(boxes, first_id)
            ],
        }
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(document))
        return path

    return write


def detection(image_id, category_id, box, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


@pytest.fixture
def jittered():
    """Detections made of annotations: moved, mislabelled, dropped and invented, with scores of two digits (ties!)."""

    def make(document: dict, seed: int, *, wrong=0.15, dropped=0.2, invented=0.5) -> list[dict]:
        rng = np.random.default_rng(seed)
        ids = [category["id"] for category in document["categories"]]
        results = []
        for one in document["annotations"]:
            x, y, w, h = one["bbox"]
            scale = max(w, h) * 0.12
            moved = np.array([x, y, w, h]) + rng.normal(0, 1, 4) * scale
            moved[2:] = np.maximum(moved[2:], 1)
            if rng.random() > dropped:
                label = int(rng.choice(ids)) if rng.random() < wrong else one["category_id"]
                results.append(detection(one["image_id"], label, moved.tolist(), round(float(rng.random()), 2)))
            if rng.random() < invented:
                image = document["images"][int(rng.integers(len(document["images"])))]["id"]
                results.append(detection(image, int(rng.choice(ids)), moved.tolist(), round(float(rng.random()), 2)))
        return results

    return make
