"""Detections as COCO's results have them, and their matches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.metrics.coco_matching import CocoMatches
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.matching import match_results


def found(image_id: int, category_id: int, box: Sequence[float] = (8, 8, 32, 32), score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}


def matches_of(truth: GroundTruth, results: Sequence[dict[str, Any]]) -> CocoMatches:
    return match_results(truth, results)[0]
