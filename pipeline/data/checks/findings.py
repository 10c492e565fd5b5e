"""What validation found: one record for each item, shown in a notebook and written for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.data.coco import Box, Image
from pipeline.data.tables import Table, read_records, write_records

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The worst first."""
Action = Literal["report", "repair", "drop"]
Did = Literal["reported", "repaired", "dropped"]

DID: Mapping[Action, Did] = {"report": "reported", "repair": "repaired", "drop": "dropped"}

_SHOWN = 20  # findings in a notebook
_EXAMPLES = 3  # items in a line of the summary
_EXAMPLE_LENGTH = 40  # an item is cut at its end, a source at its start: it ends with the line
_FORMULA_STARTS = ("=", "+", "-", "@", "\t")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and what was done about it."""

    rule: str
    severity: Severity  # error: breaks or falsifies something later; warning: likely a mistake; info: worth knowing
    item: str  # the image, annotation or category, such as `image 17 (cat.jpg)`
    action: Did
    detail: str  # what was found, and what it became
    file_name: str = ""  # of the image concerned, as in `Image.file_name`
    bbox: Box | None = None  # concerned, before any repair; None where there is none that could be drawn
    source: str = ""  # the file and line that it comes from, as in `Annotation.source`


class Findings(tuple[Finding, ...]):
    """All findings, in the order of the rules."""

    __slots__ = ()

    @property
    def summary(self) -> Table:
        """The number of findings by rule and action, each with the first few places: in a file, or else the items."""
        groups: dict[tuple[str, Severity, Did], list[str]] = {}
        for each in self:
            groups.setdefault((each.rule, each.severity, each.action), []).append(_place(each))
        rows = tuple((*key, len(items), _examples(items)) for key, items in groups.items())
        title = f"{len(self)} finding{'s' * (len(self) != 1)}" if self else "Nothing was found wrong"
        return Table(title, ("rule", "severity", "action", "count", "examples"), rows)

    def __str__(self) -> str:
        return str(self.summary)

    __repr__ = __str__  # what a notebook leaves in a log

    def _repr_html_(self) -> str:
        more = f"The first {_SHOWN} findings" if len(self) > _SHOWN else self.summary.title
        first = Table(more, _COLUMNS, tuple(map(_row, self[:_SHOWN])))
        return self.summary._repr_html_() + (first._repr_html_() if self else "")

    def write_csv(self, path: Path) -> None:
        """Write every finding as a line of CSV, under a header.

        Names come from outside and spreadsheets run what looks like a formula: a cell that begins like one gets an
        apostrophe in front (https://owasp.org/www-community/attacks/CSV_Injection). Line breaks become spaces.
        """
        Table("", _COLUMNS, tuple(tuple(map(_inert, _row(each))) for each in self)).write_csv(path)


_COLUMNS = ("rule", "severity", "action", "item", "file_name", "source", "detail")
_LOADED = "findings.json"


def write_loaded_findings(folder: Path, findings: Iterable[Finding]) -> None:
    """Write findings of loading into a dataset's folder, for data preparation; no file where there are none."""
    write_records(folder / _LOADED, findings)


def read_loaded_findings(folder: Path) -> tuple[Finding, ...]:
    """Read what `write_loaded_findings` wrote; empty where there is no file."""
    return tuple(Finding(**each) for each in read_records(folder / _LOADED))


def image_item(image: Image) -> str:
    """How a finding names an image."""
    return f"image {image.id} ({image.file_name})"


def _place(finding: Finding) -> str:
    place, longest = finding.source or finding.item, _EXAMPLE_LENGTH - 1
    if len(place) > _EXAMPLE_LENGTH:
        place = f"…{place[-longest:]}" if finding.source else f"{place[:longest]}…"
    return place


def _examples(places: list[str]) -> str:
    return ", ".join([*places[:_EXAMPLES], "…"] if len(places) > _EXAMPLES else places)


def _row(finding: Finding) -> tuple[str, ...]:
    return tuple(str(getattr(finding, column)) for column in _COLUMNS)


def _inert(cell: str) -> str:
    line = cell.replace("\r", " ").replace("\n", " ")
    return "'" + line if line.lstrip(" ").startswith(_FORMULA_STARTS) else line
