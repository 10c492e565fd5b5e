"""A packed service around a model that takes a moment to make: one fixed box an image, its score the brightness."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import onnx.parser

from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import PackedService, pack_service


def brightness_model(size: int) -> bytes:
    """ONNX graph with the served interface: label 1 above half of the brightness; nothing in a black image."""
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 18]>
        brightness (float[batch, 3, {size}, {size}] images)
            => (int64[found] batch_index, float[found, 4] boxes, float[found] scores, int64[found] labels)
            <int64[3] axes = {{1, 2, 3}}, float white = {{255}}, float half = {{0.5}}, int64[1] zeroth = {{0}},
             float[1, 4] box = {{8, 8, 40, 40}}>
        {{
            means = ReduceMean <keepdims = 0> (images, axes)
            places = NonZero (means)
            batch_index = Squeeze (places, zeroth)
            above_zero = Gather (means, batch_index)
            scores = Div (above_zero, white)
            bright = Greater (scores, half)
            labels = Cast <to = 7> (bright)
            count = Shape (batch_index)
            four = Shape <start = 1, end = 2> (box)
            shape = Concat <axis = 0> (count, four)
            boxes = Expand (box, shape)
        }}""").SerializeToString()


def pack(folder: Path, size: int, classes: tuple[str, str], threshold: float, photo: Any) -> PackedService:
    """Pack the model for inputs of `size` x `size`; `folder` then has `model.onnx`, `photo.png` and `bento`."""
    model = brightness_model(size)
    (folder / "model.onnx").write_bytes(model)
    cv2.imwrite(str(folder / "photo.png"), photo)
    digest = hashlib.sha256(model).hexdigest()
    metadata = ModelMetadata("nano", (size, size), classes, 0.01, 0.65, threshold, digest)
    return pack_service(folder / "model.onnx", metadata, folder / "photo.png", folder / "bento")
