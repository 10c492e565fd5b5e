"""Fixtures of the data tests: a real HTTP server that breaks on request, real photographs, small data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from api_server import ApiServer, api_server

from pipeline.data.coco import Annotation, Category, CocoDataset, Image


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as opened:
        yield opened


def _write_picture(path: Path, width: int, height: int) -> None:
    """A picture of noise, so that no two corners look alike, and no two pictures of other names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([width, height, *path.name.encode()])
    cv2.imwrite(str(path), noise.integers(0, 255, (height, width, 3), np.uint8))


@pytest.fixture
def write_picture() -> Callable[[Path, int, int], None]:
    """Writes a picture of a width and height, as the suffix says."""
    return _write_picture


@pytest.fixture
def tiny(tmp_path: Path) -> tuple[CocoDataset, Path]:
    """Three pictures of 60x40, of a cat, a cat and a dog, and nothing; with their folder."""
    images = tuple(Image(i, f"{i}.png", 60, 40) for i in (1, 2, 3))
    for image in images:
        _write_picture(tmp_path / "pictures" / image.file_name, 60, 40)
    annotations = (
        Annotation(1, 1, 7, (5.0, 5.0, 20.0, 10.0), 200.0),
        Annotation(2, 2, 7, (0.0, 0.0, 10.0, 10.0), 100.0),
        Annotation(3, 2, 3, (30.0, 10.0, 30.0, 30.0), 900.0),
    )
    return CocoDataset(images, annotations, (Category(7, "cat"), Category(3, "dog"))), tmp_path / "pictures"
