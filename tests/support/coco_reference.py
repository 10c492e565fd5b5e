"""pycocotools on a test set, as its users run it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.metrics.ground_truth import GroundTruth


def coco_eval(truth: GroundTruth, results: list[dict[str, Any]], images: Collection[int] | None = None) -> COCOeval:
    """The evaluation, of some images or all, with its arrays in `eval` and its twelve numbers in `stats`."""
    (annotations,) = truth.folder.glob("*.json")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(annotations))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.imgIds = sorted(evaluation.params.imgIds if images is None else images)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation
