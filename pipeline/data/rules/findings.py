"""What validation found: one record per item, countable by rule, shown in a notebook, written for a spreadsheet.

A rule is a small pure function from a data set, and the facts of its files, to a sounder data set and its findings. It
leaves a data set that it finds nothing more to change in, and undoes nothing of the rules before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.data.coco import Annotation, CocoDataset, Image
from pipeline.data.rules.inspection import ImageFacts
from pipeline.data.tables import Table

Action = Literal["fixed", "dropped", "kept"]

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, and what was done about it.

    Attributes:
        rule: The name of the rule that found it.
        item: What it is about, such as `image 17 (cat.jpg)`.
        action: `fixed`, `dropped`, or `kept` as it is.
        detail: What was found, and what it became.
    """

    rule: str
    item: str
    action: Action
    detail: str


@dataclass(frozen=True)
class Findings:
    """All findings, in the order of the rules."""

    records: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def count(self, action: Action) -> int:
        """How many findings were met with this action."""
        return sum(each.action == action for each in self.records)

    @property
    def summary(self) -> Table:
        """How many findings there are by rule and action."""
        counts = Counter((each.rule, each.action) for each in self.records)
        title = f"{len(self)} findings" if self.records else "Nothing was found wrong"
        return Table(title, ("rule", "action", "count"), tuple((*key, count) for key, count in counts.items()))

    @property
    def table(self) -> Table:
        """Every finding."""
        rows = tuple((each.rule, each.item, each.action, each.detail) for each in self.records)
        return Table(f"{len(self)} findings", ("rule", "item", "action", "detail"), rows)

    def __str__(self) -> str:
        return str(self.summary)

    def _repr_html_(self) -> str:
        if not self.records:
            return "<p>Nothing was found wrong.</p>"
        first = Findings(self.records[:_SHOWN]).table
        title = first.title if len(self) <= _SHOWN else f"The first {_SHOWN} findings"
        return self.summary._repr_html_() + Table(title, first.columns, first.rows)._repr_html_()

    def write_csv(self, path: Path) -> None:
        """Write every finding as a line of CSV, under a header."""
        self.table.write_csv(path)


Facts = Mapping[str, ImageFacts]
Result = tuple[CocoDataset, list[Finding]]
Rule = Callable[[CocoDataset, Facts], Result]


def drop_annotations(dataset: CocoDataset, rule: str, problem: Callable[[Annotation], str]) -> Result:
    """Drop the annotations that have a problem, saying which."""
    findings, annotations = [], []
    for each in dataset.annotations:
        detail = problem(each)
        if detail:
            findings.append(Finding(rule, annotation_item(each), "dropped", detail))
        else:
            annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def image_item(image: Image) -> str:
    """How a finding names an image."""
    return f"image {image.id} ({image.file_name})"


def annotation_item(annotation: Annotation) -> str:
    """How a finding names an annotation."""
    return f"annotation {annotation.id} in image {annotation.image_id}"
