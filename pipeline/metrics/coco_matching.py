"""COCO's matching of detections with objects, for all IoU thresholds and object sizes at once, as arrays.

pycocotools walks through images, classes, sizes, detections and thresholds in Python. Here the next detection of every
image and class is matched in one operation, so that only the ranks are a loop. The matches are the same, bit for bit;
as arrays, they can be resampled, which no library offers.

Reference: `COCOeval.evaluateImg` of pycocotools,
https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.metrics.ground_truth import GroundTruth

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

IOUS: Floats = np.linspace(0.5, 0.95, 10)
SIZES = ("all", "small", "medium", "large")
_AREAS: Floats = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # from and to, in square pixels
MOST_DETECTIONS = 100
"""That count of an image and class: those with the highest scores."""

_CELLS = 2_000_000  # of the largest array, in the pairs of an image and class that are matched together


@dataclass(frozen=True)
class TruthBoxes:
    """`M` objects and crowd regions of a test set with `I` images and `K` classes."""

    image_ids: Ints  # `(I,)` ascending
    category_ids: Ints  # `(K,)` ascending
    image: Ints  # `(M,)` index in `image_ids`
    label: Ints  # `(M,)` index in `category_ids`
    box: Floats  # `(M, 4)` [x, y, width, height] in pixels
    area: Floats  # `(M,)` in square pixels, that of a mask where there is one
    crowd: Bools  # `(M,)`

    @classmethod
    def of(cls, truth: GroundTruth) -> TruthBoxes:
        """The boxes of a test set, in its order."""
        image_ids = np.array(sorted(image.id for image in truth.images), np.int64)
        category_ids = np.array(sorted(truth.categories), np.int64)
        rows, count = truth.annotations, len(truth.annotations)
        return cls(
            image_ids,
            category_ids,
            np.searchsorted(image_ids, np.fromiter((each.image_id for each in rows), np.int64, count)),
            np.searchsorted(category_ids, np.fromiter((each.category_id for each in rows), np.int64, count)),
            _boxes([each.bbox for each in rows]),
            np.fromiter((each.area for each in rows), np.float64, count),
            np.fromiter((bool(each.iscrowd) for each in rows), np.bool_, count),
        )

    def save(self, path: Path) -> None:
        """Write the arrays into an `.npz` file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> TruthBoxes:
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)


FoundInImage = tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32], Ints]
"""Id of an image, corners `(n, 4)` x1, y1, x2, y2 in its pixels, scores `(n,)`, and ids of categories `(n,)`."""


@dataclass(frozen=True)
class FoundBoxes:
    """`D` detections in a test set, in any order; of equal scores of an image and class, the first ranks first."""

    image_ids: Ints  # `(D,)`
    category_ids: Ints  # `(D,)`
    box: Floats  # `(D, 4)` [x, y, width, height] in pixels
    score: Floats  # `(D,)`

    @classmethod
    def of(cls, results: Sequence[Mapping[str, Any]]) -> FoundBoxes:
        """Detections in COCO's results format."""
        count = len(results)
        return cls(
            np.fromiter((each["image_id"] for each in results), np.int64, count),
            np.fromiter((each["category_id"] for each in results), np.int64, count),
            _boxes([each["bbox"] for each in results]),
            np.fromiter((each["score"] for each in results), np.float64, count),
        )

    @classmethod
    def of_images(cls, images: Sequence[FoundInImage]) -> FoundBoxes:
        """Detections as a model gives them, image by image; the widths are those of its corners in double precision."""
        image_ids = np.array([image_id for image_id, *_ in images], np.int64)
        box = np.concatenate([np.empty((0, 4)), *(corners for _, corners, _, _ in images)])
        box[:, 2:] -= box[:, :2]
        return cls(
            np.repeat(image_ids, np.array([len(score) for _, _, score, _ in images], np.int64)),
            np.concatenate([np.empty(0, np.int64), *(category_ids for *_, category_ids in images)]),
            box,
            np.concatenate([np.empty(0), *(score for _, _, score, _ in images)]),
        )


def _boxes(rows: Sequence[Sequence[float]]) -> Floats:
    return np.fromiter(chain.from_iterable(rows), np.float64, 4 * len(rows)).reshape(-1, 4)


