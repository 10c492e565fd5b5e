"""What a validation rule is, and the ways in which rules report, repair and drop.

A rule's check is a small pure function from a dataset, facts about its files and an action, to a sounder dataset and
the problems found. Applied again it changes nothing more, and it undoes nothing of the rules before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import NamedTuple

from pipeline.data.checks.findings import DID, Action, Did, Severity, image_item
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.images import ImageFacts

Facts = Mapping[str, ImageFacts]


class Problem(NamedTuple):
    """What a rule found; see `Finding` for the fields."""

    item: str
    action: Did
    detail: str
    file_name: str = ""
    bbox: Box | None = None


Result = tuple[CocoDataset, list[Problem]]


@dataclass(frozen=True)
class ValidationRule:
    """A requirement on datasets, and what may be done about violations.

    Attributes:
        name: As configs and findings name it.
        severity: Severity of its findings.
        default: The action where none was chosen.
        allowed: The actions that may be chosen.
        check: Finds the problems and acts on them.
        summary: What it finds and what a repair is, in one line.
        why: Why it cannot only be reported; empty where it can.
    """

    name: str
    severity: Severity
    default: Action
    allowed: tuple[Action, ...]
    check: Callable[[CocoDataset, Facts, Action], Result]
    summary: str
    why: str = ""


def judge_annotations(
    dataset: CocoDataset,
    action: Action,
    problem: Callable[[Annotation], str],
    repair: Callable[[Annotation], Annotation] | None = None,
) -> Result:
    """Apply the action to every annotation that has a problem."""
    return judge_places(dataset, action, [problem(each) for each in dataset.annotations], repair)


def judge_places(
    dataset: CocoDataset,
    action: Action,
    problems: list[str],
    repair: Callable[[Annotation], Annotation] | None = None,
) -> Result:
    """Apply the action as `judge_annotations` does, given the problem of each annotation by its position."""
    if not any(problems):
        return dataset, []
    names = {image.id: image.file_name for image in dataset.images}
    found: list[Problem] = []
    kept: list[Annotation] = []
    for each, detail in zip(dataset.annotations, problems, strict=True):
        if detail:
            found.append(annotation_problem(each, action, detail, names.get(each.image_id, "")))
            if action == "drop":
                continue
            if action == "repair" and repair:
                each = repair(each)
        kept.append(each)
    return (dataset if action == "report" else replace(dataset, annotations=tuple(kept))), found


def drop_images(dataset: CocoDataset, problems: Mapping[int, str]) -> Result:
    """Drop images with their annotations; each problem says how many boxes went with the image."""
    if not problems:
        return dataset, []
    boxes = Counter(each.image_id for each in dataset.annotations)
    found = []
    for image in dataset.images:
        if image.id in problems:
            count = boxes[image.id]
            lost = f"; {count} box{'es' * (count != 1)} went with it" if count else ""
            found.append(image_problem(image, "drop", problems[image.id] + lost))
    return dataset.subset(image for image in dataset.images if image.id not in problems), found


def map_annotations(dataset: CocoDataset, change: Callable[[Annotation], Annotation]) -> CocoDataset:
    """The dataset with each annotation changed."""
    return replace(dataset, annotations=tuple(map(change, dataset.annotations)))


def image_problem(image: Image, action: Action, detail: str) -> Problem:
    """A problem of an image."""
    return Problem(image_item(image), DID[action], detail, image.file_name)


def image_problems(images: Iterable[Image], action: Action, details: Mapping[int, str]) -> list[Problem]:
    """The problems of those images whose id has a detail."""
    return [image_problem(image, action, details[image.id]) for image in images if image.id in details]


def annotation_problem(annotation: Annotation, action: Action, detail: str, file_name: str) -> Problem:
    """A problem of an annotation, with its box where it can be drawn."""
    bbox = annotation.bbox if all(map(isfinite, annotation.bbox)) else None
    item = f"annotation {annotation.id} in image {annotation.image_id}"
    return Problem(item, DID[action], detail, file_name, bbox)
