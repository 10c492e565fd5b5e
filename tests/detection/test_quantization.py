"""INT8: which nodes are quantised, the same bytes for the same images, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.detection.quantization import CALIBRATION_IMAGES, calibration_images, kept_in_float, quantize
from pipeline.errors import DataError
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.onnxruntime_backend import onnxruntime

SIZE = (32, 32)
METADATA = ModelMetadata("nano", SIZE, ("disc",))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """stem, depthwise and pointwise convolutions, then a last one with a tail of Sigmoid and Exp."""
    rng = np.random.default_rng(0)
    shapes = {"stem": (8, 3, 3, 3), "depthwise": (8, 1, 3, 3), "middle": (8, 8, 1, 1), "last": (4, 8, 1, 1)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), f"{name}_w")
               for name, shape in shapes.items()]  # fmt: skip
    nodes, value = [], "images"
    for name, shape in shapes.items():
        pads = [shape[2] // 2] * 4
        group = 8 if name == "depthwise" else 1
        nodes.append(helper.make_node("Conv", [value, f"{name}_w"], [name], name, pads=pads, group=group))
        if name != "last":
            nodes.append(helper.make_node("Sigmoid", [name], [f"{name}_s"], f"{name}_sigmoid"))
            nodes.append(helper.make_node("Mul", [name, f"{name}_s"], [f"{name}_m"], f"{name}_mul"))
            value = f"{name}_m"
    nodes += [helper.make_node("Sigmoid", ["last"], ["score"], "tail_sigmoid"),
              helper.make_node("Exp", ["score"], ["out"], "tail_exp")]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", channels, *SIZE])
            for name, channels in (("images", 3), ("out", 4))]  # fmt: skip
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    rng, folder = np.random.default_rng(1), tmp_path_factory.mktemp("images")
    for number in range(6):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 255, (40, 30, 3), np.uint8))
    return sorted(folder.iterdir())


def test_the_first_the_depthwise_and_the_last_convolution_and_the_tail_stay_in_float(small: Path) -> None:
    kept = kept_in_float(onnx.load(str(small)))
    assert kept[:2] == ["stem", "depthwise"]
    assert set(kept) == {"stem", "depthwise", "last", "tail_sigmoid", "tail_exp"}


@pytest.mark.parametrize("quantize_outputs", [True, False])
def test_what_is_written(small: Path, images: list[Path], tmp_path: Path, quantize_outputs: bool) -> None:
    one = quantize(small, images, METADATA, tmp_path / "one.onnx", quantize_outputs=quantize_outputs)
    two = quantize(small, images, METADATA, tmp_path / "two.onnx", quantize_outputs=quantize_outputs)
    content = one.path.read_bytes()
    assert content == two.path.read_bytes(), "the same images give the same bytes"
    assert (one.sha256, one.size) == (hashlib.sha256(content).hexdigest(), len(content))
    model = onnx.load(str(one.path))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") == (2 if quantize_outputs else 1)
    weights = {each.name: each for each in model.graph.initializer}
    assert weights["middle_w_quantized"].data_type == TensorProto.INT8
    assert len(numpy_helper.to_array(weights["middle_w_scale"])) == 8, "a scale for each channel"
    assert {name for name in weights if name.endswith("_w")} == {"stem_w", "depthwise_w", "last_w"}
    pixels = np.random.default_rng(2).integers(0, 255, (2, 3, *SIZE)).astype(np.float32)
    sessions = [onnxruntime.InferenceSession(str(path)) for path in (small, one.path)]
    before, after = (session.run(None, {"images": pixels})[0] for session in sessions)
    assert 0 < np.abs(before - after).mean() < 0.05


def test_the_images_of_the_calibration_are_always_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:04}.jpg" for number in range(1234)]
    chosen = calibration_images(paths[::-1])
    assert len(chosen) == CALIBRATION_IMAGES
    assert chosen == sorted(set(chosen)) == calibration_images(paths)
    assert calibration_images(paths[:7]) == paths[:7]
    assert calibration_images([]) == []


def test_a_model_in_tiles_is_calibrated_on_tiles(small: Path, tmp_path: Path) -> None:
    """Of two large images, the whole of the first and the first tile of the second."""
    rng, large = np.random.default_rng(3), []
    for number in range(2):
        large.append(tmp_path / f"{number}.png")
        cv2.imwrite(str(large[-1]), rng.integers(0, 255, (100, 90, 3), np.uint8))
    tile = tmp_path / "tile.png"
    cv2.imwrite(str(tile), cv2.imread(str(large[1]))[:32, :32])
    expected = quantize(small, [large[0], tile], METADATA, tmp_path / "one.onnx", quantize_outputs=True)
    tiled = replace(METADATA, tile=32)
    assert quantize(small, large, tiled, tmp_path / "two.onnx", quantize_outputs=True).sha256 == expected.sha256
    assert quantize(small, large, METADATA, tmp_path / "three.onnx", quantize_outputs=True).sha256 != expected.sha256


def test_without_an_image_it_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image to calibrate"):
        quantize(small, [], METADATA, tmp_path / "one.onnx", quantize_outputs=True)
    assert not list(tmp_path.iterdir())