@dataclass(frozen=True)
class CocoMatches:
    """`N` detections and `M` objects of `I` images and `K` classes, at the 10 `IOUS` and for `S` of the `SIZES`.

    Detections are in order of their classes, and by descending score in each; of equal scores in order of the image
    ids. Ignored are crowd regions and objects of another size, and detections that were matched with these, or are of
    another size and were not matched. They are neither right nor wrong.
    """

    images: int
    classes: int
    detection: Ints  # `(N,)` row in the results
    image: Ints  # `(N,)` index in the order of the image ids
    label: Ints  # `(N,)` index of the class, in the order of the category ids
    score: Floats  # `(N,)`
    rank: Ints  # `(N,)` place by score among those of its image and class, from 0
    truth: npt.NDArray[np.int32]  # `(N, S, 10)` row of the matched object, or -1
    ignored: Bools  # `(N, S, 10)`
    truth_image: Ints  # `(M,)`
    truth_label: Ints  # `(M,)`
    truth_ignored: Bools  # `(M, S)`

    @property
    def sizes(self) -> int:
        """`S`."""
        return int(self.truth_ignored.shape[1])

    def of_class(self, label: int) -> slice:
        """The detections of a class."""
        return slice(*np.searchsorted(self.label, [label, label + 1]).tolist())

    def has_object(self) -> Bools:
        """Whether each image has an object: `(I,)`."""
        return np.asarray(np.bincount(self.truth_image[~self.truth_ignored[:, 0]], minlength=self.images) > 0)

    def is_empty(self) -> Bools:
        """Whether each image has neither an object nor a crowd region: `(I,)`."""
        return np.asarray(np.bincount(self.truth_image, minlength=self.images) == 0)

    def only(self, images: Bools) -> CocoMatches:
        """The matches on some of the images, `(I,)`; the indices of images stay."""
        kept, objects = images[self.image], images[self.truth_image]
        row_of_object = np.append(np.cumsum(objects, dtype=np.int32) - 1, np.int32(-1))  # which -1, for no match, takes
        return replace(
            self,
            **{name: getattr(self, name)[kept] for name in ("detection", "image", "label", "score", "rank", "ignored")},
            **{name: getattr(self, name)[objects] for name in ("truth_image", "truth_label", "truth_ignored")},
            truth=row_of_object[self.truth[kept]],
        )


def match_boxes(truth: TruthBoxes, found: FoundBoxes, *, sizes: int = len(SIZES)) -> CocoMatches:
    """Match detections with the objects of a test set; there may be none of either.

    Args:
        truth: The objects.
        found: The detections.
        sizes: How many of the `SIZES`, from the first. Each takes 50 bytes a detection; mAP needs the first alone.
    """
    classes = len(truth.category_ids)
    image = np.searchsorted(truth.image_ids, found.image_ids)
    label = np.searchsorted(truth.category_ids, found.category_ids)
    group = image * classes + label
    rows = np.lexsort((-found.score, group))  # stable, so that of equal scores the first stays first
    starts = np.flatnonzero(np.diff(group[rows], prepend=-1))
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(starts, append=len(rows)))
    rows, rank = rows[rank < MOST_DETECTIONS], rank[rank < MOST_DETECTIONS]
    order = np.lexsort((-found.score[rows], label[rows]))
    truth_ignored = truth.crowd[:, None] | _is_outside(truth.area, sizes)
    matching = _Matching(found.box[rows], group[rows], order, truth, truth_ignored)
    matching.run()
    rows = rows[order]
    return CocoMatches(
        images=len(truth.image_ids),
        classes=classes,
        detection=rows,
        image=image[rows],
        label=label[rows],
        score=found.score[rows],
        rank=rank[order],
        truth=matching.matched,
        ignored=matching.ignored,
        truth_image=truth.image,
        truth_label=truth.label,
        truth_ignored=truth_ignored,
    )


def _is_outside(area: Floats, sizes: int) -> Bools:
    """`(N, S)`: whether an area is outside each of the first size ranges."""
    return np.asarray((area[:, None] < _AREAS[:sizes, 0]) | (area[:, None] > _AREAS[:sizes, 1]))


def sizes_of(area: Floats) -> Ints:
    """`(N,)` index in `SIZES` of areas in square pixels: small up to 32 x 32, large above 96 x 96, else medium."""
    return np.searchsorted(_AREAS[1:-1, 1], area) + 1


