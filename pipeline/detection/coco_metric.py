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
from pipeline.metrics.coco_matching import FoundBoxes, TruthBoxes, match_boxes
from pipeline.metrics.ground_truth import read_ground_truth

FOUND = np.dtype([("bboxes", np.float32, 4), ("scores", np.float32), ("labels", np.int32)])
"""A detection, by mmdet's names: corners x1, y1, x2, y2 in pixels of the image, score, and index of the class.

Processes send each other one array an image: three would take 1.6 to 1.9 times the memory where they are received.
"""

TRUTH_FILE = "truth.npz"
"""What `session.write_tables` writes for the metric, beside the table of the eval set."""


@METRICS.register_module()
class MatchedCocoMetric(BaseMetric):  # type: ignore[misc]  # mmengine is untyped
    """`mAP` and `mAP50` of an eval set whose ascending category ids are the model's labels.

    `ann_file` is a COCO file, or what `TruthBoxes.save` wrote, which takes no time to read and less memory.
    Of several processes, the first computes them from the detections of all.
    """

    def __init__(self, ann_file: str, **others: Any) -> None:
        super().__init__(**others)
        self.ann_file = ann_file
        self._truth: TruthBoxes | None = None

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:  # noqa: ARG002
        """Keep the detections of a batch."""
        for sample in data_samples:
            instances = sample["pred_instances"]
            found = np.empty(len(instances["scores"]), FOUND)
            for name in FOUND.names or ():
                found[name] = instances[name].cpu().numpy()
            self.results.append((sample["img_id"], found))

    def compute_metrics(self, results: Sequence[tuple[int, NDArray[np.void]]]) -> dict[str, float]:
        """The figures of all detections; 0 where the eval set has no objects."""
        truth = self._truth = self._truth or _read(Path(self.ann_file))
        boxes = FoundBoxes.of_images(
            [
                (image_id, found["bboxes"], found["scores"], truth.category_ids[found["labels"]])
                for image_id, found in results
            ]
        )
        figures = coco_figures(average_precision(match_boxes(truth, boxes, sizes=1)))
        return {"mAP": figures["map"] or 0.0, "mAP50": figures["map50"] or 0.0}


def _read(ann_file: Path) -> TruthBoxes:
    return TruthBoxes.load(ann_file) if ann_file.suffix == ".npz" else TruthBoxes.of(read_ground_truth(ann_file))
