"""Test sets: drawn by hand, at random, and the real photographs; a packed service, and a server that misbehaves."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from api_server import ApiServer, Reply, api_server, json_reply
from detections import found
from tiny_service import pack

from pipeline.client.service_process import RunningService, serve
from pipeline.evaluation.ground_truth import GroundTruth, read_ground_truth


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


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed service that knows the classes "dark" and "bright", input 64 x 64 pixels."""
    photo = np.full((48, 64, 3), 90, np.uint8)
    return pack(tmp_path_factory.mktemp("evaluation"), 64, ("dark", "bright"), 0.3, photo).folder


@pytest.fixture(scope="session")
def served(bento: Path) -> Iterator[RunningService]:
    with serve(bento) as server:
        yield server


@pytest.fixture
def write_dataset(coco_file: Callable[..., GroundTruth]) -> Callable[..., GroundTruth]:
    """Grey 64 x 64 images of the given brightness, with the box that the packed model finds in every one."""

    def write(greys: Any, categories: Any = ("bright", "dark"), crowds: Any = ()) -> GroundTruth:
        labels = ["bright" if grey > 127 else "dark" for grey in greys]
        boxes = [
            (number, categories.index(label) + 1, [8, 8, 32, 32], {"iscrowd": int(number in crowds)})
            for number, label in enumerate(labels, 1)
            if label in categories
        ]
        truth = coco_file(boxes, categories, images=len(greys), size=(64, 64))
        (truth.folder / "images").mkdir()
        for image, grey in zip(truth.images, greys, strict=True):
            cv2.imwrite(str(truth.path_of(image.file_name)), np.full((64, 64, 3), grey, np.uint8))
        return truth

    return write


@pytest.fixture
def scripted() -> Iterator[Callable[..., ApiServer]]:
    """A real server that speaks the service's API, but first gives the replies to `/predict` that it is told."""
    with api_server() as server:

        def start(*script: Reply, size: tuple[int, int] = (64, 64), recorded: Any = ()) -> ApiServer:
            usual = {"box": [8, 8, 40, 40], "score": 0.9, "label": "bright", "class_id": 0}
            replies = [*script]
            body = json_reply([{"width": size[0], "height": size[1], "detections": [usual]}])
            server.route("/predict", lambda _: replies.pop(0) if replies else body)
            server.json("/info", {"classes": ["bright", "dark"], "score_threshold": 0.01})
            server.json("/test_data", "any image")
            server.json("/test_result", {"width": 64, "height": 64, "detections": list(recorded)})
            return server

        yield start
