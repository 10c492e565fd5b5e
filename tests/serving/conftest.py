"""A tiny real model and its metadata: finds one bright rectangle per image."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx.parser
import pytest

from pipeline.evaluation.service_process import serve
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service
from pipeline.serving.predictor import Predictor

SIZE = (96, 96)
CLASSES = ("bright", "dim")


def build_bright_box_graph() -> bytes:
    """ONNX graph with the served interface: per image, the box around the pixels of which green is above 200.

    Its score is the mean of the green channel over the whole input; an image without bright pixels gives nothing.
    """
    height, width = SIZE
    ends = "".join(
        f"""
            {line} = ReduceMax <keepdims = 0> (bits, {across})
            {end} = Cast <to = 1> ({end}_place)
            {line}_place = Range (one, {end}, one)
            {line}_high = Mul ({line}, {line}_place)
            {high} = ReduceMax <keepdims = 1> ({line}_high, first)
            {line}_reversed = Sub (big, {line}_place)
            {line}_low = Mul ({line}, {line}_reversed)
            {line}_farthest = ReduceMax <keepdims = 1> ({line}_low, first)
            {low} = Sub (less, {line}_farthest)"""
        for line, across, end, low, high in (
            ("columns", "first", "width", "x1", "x2"),
            ("rows", "second", "height", "y1", "y2"),
        )
    )
    return onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 18]>
        bright_box (float[batch, 3, {height}, {width}] images)
            => (int64[found] batch_index, float[found, 4] boxes, float[found] scores, int64[found] labels)
            <int64 green_channel = {{1}}, float bright = {{200}}, float white = {{255}}, float big = {{10000}},
             float less = {{9999}}, float one = {{1}}, int64[1] zeroth = {{0}}, int64[1] first = {{1}},
             int64[1] second = {{2}}, int64[2] plane = {{1, 2}}, int64 width_place = {{{width + 1}}},
             int64 height_place = {{{height + 1}}}>
        {{
            green = Gather <axis = 1> (images, green_channel)
            mask = Greater (green, bright)
            bits = Cast <to = 1> (mask){ends}
            all_boxes = Concat <axis = 1> (x1, y1, x2, y2)
            any = ReduceMax <keepdims = 0> (columns, first)
            found_any = Cast <to = 9> (any)
            places = NonZero (found_any)
            batch_index = Squeeze (places, zeroth)
            boxes = Gather <axis = 0> (all_boxes, batch_index)
            mean = ReduceMean <keepdims = 0> (green, plane)
            all_scores = Div (mean, white)
            scores = Gather <axis = 0> (all_scores, batch_index)
            labels = Sub (batch_index, batch_index)
        }}""").SerializeToString()


def bright_image(width: Any = 200, height: Any = 120, box: Any = (40, 20, 140, 80)) -> Any:
    """Grey picture, (height, width, 3), with one white rectangle `box` (x1, y1, x2, y2)."""
    image = np.full((height, width, 3), 60, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return image


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of one bright box per image, 96 x 96."""
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    model = build_bright_box_graph()
    path.write_bytes(model)
    metadata = ModelMetadata("nano", SIZE, CLASSES, 0.01, 0.65, 0.25, hashlib.sha256(model).hexdigest())
    return SimpleNamespace(onnx_path=path, metadata=metadata, predictor=Predictor(path, metadata))


@pytest.fixture(scope="session")
def picture() -> Any:
    """`picture(width, height, box)`: a grey picture with one white rectangle."""
    return bright_image


@pytest.fixture(scope="session")
def packed(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny model, packed once as a Bento."""
    folder = tmp_path_factory.mktemp("packed")
    cv2.imwrite(str(folder / "photo.png"), bright_image())
    return pack_service(tiny.onnx_path, tiny.metadata, folder / "photo.png", folder / "bento")


@pytest.fixture(scope="session")
def server(packed: Any) -> Iterator[Any]:
    """The packed tiny model, served for real."""
    with serve(packed.folder) as running:
        yield running


@pytest.fixture(scope="session")
def bomb() -> bytes:
    """A small PNG of a huge grey picture, 13,000 x 13,000: its rows are zeros, which deflate shrinks a thousandfold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(13_001 * 13_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
