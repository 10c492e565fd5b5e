"""Export of a checkpoint to one ONNX file, from letterboxed pixels to detections, and its parity with PyTorch.

torch exports the network and its decoding. Suppression is appended as standard ONNX operators, so that the file runs
wherever ONNX Runtime does, and serving needs no detection code.

Two comparisons show parity of the whole graph. First the best boxes and every score before suppression are compared
with PyTorch's; then the file's detections are compared with an exact greedy suppression of its own candidates. So a
difference in the last bit of two near-equal scores, which may reorder a suppression, is no error, and every other
difference is. Where a detector finds next to nothing, the same graph runs again with the score threshold of its best
candidates, so that its suppression has work to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from pipeline.detection.checkpoints import fit, read_checkpoint
from pipeline.detection.families import family_of
from pipeline.detection.mmcv_ops import nms
from pipeline.errors import StepError
from pipeline.serving.backend import INPUT, OUTPUTS
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.onnxruntime_backend import onnxruntime

log = logging.getLogger(__name__)

RAW_OUTPUTS = ("all_boxes", "all_scores")  # before suppression; outputs of the graph for the parity check only
THRESHOLD = "floor"  # name of the score threshold in the graph
MAX_PER_CLASS = 300
OPSET = 20

BOX_TOLERANCE = 0.01  # pixels
SCORE_TOLERANCE = 1e-4
LEAST_COMPARED = 100  # best boxes per image that are compared even where none reaches the score threshold


@dataclass(frozen=True)
class ExportedModel:
    """An ONNX file, with its weights inside."""

    path: Path
    sha256: str  # in hexadecimal
    size: int  # in bytes


def load_detector(metadata: ModelMetadata, weights: Path) -> nn.Module:
    """A detector with a checkpoint's weights in evaluation mode; see `Family.exportable` for its input and output."""
    family = family_of(metadata)
    checkpoint = read_checkpoint(weights, family)
    if missing := [name for name in metadata.classes if name not in checkpoint.classes]:
        problem = f"the weights do not know every class: {', '.join(missing)} are missing"
        raise StepError(problem, where=weights, expected=", ".join(metadata.classes))
    model = family.build_model(metadata)
    fit(checkpoint, model, metadata.classes)
    return family.exportable(model).eval()


def export_onnx(metadata: ModelMetadata, weights: Path, path: Path) -> ExportedModel:
    """Export a checkpoint as an ONNX file with a dynamic batch axis.

    Input `images` `(B, 3, S, S)`; outputs over the whole batch: `batch_index` `(M,)` int64, `boxes` `(M, 4)` in
    letterboxed pixels, `scores` `(M,)`, `labels` `(M,)` int64. The file's metadata has the classes, the image size and
    the thresholds.

    Raises:
        StepError: torch cannot export the model, or ONNX's checker refuses the result.
    """
    log.info("exporting %s to ONNX", metadata.name)
    # the exporter prints its stages, and warnings about torchvision
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(name).setLevel(logging.ERROR)
    detector = load_detector(metadata, weights)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            program: Any = torch.onnx.export(
                detector,
                (torch.zeros(2, 3, *metadata.image_size),),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(RAW_OUTPUTS),
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=1024)}},
            )
            model: onnx.ModelProto = program.model_proto
            _remove_traces(model)
            _append_suppression(model, metadata)
            onnx.checker.check_model(model, full_check=True)
        except torch.onnx.errors.OnnxExporterError as error:
            raise StepError(f"torch cannot export the model: {error}", where="torch.onnx.export") from error
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise StepError(f"the exported model is not valid ONNX: {error}", where=path) from error
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    return ExportedModel(path, hashlib.sha256(data).hexdigest(), len(data))


