"""A tiny real model, packed and served."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from kept_samples import write_record
from pictures import png_chunk, png_start, smooth
from tiny_service import pack

from pipeline.client.service_process import serve
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import Predictor
from pipeline.serving.training_reference import TrainingReference, read_reference


def bright_image(width: Any = 200, height: Any = 120, box: Any = (40, 20, 140, 80)) -> Any:
    """Grey picture, (height, width, 3), with one white rectangle `box` (x1, y1, x2, y2)."""
    image = np.full((height, width, 3), 60, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


@pytest.fixture(scope="session")
def picture() -> Any:
    """`picture(width, height, box)`: a grey picture with one white rectangle."""
    return bright_image


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny model, packed once as a Bento."""
    return pack(tmp_path_factory.mktemp("packed"), 96, ("dim", "bright"), 0.25, bright_image())


@pytest.fixture(scope="session")
def tiny(packed: Any) -> Any:
    """The tiny model: one box an image, 96 x 96."""
    path, metadata = packed.folder.parent / "model.onnx", ModelMetadata.read(packed.folder / "src" / "model.json")
    return SimpleNamespace(onnx_path=path, metadata=metadata, predictor=Predictor(path, metadata))


@pytest.fixture(scope="session")
def server(packed: Any) -> Iterator[Any]:
    """The packed tiny model, served for real."""
    with serve(packed.folder) as running:
        yield running


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A small PNG of a huge black picture, 13,000 x 13,000 at one bit a pixel: deflate shrinks it a thousandfold."""
    rows = zlib.compress(bytes(1_626 * 13_000), 9)
    return png_start(13_000, 13_000, bits=1) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> TrainingReference:
    """What 300 training images of soft blotches look like."""
    path = tmp_path_factory.mktemp("record") / "learned_images.npz"
    write_record(path, [smooth(seed) for seed in range(300)])
    found = read_reference(path)
    assert found is not None
    return found
