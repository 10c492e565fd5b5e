"""What is wrong with each wrong detection, which objects are missed, and how much AP50 each kind of error costs.

The kinds and their order are those of TIDE. A wrong detection is the first of these that it can be:

- localisation: it overlaps an object of its class by an IoU of 0.1 to 0.5;
- classification: it overlaps an object of another class by at least 0.5;
- duplicate: it overlaps an object of its class by at least 0.5 that another detection found;
- background: it overlaps no object by more than 0.1;
- both: the rest, which overlaps an object of another class by 0.1 to 0.5.

An object is missed if no detection found it, and none would with a better box or the right class. The cost of a kind is
what AP50 would gain without it: wrong boxes and classes are corrected for the detection of the highest score that
points at a missed object, and dropped otherwise; the other wrong detections are dropped; missed objects do not count.

Reference: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020. Unlike there,
detections in crowd regions are left out, and a class without objects is no part of the mean, as in COCO's AP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.metrics.average_precision import interpolated
from pipeline.metrics.coco_matching import Bools, Floats, Ints, box_iou
from pipeline.metrics.matching import Matches

KINDS = ("localisation", "classification", "duplicate", "background", "both")
"""Of wrong detections."""
MISSED = "missed"

_RIGHT = -1
_OVERLAP, _HIT = 0.1, 0.5
_PAIRS = 4_000_000  # of a detection and an object of one image, that are compared at a time


@dataclass(frozen=True)
class ErrorKinds:
    """The kinds of errors of `N` detections and `M` objects, as `Matches` has them."""

    kind: Ints  # `(N,)` index in `KINDS`; -1 for a right detection
    missed: Bools  # `(M,)`
    target: Ints  # `(N,)` row of the object whose box or class a detection of the first two kinds has wrong; else -1
    counts: dict[str, int]  # by kind, missed objects among them
    costs: dict[str, float | None]  # gain of AP50 without the errors of each kind; None without objects


@dataclass(frozen=True)
class _Wrong:
    """Wrong detections, `W` of `N`, with the object that each of kind 0 and 1 points at."""

    rows: Ints  # `(W,)` in order of the score
    kind: Ints  # `(W,)`
    target: Ints  # `(W,)` row of the object, or -1


def find_error_kinds(matches: Matches, classes: int) -> ErrorKinds:
    """Tell the errors apart; all detections count, whatever their score."""
    found = np.zeros(len(matches.truth_labels), bool)
    found[matches.truth[matches.truth >= 0]] = True
    wrong = _classify(matches, found)
    is_open = ~np.append(found, True)[wrong.target]  # it points at an object that is still to be found; -1 at none
    missed = ~found
    missed[wrong.target[is_open]] = False
    # of the detections that point at an object, the first has the highest score
    corrects = np.zeros(len(wrong.rows), bool)
    corrects[np.flatnonzero(is_open)[np.unique(wrong.target[is_open], return_index=True)[1]]] = True
    kind, target = np.full(len(matches.labels), _RIGHT), np.full(len(matches.labels), -1)
    kind[wrong.rows], target[wrong.rows] = wrong.kind, wrong.target
    counts = {name: int((wrong.kind == number).sum()) for number, name in enumerate(KINDS)}
    counts[MISSED] = int(missed.sum())
    costs: dict[str, float | None] = {}
    base = _ap50(matches, classes)
    for number, name in enumerate(KINDS):
        fixed = _without(matches, wrong, number, corrects)
        costs[name] = None if base is None else max((_ap50(fixed, classes) or 0.0) - base, 0.0)
    forgiven = replace(matches, truth_labels=matches.truth_labels[~missed])
    costs[MISSED] = None if base is None else max((_ap50(forgiven, classes) or base) - base, 0.0)
    return ErrorKinds(kind, missed, target, counts, costs)


def _classify(matches: Matches, found: Bools) -> _Wrong:
    rows = np.flatnonzero(matches.truth < 0)
    by_image = np.argsort(matches.truth_image_ids, kind="stable")
    images = matches.truth_image_ids[by_image]
    start: Ints = np.asarray(np.searchsorted(images, matches.image_ids[rows]))
    end: Ints = np.asarray(np.searchsorted(images, matches.image_ids[rows], "right"))
    kind = np.full(len(rows), KINDS.index("background"))
    target = np.full(len(rows), -1)
    has_objects = np.flatnonzero(end > start)
    parts = np.cumsum((end - start)[has_objects]) // _PAIRS
    for part in np.unique(parts).tolist():
        some = has_objects[parts == part]
        count = (end - start)[some]
        first = np.cumsum(count) - count  # the pairs of a detection begin there
        within = np.arange(count.sum()) - np.repeat(first, count)
        objects = by_image[np.repeat(start[some], count) + within]
        detections = np.repeat(rows[some], count)
        iou = box_iou(matches.boxes[detections], matches.truth_boxes[objects])
        same = matches.labels[detections] == matches.truth_labels[objects]
        own, own_at = _best(np.where(same, iou, 0.0), first, count)
        other, other_at = _best(np.where(same, 0.0, iou), first, count)
        taken, _ = _best(np.where(same & found[objects], iou, 0.0), first, count)
        local = (own >= _OVERLAP) & (own <= _HIT)
        confused = other >= _HIT
        kind[some] = np.select(
            [local, confused, taken >= _HIT, np.maximum(own, other) <= _OVERLAP], [0, 1, 2, 3], default=4
        )
        target[some] = np.select([local, confused], [objects[own_at], objects[other_at]], default=-1)
    return _Wrong(rows, kind, target)


def _best(values: Floats, first: Ints, count: Ints) -> tuple[Floats, Ints]:
    """The highest value of each run of `count` values from `first`, and the first place of it."""
    highest = np.maximum.reduceat(values, first)
    places = np.where(values == np.repeat(highest, count), np.arange(len(values)), len(values))
    return highest, np.minimum.reduceat(places, first)


def _without(matches: Matches, wrong: _Wrong, kind: int, corrects: Bools) -> Matches:
    """The matches without the errors of a kind, for `_ap50`."""
    of_kind = wrong.kind == kind
    fixed, labels, truth = of_kind & corrects, matches.labels.copy(), matches.truth.copy()
    labels[wrong.rows[fixed]] = matches.truth_labels[wrong.target[fixed]]
    truth[wrong.rows[fixed]] = wrong.target[fixed]
    kept = np.ones(len(labels), bool)
    kept[wrong.rows[of_kind & ~corrects]] = False
    return replace(matches, labels=labels[kept], scores=matches.scores[kept], truth=truth[kept])


def _ap50(matches: Matches, classes: int) -> float | None:
    """The mean over the classes that have objects; None where there is none."""
    values = []
    for label in range(classes):
        objects = matches.objects(label)
        if objects:
            _, hits = matches.hits(label)
            counts = np.arange(1, len(hits) + 1, dtype=np.float64)
            values.append(interpolated(np.cumsum(hits, dtype=np.float64), counts, objects).mean())
    return float(np.mean(values)) if values else None
