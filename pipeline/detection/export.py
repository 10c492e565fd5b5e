"""From weights to one ONNX file that takes letterboxed pixels and gives detections.

The network and its decoding are exported by torch; suppression is appended in standard ONNX operators, so the file runs
wherever ONNX Runtime does and serving needs no detection code.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from pipeline.detection.checkpoints import fit, read_checkpoint
from pipeline.detection.families.yolox.mmdet_config import build_model
from pipeline.detection.spec import DetectorSpec
from pipeline.errors import StepError

log = logging.getLogger(__name__)

INPUT = "images"
OUTPUTS = ("batch_index", "boxes", "scores", "labels")
RAW_OUTPUTS = ("all_boxes", "all_scores")  # before suppression; inside the graph, and outputs only for the parity check
FLOOR = "floor"  # name of the score threshold in the graph
MAX_PER_CLASS = 300
OPSET = 20


@dataclass(frozen=True)
class ExportedModel:
    """An ONNX file.

    Attributes:
        path: Where it is; its weights are inside.
        sha256: Of its bytes.
        size: Bytes.
        opset: Of the default operator set.
    """

    path: Path
    sha256: str
    size: int
    opset: int


class DecodedYolox(nn.Module):
    """mmdet's YOLOX from pixels to every candidate box, without suppression."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every anchor.

        Args:
            images: `(B, 3, S, S)` float32, BGR 0..255, letterboxed.

        Returns:
            Boxes `(B, N, 4)` as x1, y1, x2, y2 in letterboxed pixels, and scores `(B, C, N)`: objectness times class
            score at each anchor's best class and 0 at its others, as mmdet gives an anchor one label.
        """
        head = self.model.bbox_head
        classes, deltas, objectness = head(self.model.neck(self.model.backbone(images)))
        sizes = [(level.shape[2], level.shape[3]) for level in classes]
        priors = torch.cat(
            head.prior_generator.grid_priors(sizes, dtype=images.dtype, device=images.device, with_stride=True)
        )
        class_scores = torch.cat([level.flatten(2) for level in classes], 2).sigmoid()
        object_scores = torch.cat([level.flatten(2) for level in objectness], 2).sigmoid()
        boxes = head._bbox_decode(priors, torch.cat([level.flatten(2) for level in deltas], 2).transpose(1, 2))
        best, label = class_scores.max(1, keepdim=True)
        is_best = torch.arange(class_scores.shape[1], device=images.device)[None, :, None] == label
        return boxes, torch.where(is_best, best * object_scores, torch.zeros_like(class_scores))


def load_detector(spec: DetectorSpec, weights: Path) -> DecodedYolox:
    """A detector in evaluation mode with a checkpoint's weights.

    Raises:
        MissingError, DataError: The checkpoint is absent, unreadable or of another model.
    """
    model = build_model(spec)
    carried = fit(read_checkpoint(weights), model, spec.classes)
    if carried.fresh:
        raise StepError("the weights do not know every class", where=weights, expected=", ".join(spec.classes))
    return DecodedYolox(model).eval()


def export_onnx(spec: DetectorSpec, weights: Path, path: Path) -> ExportedModel:
    """Export a checkpoint as an ONNX file with a dynamic batch axis.

    Input `images` `(B, 3, S, S)`; outputs over the whole batch: `batch_index` `(M,)` int64, `boxes` `(M, 4)` in
    letterboxed pixels, `scores` `(M,)`, `labels` `(M,)` int64. Classes, size and thresholds stand in its metadata.

    Args:
        spec: The detector.
        weights: Its checkpoint.
        path: The file to write.

    Raises:
        StepError: torch cannot export the model, or ONNX's checker refuses the result.
    """
    log.info("exporting YOLOX-%s to ONNX", spec.variant)
    example = torch.zeros(2, 3, *spec.image_size)
    batch = torch.export.Dim("batch", min=1, max=1024)
    # the exporter lists its stages, and warns of absent torchvision, on streams of its own
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                load_detector(spec, weights),
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(RAW_OUTPUTS),
                dynamic_shapes={"images": {0: batch}},
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise StepError(f"torch cannot export the model: {error}", where="torch.onnx.export") from error
    if program is None:
        raise StepError("torch returned no ONNX program", where="torch.onnx.export")
    model = append_suppression(_without_traces(program.model_proto), spec)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StepError(f"the exported model is not valid ONNX: {error}", where=path) from error
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return ExportedModel(path, hashlib.sha256(data).hexdigest(), len(data), OPSET)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: they hold stack traces with this machine's paths, and differ from run to run."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def append_suppression(model: onnx.ModelProto, spec: DetectorSpec) -> onnx.ModelProto:
    """Add per-class NonMaxSuppression behind the decoded boxes and scores, and the spec as metadata."""
    graph = model.graph
    constants = {
        "max_per_class": helper.make_tensor("max_per_class", TensorProto.INT64, [1], [MAX_PER_CLASS]),
        "iou": helper.make_tensor("iou", TensorProto.FLOAT, [1], [spec.nms_iou_threshold]),
        FLOOR: helper.make_tensor(FLOOR, TensorProto.FLOAT, [1], [spec.score_threshold]),
        "image_and_anchor": helper.make_tensor("image_and_anchor", TensorProto.INT64, [2], [0, 2]),
        "first": helper.make_tensor("first", TensorProto.INT64, [], [0]),
        "second": helper.make_tensor("second", TensorProto.INT64, [], [1]),
    }
    graph.initializer.extend(constants.values())
    boxes, scores = RAW_OUTPUTS
    graph.node.extend(
        [
            # rows of (image, class, anchor); corners may come as x, y for the operator only compares them
            helper.make_node("NonMaxSuppression", [boxes, scores, "max_per_class", "iou", FLOOR], ["kept"]),
            helper.make_node("Gather", ["kept", "first"], ["batch_index"], axis=1),
            helper.make_node("Gather", ["kept", "second"], ["labels"], axis=1),
            helper.make_node("Gather", ["kept", "image_and_anchor"], ["kept_anchor"], axis=1),
            helper.make_node("GatherND", [boxes, "kept_anchor"], ["boxes"]),
            helper.make_node("GatherND", [scores, "kept"], ["scores"]),
        ]
    )
    del graph.output[:]
    types = {"boxes": (TensorProto.FLOAT, ["detections", 4]), "scores": (TensorProto.FLOAT, ["detections"])}
    for name in OUTPUTS:
        kind, shape = types.get(name, (TensorProto.INT64, ["detections"]))
        graph.output.append(helper.make_tensor_value_info(name, kind, shape))
    helper.set_model_props(
        model,
        {
            "classes": json.dumps(list(spec.classes)),
            "image_size": json.dumps(list(spec.image_size)),
            "score_threshold": str(spec.score_threshold),
            "nms_iou_threshold": str(spec.nms_iou_threshold),
        },
    )
    return model
