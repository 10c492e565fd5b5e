"""A single rule applied to a small data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.data.checks.findings import Action, Finding
from pipeline.data.checks.rules import Result, Subject
from pipeline.data.coco import Annotation, Category, CocoDataset, Image

A, B = Image(1, "a.png", 60, 40), Image(2, "b.png", 60, 40)
BOX = Annotation(1, 1, 1, (5.0, 6.0, 20.0, 10.0), 200.0, 0, [[5.0, 6.0, 25.0, 6.0, 25.0, 16.0]])


def dataset(*annotations: Annotation, images: tuple[Image, ...] = (A, B)) -> CocoDataset:
    """Two images of 60x40, and the box on the first unless told otherwise."""
    return CocoDataset(images, annotations or (BOX,), (Category(1, "cat"),))


def apply(
    check: Callable[..., Result], dataset: CocoDataset, action: Action, facts: Any = (), **options: Any
) -> tuple[CocoDataset, list[Finding]]:
    """What is left of the data set, and the findings; `options` are those of `Subject`."""
    left, problems = check(Subject(dataset, dict(facts), **options), action)
    return left, [Finding("rule", "warning", *each) for each in problems]
