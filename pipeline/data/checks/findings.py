"""What validation found: one record per item, countable by rule, shown in a notebook, written for a spreadsheet.

A rule is a small pure function from a data set, the facts of its files and an action, to a sounder data set and its
findings. It leaves a data set that it finds nothing more to change in, and undoes nothing of the rules before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Literal

from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.image_facts import ImageFacts
from pipeline.data.tables import Cell, Table

Severity = Literal["error", "warning", "info"]
Action = Literal["report", "repair", "drop"]
Did = Literal["reported", "repaired", "dropped"]

DID: Mapping[Action, Did] = {"report": "reported", "repair": "repaired", "drop": "dropped"}

_SHOWN = 20  # findings in a notebook
_EXAMPLES = 3  # items a line of the summary names
_EXAMPLE_LENGTH = 40
_FORMULA_STARTS = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be, and what was done about it.

    Attributes:
        rule: The name of the rule that found it.
        severity: `error`: would break or falsify something later; `warning`: likely a mistake; `info`: worth knowing.
        item: What it is about, such as `image 17 (cat.jpg)`.
        action: `reported` and left as it was, `repaired`, or `dropped`.
        detail: What was found, and what it became.
        file_name: The image concerned, as in `Image.file_name`; empty where there is none.
        bbox: The box concerned as it was found, `(x, y, width, height)` in pixels; None where there is none, or none
            that could be drawn.
    """

    rule: str
    severity: Severity
    item: str
    action: Did
    detail: str
    file_name: str = ""
    bbox: Box | None = None


@dataclass(frozen=True, repr=False)
class Findings:
    """All findings, in the order of the rules."""

    records: tuple[Finding, ...] = ()

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def count(self, action: Did) -> int:
        """How many findings were met with this action."""
        return sum(each.action == action for each in self.records)

    @property
    def summary(self) -> Table:
        """How many findings there are by rule and action, each with the first few items."""
        groups: dict[tuple[str, Severity, Did], list[str]] = {}
        for each in self.records:
            groups.setdefault((each.rule, each.severity, each.action), []).append(each.item)
        title = f"{len(self)} finding{'s' * (len(self) != 1)}" if self.records else "Nothing was found wrong"
        rows = tuple((*key, len(items), _examples(items)) for key, items in groups.items())
        return Table(title, ("rule", "severity", "action", "count", "examples"), rows)

    @property
    def table(self) -> Table:
        """Every finding."""
        columns = ("rule", "severity", "action", "item", "file_name", "detail")
        rows = tuple(
            (each.rule, each.severity, each.action, each.item, each.file_name, each.detail) for each in self.records
        )
        return Table(f"{len(self)} finding{'s' * (len(self) != 1)}", columns, rows)

    def __str__(self) -> str:
        return str(self.summary)

    __repr__ = __str__  # what a notebook leaves in a log

    def _repr_html_(self) -> str:
        if not self.records:
            return "<p>Nothing was found wrong.</p>"
        first = Findings(self.records[:_SHOWN]).table
        title = first.title if len(self) <= _SHOWN else f"The first {_SHOWN} findings"
        return self.summary._repr_html_() + Table(title, first.columns, first.rows)._repr_html_()

    def write_csv(self, path: Path) -> None:
        """Write every finding as a line of CSV, under a header.

        Names come from outside and spreadsheets run what looks like a formula: a cell that begins like one gets an
        apostrophe in front (https://owasp.org/www-community/attacks/CSV_Injection). Line breaks become spaces.
        """
        table = self.table
        rows = tuple(tuple(map(_inert, row)) for row in table.rows)
        Table(table.title, table.columns, rows).write_csv(path)


Facts = Mapping[str, ImageFacts]
Result = tuple[CocoDataset, list[Finding]]


@dataclass(frozen=True)
class Rule:
    """What data are held to, and what may be done about those that fall short.

    Attributes:
        name: In plain words with hyphens; what a config and a finding call it.
        severity: Of its findings.
        default: What is done where nothing else was chosen.
        allowed: What may be chosen.
        check: The rule itself.
        summary: What it finds and what a repair is, in one line.
        why: Why it cannot only be reported, where it cannot.
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
    rule: str,
    severity: Severity,
    action: Action,
    problem: Callable[[Annotation], str],
    repair: Callable[[Annotation], Annotation] | None = None,
) -> Result:
    """Meet every annotation that has a problem with the action, saying which and what.

    Args:
        dataset: Whose annotations.
        rule: The rule's name.
        severity: The rule's.
        action: What to do.
        problem: What is wrong with an annotation; empty where nothing is.
        repair: What an annotation with a problem becomes, for the action `repair`.
    """
    problems = [problem(each) for each in dataset.annotations]
    if not any(problems):
        return dataset, []
    names = {image.id: image.file_name for image in dataset.images}
    findings: list[Finding] = []
    kept: list[Annotation] = []
    for each, detail in zip(dataset.annotations, problems, strict=True):
        if detail:
            findings.append(annotation_finding(rule, severity, each, DID[action], detail, names.get(each.image_id, "")))
            if action == "drop":
                continue
            if action == "repair" and repair:
                each = repair(each)
        kept.append(each)
    return with_annotations(dataset, kept, changed=action != "report"), findings


def drop_images(dataset: CocoDataset, rule: str, severity: Severity, problems: Mapping[int, str]) -> Result:
    """Drop images with their annotations, saying which, why, and how many boxes went with each.

    Args:
        dataset: Whose images, with unique ids.
        rule: The rule's name.
        severity: The rule's.
        problems: What is wrong, by image id.
    """
    if not problems:
        return dataset, []
    boxes = Counter(each.image_id for each in dataset.annotations)
    findings = []
    for image in dataset.images:
        if image.id in problems:
            detail = _with_boxes(problems[image.id], boxes[image.id])
            findings.append(Finding(rule, severity, image_item(image), "dropped", detail, image.file_name))
    return dataset.subset(image for image in dataset.images if image.id not in problems), findings


def with_annotations(dataset: CocoDataset, annotations: Iterable[Annotation], *, changed: bool = True) -> CocoDataset:
    """The data set with these annotations; the very same one where they are unchanged."""
    return replace(dataset, annotations=tuple(annotations)) if changed else dataset


def annotation_finding(
    rule: str, severity: Severity, annotation: Annotation, did: Did, detail: str, file_name: str
) -> Finding:
    """A finding on a box, with the box where it can be drawn."""
    bbox = annotation.bbox if all(map(isfinite, annotation.bbox)) else None
    return Finding(rule, severity, annotation_item(annotation), did, detail, file_name, bbox)


def image_item(image: Image) -> str:
    """How a finding names an image."""
    return f"image {image.id} ({image.file_name})"


def annotation_item(annotation: Annotation) -> str:
    """How a finding names an annotation."""
    return f"annotation {annotation.id} in image {annotation.image_id}"


def _with_boxes(problem: str, boxes: int) -> str:
    return f"{problem}; {boxes} box{'es' * (boxes != 1)} went with it" if boxes else problem


def _examples(items: list[str]) -> str:
    first = [item if len(item) <= _EXAMPLE_LENGTH else item[: _EXAMPLE_LENGTH - 1] + "…" for item in items[:_EXAMPLES]]
    return ", ".join([*first, "…"] if len(items) > _EXAMPLES else first)


def _inert(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    line = cell.replace("\r", " ").replace("\n", " ")
    return "'" + line if line.lstrip(" ").startswith(_FORMULA_STARTS) else line
