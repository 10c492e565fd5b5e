"""From the ONNX graph's flat outputs to each image's detections, in the image's own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.preprocessing import Letterboxed

MAX_DETECTIONS = 300
"""Detections per image: three times the 100 of COCO's evaluation."""


@dataclass(frozen=True)
class Detections:
    """The detections in one image, by descending score.

    Attributes:
        boxes: (N, 4) float32, x1 y1 x2 y2 in pixels of the upright original image.
        scores: (N,) float32, 0..1, descending.
        labels: (N,) int64, class index from 0.
        width: The image's width in pixels.
        height: The image's height in pixels.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_threshold: float) -> Detections:
        """Return the detections with at least this score."""
        count = int(np.count_nonzero(self.scores >= np.float32(score_threshold)))
        return Detections(self.boxes[:count], self.scores[:count], self.labels[:count], self.width, self.height)

    def to_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the JSON values of the REST API's answer: boxes to 1/1000 pixel, scores to 1/1000000."""
        found = [
            {
                "box": [round(value, 3) for value in box],
                "score": round(score, 6),
                "label": classes[label],
                "class_id": label,
            }
            for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
        ]
        return {"width": self.width, "height": self.height, "detections": found}


def split_detections(
    batch_index: NDArray[np.int64],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    images: Sequence[Letterboxed],
    *,
    score_threshold: float,
    max_detections: int = MAX_DETECTIONS,
) -> list[Detections]:
    """Assign a batch's detections to their images, and scale the boxes back.

    Args:
        batch_index: (M,) index of the image.
        boxes: (M, 4) x1 y1 x2 y2 in letterboxed pixels.
        scores: (M,) in any order.
        labels: (M,) class index from 0.
        images: The batch, in order.
        score_threshold: Detections with a lower score are dropped.
        max_detections: Number of detections per image, those with the highest scores.

    Returns:
        One `Detections` per image. Boxes are clipped to the image; those in the padding are dropped.
    """
    kept = scores >= np.float32(score_threshold)
    batch_index, boxes, scores, labels = batch_index[kept], boxes[kept], scores[kept], labels[kept]
    return [
        _restore(boxes[mine], scores[mine], labels[mine], image, max_detections)
        for mine, image in ((batch_index == index, image) for index, image in enumerate(images))
    ]


def _restore(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    image: Letterboxed,
    max_detections: int,
) -> Detections:
    scale = np.array([image.scale_x, image.scale_y] * 2)
    limit = np.array([image.width, image.height] * 2)
    restored = np.clip(boxes / scale, 0, limit).astype(np.float32)
    visible = (restored[:, 2] > restored[:, 0]) & (restored[:, 3] > restored[:, 1])
    restored, scores, labels = restored[visible], scores[visible], labels[visible]
    # equal scores are ordered by class and box, independent of the graph's order
    order = np.lexsort((*restored.T, labels, -scores))[:max_detections]
    return Detections(restored[order], scores[order], labels[order].astype(np.int64), image.width, image.height)
