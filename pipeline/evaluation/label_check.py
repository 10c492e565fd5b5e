"""Labels that are probably wrong: where a model that is right elsewhere and the annotation disagree.

The kinds are those that are planted to measure methods for this: dropped, flipped, shifted and spawned labels (Schubert
et al., "Identifying Label Errors in Object Detection Datasets by Loss Inspection", WACV 2024). As in ObjectLab
(Tkachenko et al., "ObjectLab: Automated Diagnosis of Mislabeled Images in Object Detection Data", 2023), a box is
suspect by how far the most similar box on the other side is from it, times how sure the model is. There, the model is
sure where its score is 0.95. Here its score counts for what it was worth on these very images:

- The trust in a detection is the share of the other detections of its class with about its score that are right. Where
  these are few, those of all classes count, too. A model that is sure and often wrong is therefore not believed.
- What the model often misses or places badly makes no label suspect. A missed or badly placed label counts by the share
  of the other labels of its class and size that the model finds with more trust, or places better.

The score of a suspect is, with the IoU of its two boxes:

| kind | score |
|---|---|
| object without a label | trust in the detection x (1 - IoU with the nearest label of its class) |
| wrong class | trust in the detection x IoU x (1 - trust in the best detection of the label's class there) |
| badly placed box | trust in the detection x share of labels that are placed better x (1 - IoU) |
| label without an object | share of labels that are found with more trust x (1 - trust in what is found there) |

It orders the suspects of a kind, and is no probability: the model may be wrong about all of them. The kinds take turns
in the list, because their scores do not compare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.data.coco import Annotation
from pipeline.data.writing.labelled import LabelledBox
from pipeline.metrics.coco_matching import Bools, Floats, Ints, box_iou
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.matching import Matches

UNLABELLED, WRONG_CLASS = "object without a label", "wrong class"
BADLY_PLACED, NO_OBJECT = "badly placed box", "label without an object"
KINDS = {
    UNLABELLED: "the model finds an object, and no label is there",
    WRONG_CLASS: "the model finds an object of another class there, and none of the label's class",
    BADLY_PLACED: "the model's box of the same class overlaps the label's by IoU 0.3 to 0.6",
    NO_OBJECT: "the model finds nothing there, though it finds nearly all objects of this class and size",
}
"""What each kind means, in the order of the list."""

SURE = 0.8
"""Least trust in a detection that is held against a label."""

_USUAL = 0.9  # least share of labels that are found with more trust, or placed better
_ALIKE = 0.1  # scores that differ by no more are about the same
_DOUBT, _NOTHING = 0.5, 0.1  # trust from which on the model finds a label, and up to which it finds nothing there
_PRIOR = 10.0  # that many of all classes are added to those of a class
_TOUCHES, _HIT, _FITS = 0.3, 0.5, 0.6  # IoU
_MEDIUM, _LARGE = 32**2, 96**2  # COCO's sizes, in square pixels


@dataclass(frozen=True)
class LabelSuspect:
    """A label, or a place without one, that is probably wrong; higher scores are more suspect, from 0 to 1."""

    file_name: str
    image_id: int
    kind: str  # one of `KINDS`
    score: float
    truth: LabelledBox | None  # the label, if there is one
    annotation_id: int | None  # of that label
    detection: LabelledBox | None  # what the model finds there, if anything


@dataclass(frozen=True)
class LabelCheck:
    """What was checked, and the suspects: the most suspect of each kind, then the second of each, and so on."""

    images: int
    labels: int  # crowd regions not counted
    trusted: int  # detections that are held against the labels
    suspects: tuple[LabelSuspect, ...]

    def of_kind(self, kind: str) -> tuple[LabelSuspect, ...]:
        """The suspects of a kind, the most suspect first."""
        return tuple(each for each in self.suspects if each.kind == kind)

    @property
    def counts(self) -> dict[str, int]:
        """The number of suspects of each kind."""
        numbers = Counter(each.kind for each in self.suspects)
        return {kind: numbers[kind] for kind in KINDS}


@dataclass
class _Near:
    """The nearest box on the other side, of `N` detections and `M` labels; -1 and an IoU of 0 stand for none."""

    same: Floats  # `(N,)` IoU with the nearest label of the detection's class; set for trusted detections alone
    same_at: Ints
    other: Floats  # `(N,)` with that of another class
    other_at: Ints
    repeats: Bools  # `(N,)` it overlaps a trusted detection with a higher score
    placed: Floats  # `(M,)` IoU with the nearest trusted detection of the label's class, if that touches it
    placed_by: Ints
    own: Floats  # `(M,)` highest trust in a detection of its class that fits it
    any: Floats  # `(M,)` highest trust in a detection that touches it


_Found = tuple[str, float, int, int]  # kind, score, row of the label or -1, row of the detection or -1


def check_labels(truth: GroundTruth, matches: Matches) -> LabelCheck:
    """List the labels that are probably wrong.

    Images that the model learned from can be checked, too, but it has learned some of their mistakes, and finds fewer.
    Crowd regions are not checked, nor is what lies in them.

    Args:
        truth: The images and their labels.
        matches: Of the detections, with scores from a low threshold on, with these labels.
    """
    trust = trust_in(matches)
    near = _nearest(matches, trust)
    found = _in_turns(list(_suspects(matches, trust, near)))
    names = {image.id: image.file_name for image in truth.images}
    classes = list(truth.categories.values())
    labels = [each for each in truth.annotations if not each.iscrowd]

    def suspect(kind: str, score: float, row: int, detection: int) -> LabelSuspect:
        label = labels[row] if row >= 0 else None
        image_id = label.image_id if label else int(matches.image_ids[detection])
        return LabelSuspect(
            file_name=names[image_id],
            image_id=image_id,
            kind=kind,
            score=score,
            truth=_label_box(label, truth) if label else None,
            annotation_id=label.id if label else None,
            detection=_detection_box(matches, detection, classes) if detection >= 0 else None,
        )

    return LabelCheck(
        len(truth.images), len(labels), int((trust >= SURE).sum()), tuple(suspect(*each) for each in found)
    )


def _in_turns(found: list[_Found]) -> list[_Found]:
    """The highest score of each kind, then the second of each, and so on."""
    kinds, turns = list(KINDS), Counter[str]()
    placed: list[tuple[int, int, _Found]] = []
    for each in sorted(found, key=lambda each: -each[1]):
        placed.append((turns[each[0]], kinds.index(each[0]), each))
        turns[each[0]] += 1
    return [each for *_, each in sorted(placed)]


def _label_box(label: Annotation, truth: GroundTruth) -> LabelledBox:
    return LabelledBox(truth.categories[label.category_id], label.bbox)


def _detection_box(matches: Matches, row: int, classes: list[str]) -> LabelledBox:
    x, y, width, height = matches.boxes[row].tolist()
    return LabelledBox(classes[matches.labels[row]], (x, y, width, height), float(matches.scores[row]))


def trust_in(matches: Matches) -> Floats:
    """`(N,)`: the share of the other detections of the same class and about the same score that are right.

    To those of the class, as many as ten of all classes are added; without any other detection of such a score it is 0.
    """
    right = matches.truth >= 0
    trust: Floats = np.zeros(len(right))
    all_right, all_count = _alike(matches.scores, right)
    overall = all_right / np.maximum(all_count, 1)
    for label in np.unique(matches.labels).tolist():
        rows = np.flatnonzero(matches.labels == label)
        own_right, own_count = _alike(matches.scores[rows], right[rows])
        trust[rows] = (own_right + _PRIOR * overall[rows]) / (own_count + _PRIOR)
    return trust


def _alike(scores: Floats, right: Bools) -> tuple[Ints, Ints]:
    """How many of the others with about the score of each detection are right, and how many there are."""
    order = np.argsort(scores, kind="stable")
    ascending = scores[order]
    low: Ints = np.asarray(np.searchsorted(ascending, scores - _ALIKE, "left"))
    high: Ints = np.asarray(np.searchsorted(ascending, scores + _ALIKE, "right"))
    total = np.concatenate([[0], np.cumsum(right[order])])
    return total[high] - total[low] - right, high - low - 1


def _nearest(matches: Matches, trust: Floats) -> _Near:
    found, labels = len(matches.labels), len(matches.truth_labels)
    near = _Near(
        same=np.zeros(found), same_at=np.full(found, -1), other=np.zeros(found), other_at=np.full(found, -1),
        repeats=np.zeros(found, bool), placed=np.zeros(labels), placed_by=np.full(labels, -1),
        own=np.zeros(labels), any=np.zeros(labels),
    )  # fmt: skip
    of_image, label_of_image = _rows_by_image(matches.image_ids), _rows_by_image(matches.truth_image_ids)
    for image_id, rows in of_image.items():
        sure = rows[trust[rows] >= SURE]
        near.repeats[sure] = _repeats(matches.boxes[sure])
        here = label_of_image.get(image_id)
        if here is not None:
            _compare(matches, trust, near, rows, here)
    return near


def _rows_by_image(image_ids: Ints) -> dict[int, Ints]:
    order = np.argsort(image_ids, kind="stable")
    ids, starts = np.unique(image_ids[order], return_index=True)
    return dict(zip(ids.tolist(), np.split(order, starts[1:]), strict=True)) if len(ids) else {}


def _repeats(boxes: Floats) -> Bools:
    """Whether boxes, by descending score, overlap an earlier one that does not itself."""
    repeats = np.zeros(len(boxes), bool)
    overlaps = box_iou(boxes[:, None], boxes[None]) >= _HIT
    for row in range(1, len(boxes)):
        repeats[row] = (overlaps[row, :row] & ~repeats[:row]).any()
    return repeats


def _compare(matches: Matches, trust: Floats, near: _Near, rows: Ints, here: Ints) -> None:
    """Set the nearest boxes of the detections `rows` and the labels `here` of one image."""
    iou = np.nan_to_num(box_iou(matches.boxes[rows][:, None], matches.truth_boxes[here][None]))
    same = matches.labels[rows][:, None] == matches.truth_labels[here]
    weight = trust[rows][:, None]
    near.own[here] = np.where(same & (iou >= _HIT), weight, 0.0).max(0)
    near.any[here] = np.where(iou >= _TOUCHES, weight, 0.0).max(0)
    sure = trust[rows] >= SURE
    if not sure.any():
        return
    rows, own, other = rows[sure], np.where(same, iou, 0.0)[sure], np.where(same, 0.0, iou)[sure]
    near.same[rows], near.same_at[rows] = own.max(1), np.where(own.any(1), here[own.argmax(1)], -1)
    near.other[rows], near.other_at[rows] = other.max(1), np.where(other.any(1), here[other.argmax(1)], -1)
    touches = own.max(0) >= _TOUCHES
    near.placed[here[touches]] = own.max(0)[touches]
    near.placed_by[here[touches]] = rows[own.argmax(0)[touches]]


def _suspects(matches: Matches, trust: Floats, near: _Near) -> Iterator[_Found]:
    stands = (trust >= SURE) & ~near.repeats
    wrong = stands & (matches.truth < 0)
    # a detection that touches a label is of another object where a second detection is nearer to that label
    is_second = np.append(near.placed_by, -1)[near.same_at] != np.arange(len(trust))
    is_apart = (near.same < _TOUCHES) | ((near.same < _HIT) & is_second)
    for row in np.flatnonzero(wrong & is_apart & (near.other < _HIT)).tolist():
        yield UNLABELLED, float(trust[row] * (1 - near.same[row])), -1, row
    yield from _of_wrong_class(trust, near, np.flatnonzero(wrong & (near.other >= _HIT) & (near.same < near.other)))

    group = _sizes(matches.truth_boxes)
    better = _share_above(near.placed, near.placed, matches.truth_labels, group, counted=near.placed > 0)
    is_off = (near.placed >= _TOUCHES) & (near.placed < _FITS) & (better >= _USUAL)
    for label in np.flatnonzero(is_off).tolist():
        row = int(near.placed_by[label])
        if stands[row] and near.same_at[row] == label:
            yield BADLY_PLACED, float(trust[row] * better[label] * (1 - near.placed[label])), label, row

    found = _share_above(near.own, near.any, matches.truth_labels, group, counted=np.ones(len(group), bool))
    for label in np.flatnonzero((found >= _USUAL) & (near.any < _NOTHING)).tolist():
        yield NO_OBJECT, float(found[label] * (1 - near.any[label])), label, -1


def _of_wrong_class(trust: Floats, near: _Near, rows: Ints) -> Iterator[_Found]:
    """Of the detections that fit a label of another class, the best for each label that the model does not find."""
    best: dict[int, tuple[float, int]] = {}
    for row in rows.tolist():
        label = int(near.other_at[row])
        if near.own[label] < _DOUBT:
            score = float(trust[row] * near.other[row] * (1 - near.own[label]))
            best[label] = max(best.get(label, (0.0, -1)), (score, row))
    yield from ((WRONG_CLASS, score, label, row) for label, (score, row) in best.items())


def _sizes(boxes: Floats) -> Ints:
    area = boxes[:, 2] * boxes[:, 3]
    return (area >= _MEDIUM).astype(np.int64) + (area >= _LARGE)


def _share_above(values: Floats, limits: Floats, labels: Ints, sizes: Ints, *, counted: Bools) -> Floats:
    """`(M,)`: of the other counted labels of a class and size, the share whose value is above the label's limit.

    As in `trust_in`, ten of the same size and any class are added.
    """
    all_above, all_count = _above(values, limits, sizes, counted)
    own_above, own_count = _above(values, limits, labels * (sizes.max(initial=0) + 1) + sizes, counted)
    return (own_above + _PRIOR * all_above / np.maximum(all_count, 1)) / (own_count + _PRIOR)


def _above(values: Floats, limits: Floats, groups: Ints, counted: Bools) -> tuple[Ints, Ints]:
    """How many of the others in each label's group are above its limit, and how many there are."""
    above, others = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64)
    for group in np.unique(groups).tolist():
        rows = np.flatnonzero(groups == group)
        known = np.sort(values[rows[counted[rows]]])
        above[rows] = len(known) - np.searchsorted(known, limits[rows], "right")
        others[rows] = len(known) - counted[rows]
    return above, others
