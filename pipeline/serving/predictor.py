"""The detector in ONNX Runtime: from letterboxed pixels to each image's detections, in the image's own pixels."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
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
from pipeline.serving.settings import available_cpus

INPUT = "images"
OUTPUTS = ("batch_index", "boxes", "scores", "labels")
MAX_DETECTIONS = 300
"""Detections per image: three times the 100 of COCO's evaluation."""
GPU_BATCH = 8
"""Images per run of the graph on a GPU. A CPU does better with one image a thread: two runs of YOLOX-nano at 256 px
side by side took 1.5 ms an image on two cores, batches of 2 to 8 on both cores 2.3 to 2.7."""


@dataclass(frozen=True)
class Detections:
    """The detections in one image, by descending score."""

    boxes: NDArray[np.float32]  # (N, 4) x1 y1 x2 y2 in pixels of the upright original image
    scores: NDArray[np.float32]  # (N,) 0..1
    labels: NDArray[np.int64]  # (N,) class index from 0
    width: int  # of the image, in pixels
    height: int

    def select(
        self, score_threshold: float, class_ids: Collection[int] | None = None, most: int = MAX_DETECTIONS
    ) -> Detections:
        """The detections from a score on, of some classes, and only so many."""
        kept = self.scores >= np.float32(score_threshold)
        if class_ids is not None:
            kept &= np.isin(self.labels, list(class_ids))
        rows = np.flatnonzero(kept)[:most]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows])

    def to_json(self, classes: Sequence[str], score_threshold: float = 0.0) -> dict[str, Any]:
        """The JSON values of the REST API's answer: boxes to 1/1000 pixel, scores to 1/1000000, from a score on."""
        chosen = self.select(score_threshold)
        rows = zip(chosen.boxes.tolist(), chosen.scores.tolist(), chosen.labels.tolist(), strict=True)
        found = [
            {"box": [round(x, 3) for x in box], "score": round(score, 6), "label": classes[label], "class_id": label}
            for box, score, label in rows
        ]
        return {"status": 200, "width": self.width, "height": self.height, "detections": found}


class Predictor:
    """A packed model on the first of its execution providers that is there. Several threads may use it.

    Its graph has the input `images` (B, 3, H, W) float32, and the outputs `batch_index` (M,), `boxes` (M, 4), `scores`
    (M,) and `labels` (M,) over the whole batch.

    On a CPU there are two sessions: one that spreads a run over all threads, for an image that has the machine to
    itself, and one whose runs use the calling thread alone, for as many images side by side as there are threads. Their
    results are the same bit for bit.

    Raises:
        IntegrityError: The file is not the one that the metadata names.
    """

    def __init__(
        self, onnx_path: Path, metadata: ModelMetadata, *, threads: int | None = None, batch_size: int | None = None
    ) -> None:
        check_model(onnx_path, metadata)
        available = onnxruntime.get_available_providers()
        providers = [name for name in metadata.providers if name in available]
        if len(providers) > 1:
            onnxruntime.preload_dlls()  # NVIDIA's libraries, from the packages beside ONNX Runtime
        threads = threads or available_cpus()
        self._wide = _session(onnx_path, threads, providers)
        on_cpu = self.providers[0] == "CPUExecutionProvider"
        self._narrow = _session(onnx_path, 1, providers) if on_cpu and threads > 1 else self._wide
        self.batch_size = batch_size or (1 if on_cpu else GPU_BATCH)

    @property
    def providers(self) -> list[str]:
        """ONNX Runtime's execution providers in use, the preferred one first."""
        return list(self._wide.get_providers())

    def detect(self, images: Sequence[Letterboxed], *, alone: bool = True) -> list[Detections]:
        """Run the graph on prepared images, in batches. Each result is the same whatever else is in its batch.

        `alone` tells whether no other thread runs the graph, so that this one may use every CPU.
        """
        session, found = self._wide if alone else self._narrow, []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            batch_index, boxes, scores, labels = session.run(list(OUTPUTS), {INPUT: stack(batch)})
            for index, image in enumerate(batch):
                mine = batch_index == index
                found.append(restore(boxes[mine], scores[mine], labels[mine], image))
        return found


def _session(onnx_path: Path, threads: int, providers: list[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # threads spin while they wait for the next operator of a run, but not for the next run, which would slow others
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(onnx_path, options, providers=providers)


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
