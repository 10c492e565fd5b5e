"""Export of a checkpoint to one ONNX file, from letterboxed pixels to detections.

torch exports the network and its decoding. Suppression is appended as standard ONNX operators, so that the file runs
wherever ONNX Runtime does, and serving needs no detection code.
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

import onnx
import torch
from onnx import TensorProto, helper
from torch import nn

from pipeline.detection.checkpoints import fit, read_checkpoint
from pipeline.detection.families import FAMILY
from pipeline.errors import StepError
from pipeline.serving.model_metadata import ModelMetadata

log = logging.getLogger(__name__)

INPUT = "images"
OUTPUTS = ("batch_index", "boxes", "scores", "labels")
RAW_OUTPUTS = ("all_boxes", "all_scores")  # before suppression; outputs of the graph for the parity check only
THRESHOLD = "floor"  # name of the score threshold in the graph
MAX_PER_CLASS = 300
OPSET = 20


@dataclass(frozen=True)
class ExportedModel:
    """An ONNX file.

    Attributes:
        path: The file, with its weights inside.
        sha256: Digest of its bytes, in hexadecimal.
        size: Bytes.
        opset: Version of the default operator set.
    """

    path: Path
    sha256: str
    size: int
    opset: int


def load_detector(metadata: ModelMetadata, weights: Path) -> nn.Module:
    """A detector with a checkpoint's weights in evaluation mode; see `Family.exportable` for its input and output.

    Raises:
        MissingError: There is no such checkpoint.
        DataError: The checkpoint cannot be read, or is of another model.
        StepError: The checkpoint does not know every class.
    """
    model = FAMILY.build_model(metadata)
    missing = fit(read_checkpoint(weights), model, metadata.classes).fresh
    if missing:
        problem = f"the weights do not know every class: {', '.join(missing)} are missing"
        raise StepError(problem, where=weights, expected=", ".join(metadata.classes))
    return FAMILY.exportable(model).eval()


def export_onnx(metadata: ModelMetadata, weights: Path, path: Path) -> ExportedModel:
    """Export a checkpoint as an ONNX file with a dynamic batch axis.

    Input `images` `(B, 3, S, S)`; outputs over the whole batch: `batch_index` `(M,)` int64, `boxes` `(M, 4)` in
    letterboxed pixels, `scores` `(M,)`, `labels` `(M,)` int64. The file's metadata has the classes, the image size and
    the thresholds.

    Args:
        metadata: The detector.
        weights: Its checkpoint.
        path: The file to write.

    Raises:
        StepError: torch cannot export the model, or ONNX's checker refuses the result.
    """
    log.info("exporting %s-%s to ONNX", FAMILY.name, metadata.variant)
    example = torch.zeros(2, 3, *metadata.image_size)
    batch = torch.export.Dim("batch", min=1, max=1024)
    # the exporter prints its stages, and warnings about torchvision
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                load_detector(metadata, weights),
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
    model = append_suppression(_without_traces(program.model_proto), metadata)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StepError(f"the exported model is not valid ONNX: {error}", where=path) from error
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return ExportedModel(path, hashlib.sha256(data).hexdigest(), len(data), OPSET)


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: stack traces with paths of this machine, which differ between runs."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    return model


def append_suppression(model: onnx.ModelProto, metadata: ModelMetadata) -> onnx.ModelProto:
    """Append per-class NonMaxSuppression to the decoded boxes and scores, and add the metadata."""
    graph = model.graph
    constants = {
        "max_per_class": helper.make_tensor("max_per_class", TensorProto.INT64, [1], [MAX_PER_CLASS]),
        "iou": helper.make_tensor("iou", TensorProto.FLOAT, [1], [metadata.nms_iou_threshold]),
        THRESHOLD: helper.make_tensor(THRESHOLD, TensorProto.FLOAT, [1], [metadata.score_threshold]),
        "image_and_anchor": helper.make_tensor("image_and_anchor", TensorProto.INT64, [2], [0, 2]),
        "first": helper.make_tensor("first", TensorProto.INT64, [], [0]),
        "second": helper.make_tensor("second", TensorProto.INT64, [], [1]),
    }
    graph.initializer.extend(constants.values())
    boxes, scores = RAW_OUTPUTS
    graph.node.extend(
        [
            # rows of (image, class, anchor); corners may come as x, y for the operator only compares them
            helper.make_node("NonMaxSuppression", [boxes, scores, "max_per_class", "iou", THRESHOLD], ["kept"]),
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
            "classes": json.dumps(list(metadata.classes)),
            "image_size": json.dumps(list(metadata.image_size)),
            "score_threshold": str(metadata.score_threshold),
            "nms_iou_threshold": str(metadata.nms_iou_threshold),
        },
    )
    return model
