"""The detector in ONNX Runtime: from letterboxed pixels to each image's detections, in the image's own pixels."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Without it ONNX Runtime 1.29 and later write a device id below the user's home and report every session to Microsoft.
# It must be set before the library is loaded (microsoft/onnxruntime, docs/Privacy.md). Users who want to report set 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as onnxruntime  # exported: nobody else may load it first

from pipeline.errors import IntegrityError
from pipeline.files import sha256_of
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.preprocessing import Letterboxed, stack

INPUT = "images"
OUTPUTS = ("batch_index", "boxes", "scores", "labels")
MAX_DETECTIONS = 300
"""Detections per image: three times the 100 of COCO's evaluation."""
MAX_BATCH = 8
"""Images per run of the graph. A CPU gains nothing from batches, and loses with larger ones (16: 50 images/s, one by
one: 61, YOLOX-nano at 416 px on two CPUs); a GPU gains."""


@dataclass(frozen=True)
class Detections:
    """The detections in one image, by descending score."""

    boxes: NDArray[np.float32]  # (N, 4) x1 y1 x2 y2 in pixels of the upright original image
    scores: NDArray[np.float32]  # (N,) 0..1
    labels: NDArray[np.int64]  # (N,) class index from 0
    width: int  # of the image, in pixels
    height: int

    def to_json(self, classes: Sequence[str], score_threshold: float) -> dict[str, Any]:
        """The JSON values of the REST API's answer: boxes to 1/1000 pixel, scores to 1/1000000, from a score on."""
        kept = self.scores >= np.float32(score_threshold)
        rows = zip(self.boxes[kept].tolist(), self.scores[kept].tolist(), self.labels[kept].tolist(), strict=True)
        found = [
            {"box": [round(x, 3) for x in box], "score": round(score, 6), "label": classes[label], "class_id": label}
            for box, score, label in rows
        ]
        return {"width": self.width, "height": self.height, "detections": found}


class Predictor:
    """A packed model on the GPU where ONNX Runtime has one, else on the CPU.

    Its graph has the input `images` (B, 3, H, W) float32, and the outputs `batch_index` (M,), `boxes` (M, 4), `scores`
    (M,) and `labels` (M,) over the whole batch. A file that the metadata does not name is an `IntegrityError`.
    """

    def __init__(self, onnx_path: Path, metadata: ModelMetadata) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = available_cpus()
        options.inter_op_num_threads = 1
        # threads that spin while they wait would slow down those that decode the next images
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        available = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
        check_model(onnx_path, metadata)
        self._session = onnxruntime.InferenceSession(onnx_path, options, providers=providers)

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers in use, the preferred one first."""
        return list(self._session.get_providers())

    def detect(self, images: Sequence[Letterboxed]) -> list[Detections]:
        """Run the graph on prepared images, in batches. Each result is the same whatever else is in its batch."""
        found: list[Detections] = []
        for start in range(0, len(images), MAX_BATCH):
            batch = images[start : start + MAX_BATCH]
            batch_index, boxes, scores, labels = self._session.run(list(OUTPUTS), {INPUT: stack(batch)})
            for index, image in enumerate(batch):
                mine = batch_index == index
                found.append(restore(boxes[mine], scores[mine], labels[mine], image))
        return found


def check_model(onnx_path: Path, metadata: ModelMetadata) -> None:
    """Raise an `IntegrityError` if a model's file is not the one that the metadata names."""
    digest = sha256_of(onnx_path)
    if digest != metadata.onnx_sha256:
        raise IntegrityError(
            f"the ONNX model has SHA-256 {digest}",
            where=onnx_path,
            expected=metadata.onnx_sha256,
            remedy="pack the model again",
        )


def restore(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], image: Letterboxed
) -> Detections:
    """Scale an image's boxes back, clipped to the image. Those in the padding are dropped.

    `boxes` are (M, 4) x1 y1 x2 y2 in letterboxed pixels, `scores` and class indices `labels` (M,), in any order.
    """
    scale = np.array([image.scale_x, image.scale_y] * 2)
    limit = np.array([image.width, image.height] * 2)
    restored = np.clip(boxes / scale, 0, limit).astype(np.float32)
    visible = (restored[:, 2] > restored[:, 0]) & (restored[:, 3] > restored[:, 1])
    restored, scores, labels = restored[visible], scores[visible], labels[visible]
    # equal scores are ordered by class and box, independent of the graph's order
    order = np.lexsort((*restored.T, labels, -scores))[:MAX_DETECTIONS]
    return Detections(restored[order], scores[order], labels[order].astype(np.int64), image.width, image.height)


def available_cpus() -> int:
    """Number of CPUs that this process may use; fewer than the machine's in a container or under `taskset`.

    A quota of the control group, as `docker run --cpus=2` sets it, is rounded up.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(count, _quota(Path("/sys/fs/cgroup")))))


def _quota(groups: Path) -> float:
    """CPUs that the control group allows, by version 2 or 1 of cgroups; infinite without a limit.

    Reference: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            quota, period = (float(word) for name in names for word in (groups / name).read_text("ascii").split())
            if quota > 0 and period > 0:
                return quota / period
    return math.inf
