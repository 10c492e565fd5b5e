"""The detector in ONNX Runtime: from letterboxed pixels to detections."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Without it ONNX Runtime 1.29 and later write a device id below the user's home and report every session to Microsoft.
# It must be set before the library is loaded (microsoft/onnxruntime, docs/Privacy.md). Users who want to report set 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime  # exported: nobody else may load it first
from onnxruntime.capi import onnxruntime_pybind11_state as runtime_errors

from pipeline.errors import DataError, IntegrityError, MissingError
from pipeline.serving.decoding import MAX_PIXELS, decode
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.postprocessing import Detections, split_detections
from pipeline.serving.preprocessing import Letterboxed, letterbox, stack

INPUT = "images"
OUTPUTS = ("batch_index", "boxes", "scores", "labels")
MAX_BATCH = 8
"""Images per run of the graph. A CPU gains nothing from batches, and loses with larger ones (16: 50 images/s, one by
one: 61, YOLOX-nano at 416 px on two CPUs); a GPU gains."""

_LOAD_ERRORS = (
    runtime_errors.Fail,
    runtime_errors.InvalidArgument,
    runtime_errors.InvalidGraph,
    runtime_errors.InvalidProtobuf,
    runtime_errors.NotImplemented,
    runtime_errors.RuntimeException,
)


class Predictor:
    """A packed model on the GPU where ONNX Runtime has one, else on the CPU.

    Args:
        onnx_path: The graph: input `images` (B, 3, H, W) float32, outputs `batch_index` (M,), `boxes` (M, 4),
            `scores` (M,) and `labels` (M,) over the whole batch.
        metadata: What the graph was made for.
        threads: CPU threads of a run; None: as many as this process may use.

    Raises:
        MissingError: There is no such file.
        IntegrityError: The file is not the one that the metadata names.
        DataError: The file is no ONNX graph, or one with other inputs or outputs than the metadata says.
    """

    def __init__(self, onnx_path: Path, metadata: ModelMetadata, *, threads: int | None = None) -> None:
        self.metadata = metadata
        self._session = _open_session(_read_model(onnx_path, metadata), onnx_path, threads or available_cpus())
        _check_interface(self._session, onnx_path, metadata)

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers in use, the preferred one first."""
        return list(self._session.get_providers())

    def prepare(self, image: NDArray[np.uint8]) -> Letterboxed:
        """Letterbox an image, (H, W, 3) uint8 BGR, to the graph's input size."""
        return letterbox(image, self.metadata.image_size)

    def detect(self, images: Sequence[Letterboxed], *, score_threshold: float | None = None) -> list[Detections]:
        """Run the graph on prepared images.

        Args:
            images: Any number, in batches of at most `MAX_BATCH`.
            score_threshold: Detections with a lower score are dropped; None: the metadata's serving threshold. The
                graph itself drops those below the metadata's `score_threshold`.

        Returns:
            One `Detections` per image, in order; each is the same whatever else is in the batch.
        """
        threshold = self.metadata.serving_score_threshold if score_threshold is None else score_threshold
        found: list[Detections] = []
        for start in range(0, len(images), MAX_BATCH):
            batch = list(images[start : start + MAX_BATCH])
            batch_index, boxes, scores, labels = self._session.run(list(OUTPUTS), {INPUT: stack(batch)})
            found += split_detections(batch_index, boxes, scores, labels, batch, score_threshold=threshold)
        return found

    def predict(self, images: Sequence[NDArray[np.uint8]], *, score_threshold: float | None = None) -> list[Detections]:
        """Detect objects in decoded images, each (H, W, 3) uint8 BGR; see `detect`."""
        return self.detect([self.prepare(image) for image in images], score_threshold=score_threshold)

    def predict_bytes(
        self, files: Sequence[bytes], *, score_threshold: float | None = None, max_pixels: int = MAX_PIXELS
    ) -> list[Detections]:
        """Detect objects in image files; see `decode` for what is accepted and `detect` for the rest."""
        images = [self.prepare(decode(data, max_pixels=max_pixels)) for data in files]
        return self.detect(images, score_threshold=score_threshold)


def available_cpus() -> int:
    """Number of CPUs that this process may use; fewer than the machine's in a container or under `taskset`."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _read_model(path: Path, metadata: ModelMetadata) -> bytes:
    try:
        model = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingError("there is no ONNX model", where=path, remedy="pack the model again") from error
    digest = hashlib.sha256(model).hexdigest()
    if digest != metadata.onnx_sha256:
        raise IntegrityError(
            f"the ONNX model has SHA-256 {digest}",
            where=path,
            expected=metadata.onnx_sha256,
            remedy="pack the model again",
        )
    return model


def _open_session(model: bytes, path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads that spin while they wait would slow down those that decode the next images
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    available = onnxruntime.get_available_providers()
    providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    try:
        return onnxruntime.InferenceSession(model, options, providers=providers)
    except _LOAD_ERRORS as error:
        raise DataError(f"not a usable ONNX model: {error}", where=path) from error


def _check_interface(session: onnxruntime.InferenceSession, path: Path, metadata: ModelMetadata) -> None:
    inputs = {one.name: (one.type, one.shape) for one in session.get_inputs()}
    outputs = [one.name for one in session.get_outputs()]
    kind, shape = inputs.get(INPUT, ("", []))
    right = len(inputs) == 1 and kind == "tensor(float)" and shape[1:] == [3, *metadata.image_size]
    if not right or not isinstance(shape[0], str) or not set(OUTPUTS) <= set(outputs):
        height, width = metadata.image_size
        raise DataError(
            f"the ONNX model has inputs {inputs} and outputs {outputs}",
            where=path,
            expected=f"input '{INPUT}' float32 (batch, 3, {height}, {width}), outputs {', '.join(OUTPUTS)}",
            remedy="export the model again, with a dynamic batch axis",
        )
