"""Which objects and detections of a test set are worth a look: the worst misses, false alarms and hits of each class.

All counts at the metrics' `errors_at` and IoU 0.5. A miss is worse the lower the score of a detection that almost found
the object, and of those without any the larger the object; a false alarm the higher its score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.metrics.coco_matching import SIZES, Bools, Floats, Ints, sizes_of
from pipeline.metrics.detection_metrics import DetectionMetrics
from pipeline.metrics.error_kinds import KINDS, MISSED
from pipeline.metrics.ground_truth import GroundTruth

Texts = npt.NDArray[np.str_]

WORST_MISSES, FALSE_ALARMS, BEST_HITS = "Worst misses", "Most confident false alarms", "Best hits"
MOST_ERRORS, TYPICAL = "Images with the most errors", "Typical images"
LOW_SCORE = "score too low"
"""Of an object that a detection found, though with a score below the threshold."""

_MOST_EXAMPLES = 600  # of which nobody looks at more, and which a page takes a second to open with
_WORST_IMAGES, _TYPICAL_IMAGES = 6, 3


@dataclass(frozen=True)
class Example:
    """An object or a detection to look at; or a whole image, which has no box, kind, size or score."""

    group: str
    image_id: int
    # index of the class; after that of a detection of the wrong class that of the object; of an image all classes in it
    labels: tuple[int, ...]
    box: tuple[float, float, float, float] | None = None  # [x, y, width, height] in pixels
    is_object: bool = False  # of the test set, not a detection
    found: tuple[bool | None, ...] = ()  # whether each model is right here; None for one that has not this detection
    kind: str = ""  # of the error, one of `KINDS`, `MISSED` and `LOW_SCORE`; empty for a hit
    size: str = ""  # one of COCO's `SIZES`
    score: float | None = None  # of the detection, or of the one that almost found a missed object


@dataclass(frozen=True)
class Selection:
    """Examples in the order in which they are to be shown, the most important first, and how many there are in all."""

    examples: tuple[Example, ...]
    totals: Mapping[str, int]  # by group, in the order of the groups


@dataclass(frozen=True)
class Outcomes:
    """What became of `M` objects and `N` detections, as `Matches` has them, at the metrics' `errors_at`."""

    found: Bools  # `(M,)`
    object_kind: Texts  # `(M,)` why an object was missed; empty where it was found
    object_score: Floats  # `(M,)` of the detection that found it or almost did; 0 without one
    object_size: Ints  # `(M,)` index in `SIZES`
    right: Bools  # `(N,)`
    false: Bools  # `(N,)`
    kind: Texts  # `(N,)` empty for a right detection
    size: Ints  # `(N,)` index in `SIZES`, of the detection's box


def outcomes(truth: GroundTruth, metrics: DetectionMetrics) -> Outcomes:
    """Tell which objects were found, and why the others were not."""
    matches, kinds = metrics.matches, metrics.error_kinds
    counts, hit = matches.scores >= metrics.errors_at, matches.truth >= 0
    found = np.zeros(len(matches.truth_labels), bool)
    found[matches.truth[counts & hit]] = True
    score = np.zeros(len(found))
    object_kind = np.where(kinds.missed, MISSED, "").astype("<U20")
    kind = np.append(KINDS, "").astype("<U20")[kinds.kind]
    pointing = np.flatnonzero(kinds.target >= 0)[::-1]  # from the lowest score, so that the highest stays
    object_kind[kinds.target[pointing]], score[kinds.target[pointing]] = kind[pointing], matches.scores[pointing]
    hits = np.flatnonzero(hit)
    object_kind[matches.truth[hits]], score[matches.truth[hits]] = LOW_SCORE, matches.scores[hits]
    object_kind[found] = ""
    area = np.array([each.area for each in truth.annotations if not each.iscrowd], np.float64)
    return Outcomes(
        found=found,
        object_kind=object_kind,
        object_score=score,
        object_size=sizes_of(area),
        right=counts & hit,
        false=counts & ~hit,
        kind=kind,
        size=sizes_of(matches.boxes[:, 2] * matches.boxes[:, 3]),
    )