def _remove_traces(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: stack traces with paths of this machine, which differ between runs."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:]
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def _append_suppression(model: onnx.ModelProto, metadata: ModelMetadata) -> None:
    """Append per-class NonMaxSuppression to the decoded boxes and scores, and add the metadata."""
    graph, integer, real = model.graph, TensorProto.INT64, TensorProto.FLOAT
    boxes, scores = RAW_OUTPUTS
    graph.initializer.extend(
        [
            helper.make_tensor("max_per_class", integer, [1], [MAX_PER_CLASS]),
            helper.make_tensor("iou", real, [1], [metadata.nms_iou_threshold]),
            helper.make_tensor(THRESHOLD, real, [1], [metadata.score_threshold]),
            helper.make_tensor("image_and_anchor", integer, [2], [0, 2]),
            helper.make_tensor("first", integer, [], [0]),
            helper.make_tensor("second", integer, [], [1]),
        ]
    )
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
    types = {"boxes": (real, ["detections", 4]), "scores": (real, ["detections"])}
    for name in OUTPUTS:
        graph.output.append(helper.make_tensor_value_info(name, *types.get(name, (integer, ["detections"]))))
    names = ("classes", "image_size", "score_threshold", "nms_iou_threshold")
    helper.set_model_props(model, {name: json.dumps(getattr(metadata, name)) for name in names})


def check_parity(
    metadata: ModelMetadata, weights: Path, model: Path, images: list[Path]
) -> tuple[dict[str, Any], list[str]]:
    """Compare an exported file with its checkpoint on at least one real image, letterboxed as mmdet does it.

    Each image is compared alone, and all as one batch. Before suppression, boxes are compared above the score threshold
    (and the best 100 of each image in any case), and the scores of every anchor and class.

    Returns:
        The figures as metrics: boxes compared before suppression, candidates that the suppression was compared on,
        detections, and the largest differences, of a corner in letterboxed pixels; the differences are None where no
        score is above 0, so that no suppression could be compared. And sentences that a user must read; none where the
        detector found something.

    Raises:
        DataError: An image cannot be read.
        StepError: A box differs by more than 0.01 px, a score by more than 1e-4, or the file suppresses other boxes
            than an exact greedy suppression.
    """
    pixels = family_of(metadata).letterbox(images, metadata.image_size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # mmdet's backbone names torch.cuda.amp
        boxes, scores = (value.numpy() for value in load_detector(metadata, weights)(torch.from_numpy(pixels)))
    session = _session_with_candidates(model)
    whole = session.run(None, {INPUT: pixels})
    single = [session.run(None, {INPUT: pixels[i : i + 1]})[len(OUTPUTS) :] for i in range(len(pixels))]
    best = scores.max(1)  # (B, N)
    least = np.sort(best, 1)[:, -min(LEAST_COMPARED, best.shape[1]), None]
    compared = best >= np.minimum(least, metadata.score_threshold)
    runs = (whole[len(OUTPUTS) :], [np.concatenate(values) for values in zip(*single, strict=True)])
    box_difference = max(float(np.abs(run[0] - boxes)[compared].max()) for run in runs)
    score_difference = max(float(_score_differences(run, (boxes, scores)).max()) for run in runs)
    if not (box_difference <= BOX_TOLERANCE and score_difference <= SCORE_TOLERANCE):  # also refuses NaN
        raise StepError(
            f"the exported model differs from PyTorch: a box by {box_difference:.3g} px, a score by "
            f"{score_difference:.3g}",
            where=model,
            expected=f"at most {BOX_TOLERANCE:g} px and {SCORE_TOLERANCE:g}",
            remedy="report it with the versions of torch, onnx and onnxruntime; do not serve this file",
        )
    candidates = _check_suppression(whole, metadata.score_threshold, metadata.nms_iou_threshold, model)
    if candidates < LEAST_COMPARED:
        # just below the best scores, never below 0, which is no score
        lowest = np.sort(whole[-1].max(1).ravel())[-LEAST_COMPARED * len(pixels) :][0]
        threshold = max(0.0, float(np.nextafter(lowest, np.float32(-1))))
        lowered = _session_with_candidates(model, threshold).run(None, {INPUT: pixels})
        candidates = _check_suppression(lowered, threshold, metadata.nms_iou_threshold, model)
    detections, notes = len(whole[2]), []
    if not candidates:
        notes = [f"parity is not shown: no box of {len(images)} images has a score above 0"]
    elif not detections:
        measured = f"parity was measured on its {candidates} best boxes"
        notes = [f"the model finds nothing in {len(images)} images; {measured}"]
    figures = {
        "parity_images": len(images),
        "parity_compared": int(compared.sum()),
        "parity_candidates": candidates,
        "parity_detections": detections,
        "parity_max_box_difference": box_difference if candidates else None,
        "parity_max_score_difference": score_difference if candidates else None,
    }
    return figures, notes


def _score_differences(found: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Differences of all scores `(B, C, N)`; none where one graph alone drops a box for having no area.

    A detector may give such a box a score of 0, and a side within the tolerance of boxes may have no length for either
    graph.
    """
    differences: NDArray[Any] = np.abs(found[1] - expected[1])
    sides = expected[0][..., 2:] - expected[0][..., :2]
    thin = (np.abs(sides) <= BOX_TOLERANCE).any(-1)[:, None]
    differences[thin & ((found[1] == 0) | (expected[1] == 0))] = 0
    return differences


def _check_suppression(outputs: list[NDArray[Any]], threshold: float, iou_threshold: float, model: Path) -> int:
    """Compare the file's detections with a greedy suppression of its own candidates, class by class; count these."""
    batch_index, boxes, scores, labels, all_boxes, all_scores = outputs
    found = {
        (int(i), int(c), *np.round(box, 3).tolist(), round(float(s), 6))
        for i, c, box, s in zip(batch_index, labels, boxes, scores, strict=True)
    }
    expected, candidates = set(), 0
    for image, class_scores in enumerate(all_scores):
        for label, row in enumerate(class_scores):
            chosen = np.flatnonzero(row > np.float32(threshold))
            candidates += len(chosen)
            kept = nms(torch.from_numpy(all_boxes[image][chosen]), torch.from_numpy(row[chosen]), iou_threshold)
            expected |= {
                (image, label, *np.round(all_boxes[image][k], 3).tolist(), round(float(row[k]), 6))
                for k in chosen[kept[:MAX_PER_CLASS].numpy()]
            }
    if found != expected:
        many, few = len(found - expected), len(expected - found)
        raise StepError(
            f"the exported model suppresses other boxes: {many} too many, {few} missing",
            where=model,
            expected="the result of an exact greedy suppression",
            remedy="report it with the versions of onnx and onnxruntime; do not serve this file",
        )
    return candidates


def _session_with_candidates(path: Path, threshold: float | None = None) -> Any:
    """A session of the file's graph with its candidates as further outputs, perhaps with another score threshold."""
    model = onnx.load(str(path))
    if threshold is not None:
        [stored] = [tensor for tensor in model.graph.initializer if tensor.name == THRESHOLD]
        stored.CopyFrom(helper.make_tensor(THRESHOLD, TensorProto.FLOAT, [1], [threshold]))
    for name in RAW_OUTPUTS:
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
