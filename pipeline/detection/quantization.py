"""Static quantisation of an exported model to INT8, calibrated on training images.

What is quantised, and why, as measured on 159 photographs of COCO with YOLOX-nano at 416 px (mAP 0.273 in fp32):

- Weights per channel, with 8 bits. With 7, sums could not overflow on x86 CPUs without VNNI, but 0.006 are lost; such
  CPUs gain little from INT8 anyway.
- Convolutions alone. Depthwise ones and the first one, whose inputs differ much between channels, stay in float (mAP
  0.09 with them, 0.25 without), as do the last ones with all that follows: the decoding tail, and suppression.
- The outputs of convolutions only for ONNX Runtime, which otherwise computes in float. OpenVINO needs no such rounding
  before the activation, and loses next to nothing without it (0.272).
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from pipeline.detection.export import ExportedModel
from pipeline.errors import DataError
from pipeline.serving.backend import INPUT
from pipeline.serving.decoding import decode
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.onnxruntime_backend import onnxruntime as onnxruntime  # loaded first, without telemetry
from pipeline.serving.preprocessing import letterbox, stack

# isort: split
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 100


def calibration_images(paths: Sequence[Path]) -> list[Path]:
    """Choose up to 100 images for calibration: evenly spaced in the order of their paths, so always the same."""
    ordered, count = sorted(paths), min(len(paths), CALIBRATION_IMAGES)
    return [ordered[index * len(ordered) // count] for index in range(count)]


def quantize(
    model: Path, images: Sequence[Path], metadata: ModelMetadata, path: Path, *, quantize_outputs: bool
) -> ExportedModel:
    """Quantise an exported ONNX file; the same images give the same bytes.

    Args:
        model: The file in fp32.
        images: Training images, in which the range of every tensor is found. They are prepared as the service does it;
            of each that it would cut into tiles, one view is taken, of the first its whole, of the next its first tile.
        metadata: Of the model.
        path: The file to write.
        quantize_outputs: Whether convolutions give INT8, too, as ONNX Runtime needs it; OpenVINO does not.

    Raises:
        DataError: There is no image, or one cannot be read.
    """
    if not images:
        raise DataError("there is no image to calibrate INT8 with", expected="at least one training image")
    log.info("quantising to INT8, calibrated on %d training images", len(images))
    with tempfile.TemporaryDirectory(prefix="int8-") as scratch:
        prepared, quantized = Path(scratch, "prepared.onnx"), Path(scratch, "quantized.onnx")
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _CalibrationImages(images, metadata),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept_in_float(onnx.load(str(prepared))),
            extra_options={} if quantize_outputs else {"OpTypesToExcludeOutputQuantization": ["Conv"]},
        )
        result = onnx.load(str(quantized))
    data = result.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return ExportedModel(path, hashlib.sha256(data).hexdigest(), len(data))


def kept_in_float(model: onnx.ModelProto) -> list[str]:
    """The nodes that are not quantised: the first convolution, depthwise ones, the last ones, and what follows them."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    leads_to_convolution: set[str] = set()
    for node in reversed(model.graph.node):  # in topological order, as ONNX requires
        following = [user for name in node.output for user in users.get(name, [])]
        if any(user.op_type == "Conv" or user.name in leads_to_convolution for user in following):
            leads_to_convolution.add(node.name)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    depthwise = [node.name for node in convolutions if any(a.name == "group" and a.i > 1 for a in node.attribute)]
    tail = [node.name for node in model.graph.node if node.name not in leads_to_convolution]
    return list(dict.fromkeys([*(node.name for node in convolutions[:1]), *depthwise, *tail]))


class _CalibrationImages(CalibrationDataReader):  # type: ignore[misc]  # its type is not followed
    """Gives one image after the other to ONNX Runtime's calibration."""

    def __init__(self, images: Sequence[Path], metadata: ModelMetadata) -> None:
        self._batches: Iterator[NDArray[np.float32]] = (
            stack([letterbox(_view(decode(path.read_bytes()), number, metadata), metadata.image_size)])
            for number, path in enumerate(images)
        )

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next batch, or None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


def _view(image: NDArray[np.uint8], number: int, metadata: ModelMetadata) -> NDArray[np.uint8]:
    """The image or one of its tiles: another of each image of a row."""
    tiles = metadata.tiling.tiles(image.shape[1], image.shape[0])
    place = number % (len(tiles) + 1)
    return tiles[place - 1].of(image) if place else image
