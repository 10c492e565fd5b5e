"""A packed service, images that it knows, and a server that misbehaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from api_server import ApiServer, Reply, api_server, json_reply
from tiny_service import pack

from pipeline.client.service_process import RunningService, serve
from pipeline.metrics.ground_truth import GroundTruth


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
