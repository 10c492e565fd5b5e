"""What a validation rule is, and the one way in which all rules report, repair and drop records.

A rule's check is a small function from a dataset and an action to a sounder dataset and the problems found. Applied
again it changes nothing more, and it undoes nothing of the rules before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from math import isfinite
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline.data.checks.findings import DID, Action, Did, Severity, image_item
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.images import ImageFacts

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Kind = Literal["categories", "images", "annotations"]
Problem = tuple[str, Did, str, str, Box | None, str]  # item, action, detail, file name, box and source of a `Finding`
Result = tuple[CocoDataset, list[Problem]]

OWNER: Mapping[Kind, str] = {"categories": "category_id", "images": "image_id"}  # an annotation's field


@dataclass(frozen=True)
class Subject:
    """A dataset to check, with its boxes as arrays."""

    dataset: CocoDataset
    facts: Mapping[str, ImageFacts]  # about every file it names
    min_box_side: float = 1.0  # shortest side of an object's box in pixels; mmdet learns nothing from boxes below 1
    reserved: Collection[str] = ()  # file names of a fixed test set

    @cached_property
    def boxes(self) -> Floats:
        """The box of each annotation, `(N, 4)`: x, y, width, height."""
        return _table((each.bbox for each in self.dataset.annotations), 4)

    @cached_property
    def image_sizes(self) -> dict[int, tuple[int, int]]:
        """Width and height by the image's id."""
        return {image.id: (image.width, image.height) for image in self.dataset.images}

    @cached_property
    def sizes(self) -> Floats:
        """Width and height of each annotation's image, `(N, 2)`."""
        return _table((self.image_sizes[each.image_id] for each in self.dataset.annotations), 2)

    @cached_property
    def objects(self) -> Bools:
        """Which annotations are objects rather than crowd regions, `(N,)`."""
        return np.array([not each.iscrowd for each in self.dataset.annotations], np.bool_)


@dataclass(frozen=True)
class ValidationRule:
    """A requirement on datasets, and what may be done about violations."""

    name: str  # as configs and findings name it
    severity: Severity
    default: Action
    allowed: tuple[Action, ...]
    check: Callable[[Subject, Action], Result]
    summary: str  # what it finds and what a repair is, in one line
    why: str = ""  # it cannot only be reported; empty where it can


def settle(
    subject: Subject,
    kind: Kind,
    details: Mapping[int, str],
    action: Action,
    repair: Callable[[], CocoDataset] = lambda: NotImplemented,
) -> Result:
    """Apply an action to records of a kind, by the problem of each position; `repair` gives the repaired dataset."""
    dataset = settled = subject.dataset
    if not details:
        return dataset, []
    lost: Counter[int] = Counter()
    if action == "drop":
        settled = without(dataset, kind, details)
        if kind == "images":
            lost = Counter(each.image_id for each in dataset.annotations)
            lost -= Counter(each.image_id for each in settled.annotations)
    elif action == "repair":
        settled = repair()
    names = {image.id: image.file_name for image in dataset.images}
    found: list[Problem] = []
    for row in sorted(details):
        each, detail, file_name, bbox, source = getattr(subject.dataset, kind)[row], details[row], "", None, ""
        if isinstance(each, Annotation):
            item, file_name = f"annotation {each.id} in image {each.image_id}", names.get(each.image_id, "")
            bbox, source = each.bbox if all(map(isfinite, each.bbox)) else None, each.source
        elif isinstance(each, Image):
            item, file_name, count = image_item(each), each.file_name, lost[each.id]
            detail += f"; {count} box{'es' * (count != 1)} went with it" if count else ""
        else:
            item = f"category {each.id} ({each.name})"
        found.append((item, DID[action], detail, file_name, bbox, source))
    return settled, found


def settle_boxes(
    subject: Subject,
    action: Action,
    wrong: npt.ArrayLike,
    detail: Callable[[Annotation], str],
    repair: Callable[[Annotation], Annotation] = lambda each: each,
) -> Result:
    """Apply an action to the annotations that are marked as wrong, `(N,)`."""
    annotations = subject.dataset.annotations
    details = {row: detail(annotations[row]) for row in np.flatnonzero(wrong).tolist()}

    def repaired() -> CocoDataset:
        changed = (repair(each) if row in details else each for row, each in enumerate(annotations))
        return replace(subject.dataset, annotations=tuple(changed))

    return settle(subject, "annotations", details, action, repaired)


def merge(
    subject: Subject, kind: Kind, firsts: Mapping[int, int], action: Action, detail: Callable[[Any, Any], str]
) -> Result:
    """Keep one of several equal categories or images, which is the first; a repair moves the others' annotations to it.

    `firsts` is the position of the one that stays, by the position of another; `detail` describes the other and it.
    """
    records, field = getattr(subject.dataset, kind), OWNER[kind]
    moved = {records[row].id: records[first].id for row, first in firsts.items()}

    def merged() -> CocoDataset:
        owners = ((each, moved.get(getattr(each, field))) for each in subject.dataset.annotations)
        annotations = (each if owner is None else replace(each, **{field: owner}) for each, owner in owners)
        return without(replace(subject.dataset, annotations=tuple(annotations)), kind, firsts)

    more = "; its boxes moved there" if action == "repair" else ""
    details = {row: detail(records[row], records[first]) + more for row, first in firsts.items()}
    return settle(subject, kind, details, action, merged)


def without(dataset: CocoDataset, kind: Kind, rows: Collection[int]) -> CocoDataset:
    """The dataset without the records at these positions, and without annotations that were theirs alone."""
    records: Sequence[Any] = getattr(dataset, kind)
    kept = tuple(each for row, each in enumerate(records) if row not in rows)
    if kind == "annotations":
        return replace(dataset, annotations=kept)
    gone = {records[row].id for row in rows} - {each.id for each in kept}
    annotations = tuple(each for each in dataset.annotations if getattr(each, OWNER[kind]) not in gone)
    changes: dict[str, Any] = {kind: kept, "annotations": annotations if gone else dataset.annotations}
    return replace(dataset, **changes)


def first_positions(keys: Sequence[object]) -> dict[int, int]:
    """The position of the first equal key, by the position of each later one."""
    first: dict[object, int] = {}
    if len(set(keys)) == len(keys):  # nearly always, and quick
        return {}
    return {row: first[key] for row, key in enumerate(keys) if first.setdefault(key, row) != row}


def _table(rows: Iterable[Iterable[float]], columns: int) -> Floats:
    return np.fromiter(chain.from_iterable(rows), np.float64).reshape(-1, columns)