class _Matching:
    """The matching of detections, which are in order of image and class and by descending score in each.

    Its results are in another order: the detection that is first there is `order[0]` here.
    """

    def __init__(self, box: Floats, group: Ints, order: Ints, truth: TruthBoxes, truth_ignored: Bools) -> None:
        self._box, self._group, self._truth, self._truth_ignored = box, group, truth, truth_ignored
        self._place = np.empty_like(order)  # of a detection in the results
        self._place[order] = np.arange(len(order))
        self._sizes = truth_ignored.shape[1]
        shape = (len(box), self._sizes, len(IOUS))
        self.matched: npt.NDArray[np.int32] = np.full(shape, -1, np.int32)
        outside = _is_outside(box[order, 2] * box[order, 3], self._sizes)
        self.ignored: Bools = np.broadcast_to(outside[:, :, None], shape).copy()

    def run(self) -> None:
        """Fill `matched` and `ignored`, which are `truth` and `ignored` of `CocoMatches`."""
        group = self._truth.image * len(self._truth.category_ids) + self._truth.label
        by_group = np.argsort(group, kind="stable")
        groups, first, count = np.unique(self._group, return_index=True, return_counts=True)
        start: Ints = np.asarray(np.searchsorted(group[by_group], groups))
        end: Ints = np.asarray(np.searchsorted(group[by_group], groups, "right"))
        # groups of a similar number of objects together, and of these the ones with most detections first
        width = 1 << np.ceil(np.log2(np.maximum(end - start, 1))).astype(np.int64)
        for most in np.unique(width[end > start]).tolist():
            alike = np.flatnonzero((width == most) & (end > start))
            alike = alike[np.argsort(-count[alike], kind="stable")]
            step = max(1, _CELLS // (most * self._sizes * len(IOUS)))
            for begin in range(0, len(alike), step):
                part = alike[begin : begin + step]
                place = start[part, None] + np.arange(most)
                is_object = place < end[part, None]
                rows = by_group[np.where(is_object, place, 0)]
                # from the last to the first: of equal IoUs COCO takes the last, and argmax the first
                self._match(first[part], count[part], rows[:, ::-1], is_object[:, ::-1])

    def _match(self, first: Ints, count: Ints, rows: Ints, is_object: Bools) -> None:
        """Match groups of one image and class each, those with most detections first.

        The detections of a group are the `count` from `first`; its objects are its row of `rows`, `(G, W)`, where
        `is_object`.
        """
        is_crowd = self._truth.crowd[rows] & is_object
        passed_over = self._truth_ignored[rows].transpose(0, 2, 1)[:, :, None]  # (G, sizes, 1, W)
        free = np.repeat(np.repeat(is_object[:, None, None], self._sizes, 1), len(IOUS), 2)
        least = np.minimum(IOUS, 1 - 1e-10)[:, None]
        for rank in range(int(count[0])):
            live = int(np.searchsorted(-count, -rank))  # the groups that have a detection of this rank
            detection = first[:live] + rank
            boxes = self._box[detection][:, None], self._truth.box[rows[:live]]
            iou = box_iou(*boxes, is_crowd[:live])[:, None, None]
            reaches = free[:live] & (iou >= least)
            best, hit = _best(iou, reaches & ~passed_over[:live])
            # an object that is to be ignored is taken only where there is no other
            second, other = _best(iou, reaches & passed_over[:live])
            best, other = np.where(hit, best, second), other & ~hit
            at = np.nonzero(hit | other)
            taken = best[at]
            place = self._place[detection[at[0]]]
            self.matched[place, at[1], at[2]] = rows[at[0], taken]
            self.ignored[place, at[1], at[2]] = other[at]
            free[(*at, taken)] = is_crowd[at[0], taken]


def _best(iou: Floats, allowed: Bools) -> tuple[Ints, Bools]:
    """The first place of the highest IoU where it is allowed, and whether there is one."""
    values = np.where(allowed, iou, -1.0)
    best = values.argmax(-1)
    return best, np.take_along_axis(values, best[..., None], -1)[..., 0] >= 0


def box_iou(found: Floats, objects: Floats, is_crowd: Bools | bool = False) -> Floats:
    """IoU of boxes `(..., 4)` [x, y, width, height]; with a crowd region, the share of the detection inside it."""
    sides = [
        np.minimum(found[..., axis] + found[..., axis + 2], objects[..., axis] + objects[..., axis + 2])
        - np.maximum(found[..., axis], objects[..., axis])
        for axis in (0, 1)
    ]
    both = np.where((sides[0] > 0) & (sides[1] > 0), sides[0] * sides[1], 0.0)
    area = found[..., 2] * found[..., 3]
    union = np.where(is_crowd, area, area + objects[..., 2] * objects[..., 3] - both)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(both / union)
