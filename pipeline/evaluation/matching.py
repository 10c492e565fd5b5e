"""Detections matched with ground truth by COCO's own evaluation, and the matches at IoU 0.5 as flat tables."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.errors import DataError
from pipeline.evaluation.ground_truth import GroundTruth

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Matches:
    """COCO's matching at IoU 0.5, objects of every size, at most 100 detections per image and class.

    The detections are `N` rows by descending score, the ground truth `M` rows; crowd regions are not among them, and
    neither are detections that COCO ignores because they lie in a crowd region.

    Attributes:
        image_ids: `(N,)` COCO image ids.
        labels: `(N,)` class indices, in the order of the ground truth's categories.
        scores: `(N,)`.
        boxes: `(N, 4)` [x, y, width, height] in pixels.
        truth: `(N,)` row of the matched ground truth, -1 for a false positive. COCO matches by descending score, so
            dropping the rows below a score leaves the matches of the others as they are.
        truth_image_ids: `(M,)` COCO image ids.
        truth_labels: `(M,)` class indices.
        truth_boxes: `(M, 4)` [x, y, width, height] in pixels.
    """

    image_ids: Ints
    labels: Ints
    scores: Floats
    boxes: Floats
    truth: Ints
    truth_image_ids: Ints
    truth_labels: Ints
    truth_boxes: Floats


def run_coco_eval(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> COCOeval:
    """Evaluate and accumulate with pycocotools, for boxes and at most 1, 10 and 100 detections per image and class.

    Unlike `COCO.loadRes` this takes an empty list; and annotations are renumbered from 1, because pycocotools takes a
    match with an annotation of id 0 for no match.

    Raises:
        DataError: A result is of an image or category that the ground truth does not have.
    """
    _check(truth, results)
    annotations = [
        # COCO's ground truth has its area from the mask; without one, the box's is the right one
        {
            **one,
            "id": number,
            "iscrowd": one.get("iscrowd", 0),
            "area": one.get("area", one["bbox"][2] * one["bbox"][3]),
        }
        for number, one in enumerate(truth.annotations, start=1)
    ]
    detections = [
        {**one, "id": number, "iscrowd": 0, "area": one["bbox"][2] * one["bbox"][3]}
        for number, one in enumerate(results, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        evaluation = COCOeval(_index(truth, annotations), _index(truth, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    logger.debug("pycocotools: %s", printed.getvalue())
    return evaluation


def _check(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> None:
    images = {image.id for image in truth.images}
    for one in results:
        if one["image_id"] not in images or one["category_id"] not in truth.categories:
            raise DataError(
                f"A prediction is of image {one['image_id']}, category {one['category_id']}",
                where=truth.path,
                expected="images and categories of the test set",
                remedy="evaluate predictions against the annotations they were made for",
            )


def _index(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id, "width": image.width, "height": image.height} for image in truth.images],
        "categories": [{"id": id_, "name": name} for id_, name in truth.categories.items()],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def matches_at_half(evaluation: COCOeval, truth: GroundTruth) -> Matches:
    """Read the matches at IoU 0.5 from a finished evaluation of `truth`."""
    columns = {category_id: label for label, category_id in enumerate(truth.categories)}
    real = [one for one in evaluation.cocoGt.dataset["annotations"] if not one["iscrowd"]]
    rows = {one["id"]: row for row, one in enumerate(real)}
    found: list[tuple[int, int, float, list[float], int]] = []
    for one in evaluation.evalImgs:
        if one is None or one["aRng"] != evaluation.params.areaRng[0]:
            continue
        for detection_id, matched, ignored in zip(one["dtIds"], one["dtMatches"][0], one["dtIgnore"][0], strict=True):
            if not ignored:
                detection = evaluation.cocoDt.anns[detection_id]
                label, row = columns[one["category_id"]], rows[int(matched)] if matched else -1
                found.append((one["image_id"], label, detection["score"], detection["bbox"], row))
    found.sort(key=lambda row: -row[2])
    return Matches(
        image_ids=np.array([row[0] for row in found], np.int64),
        labels=np.array([row[1] for row in found], np.int64),
        scores=np.array([row[2] for row in found], np.float64),
        boxes=np.array([row[3] for row in found], np.float64).reshape(-1, 4),
        truth=np.array([row[4] for row in found], np.int64),
        truth_image_ids=np.array([one["image_id"] for one in real], np.int64),
        truth_labels=np.array([columns[one["category_id"]] for one in real], np.int64),
        truth_boxes=np.array([one["bbox"] for one in real], np.float64).reshape(-1, 4),
    )
