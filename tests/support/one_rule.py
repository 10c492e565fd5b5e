"""A single rule applied to a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.data.checks.findings import Action, Finding
from pipeline.data.checks.rules import Result, Subject
from pipeline.data.coco import CocoDataset


def apply(
    check: Callable[..., Result], dataset: CocoDataset, action: Action, facts: Any = (), **options: Any
) -> tuple[CocoDataset, list[Finding]]:
    """What is left of the data set, and the findings; `options` are those of `Subject`."""
    left, problems = check(Subject(dataset, dict(facts), **options), action)
    return left, [Finding("rule", "warning", *each) for each in problems]
