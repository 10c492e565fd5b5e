"""A tiny real model, packed with an origin."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_service import pack

from pipeline.containers.packed_bento import PackedBento
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service

ORIGIN = {
    "commit": "ab" * 20,
    "created": "2026-11-29T02:46:27Z",
    "data": {"coco_train_dataset": "cd" * 32},
    "licence": "Apache-2.0",
}


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> PackedBento:
    """The tiny model of a run in git, for the CPU."""
    folder = tmp_path_factory.mktemp("packed")
    image = np.full((120, 200, 3), 60, np.uint8)
    image[20:80, 40:140] = 255
    pack(folder, 96, ("dim", "bright"), 0.25, image)
    metadata = ModelMetadata.read(folder / "bento" / "src" / "model.json")
    metadata = replace(metadata, training={"eval_mAP": 0.72345}, origin=ORIGIN)
    packed = pack_service(folder / "model.onnx", metadata, folder / "photo.png", folder / "with_origin")
    return PackedBento.read(packed.folder)


@pytest.fixture
def for_gpus(bento: PackedBento, tmp_path: Path) -> PackedBento:
    """The same for GPUs, as its files say."""
    folder = tmp_path / "for_gpus"
    shutil.copytree(bento.folder, folder)
    replace(bento.model, runtime="cuda").write(folder / "src" / "model.json")
    return PackedBento.read(folder)


@pytest.fixture
def for_openvino(bento: PackedBento, tmp_path: Path) -> PackedBento:
    """The same for OpenVINO, as its files say."""
    folder = tmp_path / "for_openvino"
    shutil.copytree(bento.folder, folder)
    replace(bento.model, runtime="openvino", precision="bf16").write(folder / "src" / "model.json")
    return PackedBento.read(folder)


@pytest.fixture
def old(bento: PackedBento, tmp_path: Path) -> PackedBento:
    """The same as earlier versions packed it: of its origin nothing is known."""
    folder = tmp_path / "old"
    shutil.copytree(bento.folder, folder)
    replace(bento.model, origin={}, training={}).write(folder / "src" / "model.json")
    return PackedBento.read(folder)
