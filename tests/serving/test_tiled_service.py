"""A service whose model is for tiles, packed and served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import requests

from pipeline.client.service_process import serve
from pipeline.evaluation.prediction import check_test_image
from pipeline.serving.packing import pack_service
from pipeline.serving.tiled_detection import predict_image


@pytest.fixture(scope="module")
def tiled(tiny: Any, picture: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The tiny model for tiles of 96 pixels, its image of 600 x 500, and its running service."""
    folder = tmp_path_factory.mktemp("tiled")
    metadata, image = replace(tiny.metadata, tile=96), picture(600, 500, (300, 200, 500, 300))
    cv2.imwrite(str(folder / "photo.png"), image)
    packed = pack_service(tiny.onnx_path, metadata, folder / "photo.png", folder / "bento")
    with serve(packed.folder) as running:
        yield SimpleNamespace(metadata=metadata, image=image, packed=packed, folder=packed.folder, url=running.url)


def test_an_image_is_answered_as_the_predictor_does_it(tiled: Any, tiny: Any) -> None:
    answer = requests.post(
        f"{tiled.url}/predict?score_threshold=0.01",
        files={"images": ("a.png", cv2.imencode(".png", tiled.image)[1].tobytes())},
        timeout=30,
    )
    expected = predict_image(tiny.predictor, tiled.image, tiled.metadata)
    assert len(expected.scores) > 20, "the tiny model finds a box in each tile"
    assert answer.json() == [expected.to_json(tiled.metadata.classes, 0.01)]
    assert "inference;dur=" in answer.headers["Server-Timing"]


def test_info_tells_of_the_tiles(tiled: Any) -> None:
    info = requests.get(f"{tiled.url}/info", timeout=30).json()
    assert (info["tile"], info["overlap"]) == (96, 0.2)


def test_the_test_image_is_a_part_of_the_image_with_the_most_certain_object(tiled: Any) -> None:
    part: Path = tiled.folder / "src" / "test_image.png"
    assert cv2.imread(str(part)).shape == (173, 173, 3), "two tiles by two, which share 19 pixels"
    assert len(tiled.packed.test_result["detections"]) > 1
    assert tiled.packed.test_result["detections"][0]["label"] == "bright"
    assert check_test_image(tiled.url) == len(tiled.packed.test_result["detections"])