def select_examples(truth: GroundTruth, metrics: DetectionMetrics, *, per_class: int) -> Selection:
    """Select at most so many misses, false alarms and hits of each class, and some whole images.

    The images are those with the most errors, and of the others those at the quartiles of F1.
    """
    matches, at = metrics.matches, outcomes(truth, metrics)
    missed = np.flatnonzero(~at.found)
    area = matches.truth_boxes[:, 2] * matches.truth_boxes[:, 3]
    rows = {
        WORST_MISSES: missed[np.lexsort((-area[missed], at.object_score[missed]))],
        FALSE_ALARMS: np.flatnonzero(at.false),  # in order of the score
        BEST_HITS: np.flatnonzero(at.right),
    }
    groups: dict[str, list[Example]] = {}
    for group, all_rows in rows.items():
        is_object = group == WORST_MISSES
        labels = (matches.truth_labels if is_object else matches.labels)[all_rows]
        make = object_example if is_object else detection_example
        kept = _first_of_each(labels, all_rows, per_class)
        groups[group] = [make(metrics, at, group, row, (group == BEST_HITS,)) for row in kept]
    images = list(_images(metrics))
    totals = {
        **{group: len(all_rows) for group, all_rows in rows.items()},
        MOST_ERRORS: sum(each.errors > 0 for each in metrics.per_image),
        TYPICAL: sum(each.group == TYPICAL for each in images),
    }
    return Selection((*images, *in_turn(groups.values(), per_class)), totals)


def in_turn(groups: Iterable[Iterable[Example]], per_class: int) -> list[Example]:
    """At most so many examples of each class and group, and 600 in all: the first of every class before any second one.

    So no class is left out where there is no room for all. Whole images count as a class.
    """
    ranked: list[tuple[int, Example]] = []
    for examples in groups:
        seen: Counter[int | None] = Counter()
        for example in examples:
            label = None if example.box is None else example.labels[0]
            if seen[label] < per_class:
                ranked.append((seen[label], example))
            seen[label] += 1
    return [example for _, example in sorted(ranked, key=lambda pair: pair[0])][:_MOST_EXAMPLES]


def _first_of_each(labels: Ints, rows: Ints, most: int) -> list[int]:
    """At most so many rows of each class, in their order; `labels` are the classes of `rows`."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    place = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    return [int(row) for row in rows[np.sort(order[place < most])]]


def object_example(
    metrics: DetectionMetrics,
    at: Outcomes,
    group: str,
    row: int,
    found: tuple[bool | None, ...],
    score: float | None = None,
) -> Example:
    """An object of the test set; the score is by default that of the detection that almost found it."""
    matches = metrics.matches
    return Example(
        group=group,
        image_id=int(matches.truth_image_ids[row]),
        labels=(int(matches.truth_labels[row]),),
        box=_box(matches.truth_boxes[row]),
        is_object=True,
        found=found,
        kind=str(at.object_kind[row]),
        size=SIZES[at.object_size[row]],
        score=float(at.object_score[row]) if score is None else score,
    )


def detection_example(
    metrics: DetectionMetrics, at: Outcomes, group: str, row: int, found: tuple[bool | None, ...]
) -> Example:
    """A detection."""
    matches, target = metrics.matches, metrics.error_kinds.target[row]
    labels = [int(matches.labels[row]), *([int(matches.truth_labels[target])] if target >= 0 else [])]
    return Example(
        group=group,
        image_id=int(matches.image_ids[row]),
        labels=tuple(dict.fromkeys(labels)),
        box=_box(matches.boxes[row]),
        found=found,
        kind=str(at.kind[row]),
        size=SIZES[at.size[row]],
        score=float(matches.scores[row]),
    )


def _images(metrics: DetectionMetrics) -> Iterator[Example]:
    ranked = sorted(metrics.per_image, key=lambda image: (-image.errors, image.f1, image.image_id))
    worst = [image for image in ranked[:_WORST_IMAGES] if image.errors]
    others = [image for image in ranked[len(worst) :] if image.true_positives + image.errors]
    others.sort(key=lambda image: (image.f1, image.image_id))
    parts = _TYPICAL_IMAGES + 1
    rows = sorted({len(others) * number // parts for number in range(1, parts)}) if others else []
    for group, images in ((MOST_ERRORS, worst), (TYPICAL, [others[row] for row in rows])):
        for image in images:
            yield Example(group, image.image_id, classes_in(metrics, image.image_id))


def classes_in(metrics: DetectionMetrics, image_id: int) -> tuple[int, ...]:
    """The classes of the objects in an image, and of the detections that count."""
    matches = metrics.matches
    shown = (matches.image_ids == image_id) & (matches.scores >= metrics.errors_at)
    here = matches.truth_image_ids == image_id
    return tuple(map(int, np.union1d(matches.labels[shown], matches.truth_labels[here])))


def _box(row: Floats) -> tuple[float, float, float, float]:
    x, y, width, height = map(float, row)
    return x, y, width, height
