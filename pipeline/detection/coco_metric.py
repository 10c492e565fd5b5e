"""COCO's mAP of a validation, by the arithmetic of the project's own evaluation instead of pycocotools.

mmdet's metric has one process evaluate with pycocotools while the others wait, and rounds the result to 1/1000. Here
the figures are pycocotools' to the last bit, several times faster, and not rounded: two epochs that differ by less
than 1/1000 are not equally good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from numpy.typing import NDArray

from pipeline.metrics.average_precision import average_precision, coco_figures
from pipeline.metrics.coco_matching import match_boxes
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth

# id of an image, boxes `(N, 4)` x1, y1, x2, y2 in its pixels, scores and labels `(N,)`
Found = tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


@METRICS.register_module()
class MatchedCocoMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """`mAP` and `mAP50` of an eval set, given as a COCO file whose ascending category ids are the model's labels.

    Of several processes, the first computes them from the detections of all.
    """

    def __init__(self, ann_file: str, **others: Any) -> None:
        super().__init__(**others)
        self.ann_file = ann_file
        self._truth: GroundTruth | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Keep the detections of a batch."""
        for sample in data_samples:
            found = sample["pred_instances"]
            arrays = (found[name].cpu().numpy() for name in ("bboxes", "scores", "labels"))
            self.results.append((sample["img_id"], *arrays))

    def compute_metrics(self, results: Sequence[Found]) -> dict[str, float]:
        """The figures of all detections; 0 where the eval set has no objects."""
        truth = self._truth = self._truth or read_ground_truth(Path(self.ann_file))
        category_ids = list(truth.categories)
        records = [
            {"image_id": image_id, "category_id": category_ids[label]}
            | {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for image_id, boxes, scores, labels in results
            for (x1, y1, x2, y2), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        ]
        figures = coco_figures(average_precision(match_boxes(truth, records)))
        return {"mAP": figures["map"] or 0.0, "mAP50": figures["map50"] or 0.0}
