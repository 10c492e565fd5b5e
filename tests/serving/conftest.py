"""A tiny real model and its metadata: finds one bright rectangle per image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.evaluation.service_process import serve
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.packing import pack_service
from pipeline.serving.predictor import Predictor

SIZE = (96, 96)
CLASSES = ("bright", "dim")


def _constant(name: Any, values: Any, dtype: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def build_bright_box_graph(size: Any = SIZE, *, batch: Any = "batch", input_name: Any = "images") -> Any:
    """ONNX graph with the served interface: per image, the box around the pixels of which green is above 200.

    Its score is the mean of the green channel over the whole input; an image without bright pixels gives nothing.
    """
    height, width = size
    node = helper.make_node
    nodes = [
        node("Gather", [input_name, "one"], ["green"], axis=1),  # (B, H, W)
        node("Greater", ["green", "bright"], ["mask"]),
        node("Cast", ["mask"], ["bits"], to=TensorProto.FLOAT),
        node("ReduceMax", ["bits", "axis1"], ["columns"], keepdims=0),  # (B, W)
        node("ReduceMax", ["bits", "axis2"], ["rows"], keepdims=0),  # (B, H)
    ]
    for line, index, low, high in (("columns", "xs", "x1", "x2"), ("rows", "ys", "y1", "y2")):
        nodes += [
            node("Mul", [line, index], [f"{line}_high"]),  # index + 1 where bright
            node("ReduceMax", [f"{line}_high", "axis1"], [high], keepdims=1),
            node("Sub", ["big", index], [f"{line}_reversed"]),
            node("Mul", [line, f"{line}_reversed"], [f"{line}_low"]),
            node("ReduceMax", [f"{line}_low", "axis1"], [f"{line}_farthest"], keepdims=1),
            node("Sub", ["big_less_one", f"{line}_farthest"], [low]),
        ]
    nodes += [
        node("Concat", ["x1", "y1", "x2", "y2"], ["all_boxes"], axis=1),  # (B, 4)
        node("ReduceMax", ["columns", "axis1"], ["found"], keepdims=0),  # (B,)
        node("Cast", ["found"], ["found_bool"], to=TensorProto.BOOL),
        node("NonZero", ["found_bool"], ["index_row"]),
        node("Squeeze", ["index_row", "axis0"], ["batch_index"]),
        node("Gather", ["all_boxes", "batch_index"], ["boxes"], axis=0),
        node("ReduceMean", ["green", "axes12"], ["mean"], keepdims=0),
        node("Div", ["mean", "scale"], ["all_scores"]),
        node("Gather", ["all_scores", "batch_index"], ["scores"], axis=0),
        node("Sub", ["batch_index", "batch_index"], ["labels"]),
    ]
    constants = [
        _constant("one", 1, np.int64),
        _constant("bright", 200, np.float32),
        _constant("axis0", [0], np.int64),
        _constant("axis1", [1], np.int64),
        _constant("axis2", [2], np.int64),
        _constant("axes12", [1, 2], np.int64),
        _constant("xs", np.arange(1, width + 1), np.float32),
        _constant("ys", np.arange(1, height + 1), np.float32),
        _constant("big", 10000, np.float32),
        _constant("big_less_one", 9999, np.float32),
        _constant("scale", 255, np.float32),
    ]
    graph = helper.make_graph(
        nodes,
        "bright_box",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [batch, 3, height, width])],
        [
            helper.make_tensor_value_info("batch_index", TensorProto.INT64, ["found"]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["found", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["found"]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["found"]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def make_metadata(onnx_bytes: Any, **changes: Any) -> Any:
    values = {
        "variant": "nano",
        "image_size": SIZE,
        "classes": CLASSES,
        "score_threshold": 0.01,
        "nms_iou_threshold": 0.65,
        "serving_score_threshold": 0.25,
        "onnx_sha256": hashlib.sha256(onnx_bytes).hexdigest(),
    }
    return ModelMetadata(**{**values, **changes})


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
    metadata = make_metadata(model)
    return SimpleNamespace(onnx_path=path, metadata=metadata, predictor=Predictor(path, metadata, threads=1))


@pytest.fixture(scope="session")
def write_model() -> Any:
    """`write_model(path, model=None, **graph)`: write a graph, the tiny one or the bytes given; its metadata."""

    def write(path: Any, model: Any = None, **graph: Any) -> Any:
        model = build_bright_box_graph(**graph) if model is None else model
        path.write_bytes(model)
        return make_metadata(model)

    return write


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
