"""A test set, and its objects matched with detections by COCO's evaluation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.data.coco import Annotation, Image, read_coco
from pipeline.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_IOU = 0.5


@dataclass(frozen=True)
class GroundTruth:
    """A test set; detections of a category do not count in its regions with `iscrowd`."""

    folder: Path  # with `annotations.json` and `images/`
    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: dict[int, str]  # name by id, in the order of the ids

    def path_of(self, file_name: str) -> Path:
        """Where an image lies."""
        return self.folder / "images" / file_name

    def only(self, image_ids: Set[int]) -> GroundTruth:
        """The test set with some of its images; all categories stay."""
        return replace(
            self,
            images=tuple(image for image in self.images if image.id in image_ids),
            annotations=tuple(each for each in self.annotations if each.image_id in image_ids),
        )


def read_ground_truth(annotations: Path) -> GroundTruth:
    """Read a test set from its COCO instances file; the images lie in `images/` beside it.

    Raises:
        MissingError: There is no such file.
        DataError: It is no COCO instances file, it has no image or no category, or its records do not fit together.
    """
    dataset = read_coco(annotations)
    if not dataset.images or not dataset.categories:
        raise DataError("the test set is empty", where=annotations, expected="at least one image and one category")
    images = {image.id for image in dataset.images}
    categories = {category.id: category.name for category in sorted(dataset.categories, key=lambda each: each.id)}
    for each in dataset.annotations:
        if each.image_id not in images or each.category_id not in categories:
            raise DataError(
                f"annotation {each.id} is of image {each.image_id}, category {each.category_id}",
                where=annotations,
                expected="an image and a category of the same file",
            )
    return GroundTruth(annotations.parent, dataset.images, dataset.annotations, categories)


@dataclass(frozen=True)
class Matches:
    """COCO's matches at IoU 0.5, for objects of every size and at most 100 detections per image and class.

    `N` detections by descending score, and `M` objects. Crowd regions, and detections that lie in them, are left out.
    Labels are class indices, in the order of the ground truth's categories; boxes are [x, y, width, height] in pixels.
    """

    image_ids: Ints  # `(N,)`
    labels: Ints  # `(N,)`
    scores: Floats  # `(N,)`
    boxes: Floats  # `(N, 4)`
    # `(N,)` row of the matched object, -1 for a false positive. COCO matches by descending score, so the matches above
    # a score do not depend on the detections below it.
    truth: Ints
    truth_image_ids: Ints  # `(M,)`
    truth_labels: Ints  # `(M,)`
    truth_boxes: Floats  # `(M, 4)`

    def objects(self, label: int) -> int:
        """Number of objects of a class."""
        return int((self.truth_labels == label).sum())

    def hits(self, label: int) -> tuple[Floats, Bools]:
        """Scores of a class in descending order, and whether each detection is right."""
        rows = self.labels == label
        return self.scores[rows], self.truth[rows] >= 0


def run_coco_eval(truth: GroundTruth, results: Sequence[Mapping[str, Any]]) -> COCOeval:
    """Evaluate boxes with pycocotools, at most 1, 10 and 100 detections per image and class; there may be none."""
    # renumbered from 1, because pycocotools reads a match with an annotation of id 0 as no match
    objects = [
        {"id": number, "image_id": each.image_id, "category_id": each.category_id, "bbox": list(each.bbox)}
        | {"area": each.area, "iscrowd": each.iscrowd}
        for number, each in enumerate(truth.annotations, start=1)
    ]
    detections = [
        {**each, "id": number, "iscrowd": 0, "area": each["bbox"][2] * each["bbox"][3]}
        for number, each in enumerate(results, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_index(truth, objects), _index(truth, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _index(truth: GroundTruth, annotations: list[dict[str, Any]]) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image.id} for image in truth.images],
        "categories": [{"id": id_} for id_ in truth.categories],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def matches_at_half(evaluation: COCOeval) -> Matches:
    """Read the matches at IoU 0.5 from what `run_coco_eval` gives."""
    every_size = evaluation.params.areaRng[0]
    evaluated = [each for each in evaluation.evalImgs if each and each["aRng"] == every_size]
    counted = ~_joined([each["dtIgnore"][0] for each in evaluated]).astype(bool)
    detections = [evaluation.cocoDt.anns[int(id_)] for id_ in _joined([each["dtIds"] for each in evaluated])[counted]]
    image_ids, labels, boxes = _columns(evaluation, detections)
    scores = np.array([each["score"] for each in detections], np.float64)
    matched = _joined([each["dtMatches"][0] for each in evaluated])[counted].astype(np.int64)
    objects = evaluation.cocoGt.dataset["annotations"]
    is_object = np.array([not each["iscrowd"] for each in objects], bool)
    row_of_id = np.concatenate([[-1], np.cumsum(is_object) - 1]).astype(np.int64)  # id 0 stands for no match
    order = np.argsort(-scores, kind="stable")
    return Matches(
        image_ids[order],
        labels[order],
        scores[order],
        boxes[order],
        row_of_id[matched][order],
        *_columns(evaluation, [each for each in objects if not each["iscrowd"]]),
    )


def _joined(parts: Sequence[Any]) -> npt.NDArray[Any]:
    return np.concatenate([[], *parts])


def _columns(evaluation: COCOeval, boxes: list[dict[str, Any]]) -> tuple[Ints, Ints, Floats]:
    """Image ids, class indices and boxes."""
    return (
        np.array([each["image_id"] for each in boxes], np.int64),
        np.searchsorted(evaluation.params.catIds, [each["category_id"] for each in boxes]),
        np.array([each["bbox"] for each in boxes], np.float64).reshape(-1, 4),
    )


def confusion_matrix(matches: Matches, kept: Bools, classes: int) -> Ints:
    """Count which class was taken for which by the detections that the `(N,)` mask keeps.

    The diagonal holds the objects that a detection of their own class was matched with. The other detections are then
    matched with the missed objects of other classes, by descending score, each with the one it overlaps most at IoU 0.5
    or more. What is still left counts as background.

    The result is `(K + 1, K + 1)`; rows are the truth, columns the detections, the last of each is the background.
    """
    counts = np.zeros((classes + 1, classes + 1), np.int64)
    right = kept & (matches.truth >= 0)
    np.add.at(counts, (matches.labels[right], matches.labels[right]), 1)
    missed = np.ones(len(matches.truth_labels), bool)
    missed[matches.truth[right]] = False
    wrong = np.flatnonzero(kept & ~right)
    taken_for = np.full(len(matches.labels), classes)
    for image_id in np.intersect1d(matches.image_ids[wrong], matches.truth_image_ids[missed]):
        detections = wrong[matches.image_ids[wrong] == image_id]
        objects = np.flatnonzero(missed & (matches.truth_image_ids == image_id))
        overlaps = np.array(mask.iou(matches.boxes[detections], matches.truth_boxes[objects], [0] * len(objects)))
        # COCO has decided about those of the same class
        overlaps[matches.labels[detections][:, None] == matches.truth_labels[objects]] = 0.0
        for detection, row in zip(detections, overlaps, strict=True):
            best = int(row.argmax())
            if row[best] >= _IOU:
                taken_for[detection] = matches.truth_labels[objects[best]]
                missed[objects[best]] = False
                overlaps[:, best] = 0.0
    np.add.at(counts, (taken_for[wrong], matches.labels[wrong]), 1)
    np.add.at(counts, (matches.truth_labels[missed], np.full(int(missed.sum()), classes)), 1)
    return counts
