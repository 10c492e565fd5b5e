"""The detector: from letterboxed pixels to each image's detections, in the image's own pixels."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError
from pipeline.files import sha256_of
from pipeline.serving.backend import Backend
from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.preprocessing import Letterboxed, stack
from pipeline.serving.runtimes import RUNTIMES, require_engine
from pipeline.serving.settings import available_cpus

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
        return self.rows(np.flatnonzero(kept)[:most])

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Detections:
        """Some of the detections, by a mask `(N,)` or by their indices."""
        return replace(self, boxes=self.boxes[chosen], scores=self.scores[chosen], labels=self.labels[chosen])

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
    """A packed model in the library that its runtime names. Several threads may use it.

    Its graph has the input `images` (B, 3, H, W) float32, and the outputs `batch_index` (M,), `boxes` (M, 4), `scores`
    (M,) and `labels` (M,) over the whole batch.

    On a CPU the model is loaded twice: once to spread a run over all threads, for an image that has the machine to
    itself, and once for as many runs side by side as there are threads. Their results are the same bit for bit.

    Raises:
        IntegrityError: The file is not the one that the metadata names.
        MissingError: The library is not installed.
    """

    def __init__(
        self, onnx_path: Path, metadata: ModelMetadata, *, threads: int | None = None, batch_size: int | None = None
    ) -> None:
        check_model(onnx_path, metadata)
        self._backend = _load(onnx_path, metadata, threads or available_cpus())
        self.batch_size = batch_size or (1 if self._backend.on_cpu else GPU_BATCH)

    @property
    def providers(self) -> list[str]:
        """Where it runs, the preferred one first: ONNX Runtime's execution providers, or OpenVINO's device."""
        return self._backend.providers

    @property
    def engine(self) -> str:
        """Name and version of the library that runs it."""
        return self._backend.engine

    @property
    def precision(self) -> str:
        """In which precision it computes: "fp32" where a model for bf16 meets a CPU without it."""
        return self._backend.precision

    def detect(self, images: Sequence[Letterboxed], *, alone: bool = True) -> list[Detections]:
        """Run the graph on prepared images, in batches. Each result is the same whatever else is in its batch.

        `alone` tells whether no other thread runs the graph, so that this one may use every CPU.
        """
        found = []
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            batch_index, boxes, scores, labels = self._backend.run(stack(batch), alone=alone)
            for index, image in enumerate(batch):
                mine = batch_index == index
                found.append(restore(boxes[mine], scores[mine], labels[mine], image))
        return found


def _load(onnx_path: Path, metadata: ModelMetadata, threads: int) -> Backend:
    """Load a model with the one library that it needs: a service has no other."""
    require_engine(metadata.runtime)
    if RUNTIMES[metadata.runtime].engine == "openvino":
        from pipeline.serving.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(onnx_path, metadata, threads)
    from pipeline.serving.onnxruntime_backend import OnnxRuntimeBackend

    return OnnxRuntimeBackend(onnx_path, metadata, threads)


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
    order = best_first(restored, scores, labels)[:MAX_DETECTIONS]
    return Detections(restored[order], scores[order], labels[order].astype(np.int64), image.width, image.height)


def best_first(boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """The order by descending score; equal scores by class and box, whatever order they come in."""
    return np.lexsort((*boxes.T, labels, -scores))
