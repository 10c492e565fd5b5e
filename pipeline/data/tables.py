"""Small tables for notebooks, logs and spreadsheets; and the account of images and boxes: what is excluded, and why.

Every exclusion is recorded, so that counts add up: what is loaded is kept, or excluded for a reason.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any, Literal

log = logging.getLogger(__name__)

Cell = str | int | float
Counted = Literal["images", "boxes"]

_EXCLUSIONS = "exclusions.json"


@dataclass(frozen=True, repr=False)
class Table:
    """Rows under column names, with a title. Numbers are aligned right, floats have one decimal."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __str__(self) -> str:
        if not self.rows:
            return self.title
        columns = []
        for name, *cells in zip(self.columns, *self.rows, strict=True):
            texts = [name, *map(_text, cells)]
            width = max(map(len, texts))
            is_text = any(isinstance(cell, str) for cell in cells)
            columns.append([text.ljust(width) if is_text else text.rjust(width) for text in texts])
        return "\n".join([self.title, *("  ".join(line).rstrip() for line in zip(*columns, strict=True))])

    __repr__ = __str__  # what a notebook leaves in a log

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in self.rows)
        caption = f"<caption style='text-align:left'>{escape(self.title)}</caption>"
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def write_csv(self, path: Path) -> None:
        """Write the rows under a header line, numbers in full."""
        # a broken name may hold half a letter
        with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.columns)
            writer.writerows(self.rows)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What is excluded for one reason, of so many before; from one subset, or before the split if none is named."""

    count: int
    of: int
    reason: str
    subset: str = ""
    what: Counted = "images"

    def __str__(self) -> str:
        return reasons((self,))[0]


def exclude(counts: Mapping[str, int], of: int, *, subset: str = "", what: Counted = "images") -> tuple[Exclusion, ...]:
    """Record and log an exclusion for each reason with a count above 0."""
    found = tuple(Exclusion(count, of, reason, subset, what) for reason, count in counts.items() if count)
    for each in found:
        log.info("%s", each)
    return found


def account(what: Counted, loaded: int, kept: int, exclusions: Iterable[Exclusion]) -> str:
    """`images: 240 loaded = 200 kept + 40 excluded`.

    Raises:
        RuntimeError: The numbers do not add up, so that something is lost without a reason: an error of this project.
    """
    excluded = sum(each.count for each in exclusions if each.what == what)
    if loaded != kept + excluded:
        raise RuntimeError(
            f"of {loaded} {what} {kept} are kept and {excluded} excluded: {loaded - kept - excluded} lost"
        )
    return f"{what}: {loaded} loaded = {kept} kept + {excluded} excluded"


def reasons(exclusions: Iterable[Exclusion]) -> list[str]:
    """A sentence for each reason: `2 of 240 images and 3 of 500 boxes excluded: nobody annotated them`."""
    counts: dict[tuple[str, str], list[str]] = {}
    for each in exclusions:
        counts.setdefault((each.reason, each.subset), []).append(f"{each.count} of {each.of} {each.what}")
    return [
        f"{' and '.join(texts)} excluded{f' from {subset}' if subset else ''}: {reason}"
        for (reason, subset), texts in counts.items()
    ]


def exclusions_table(exclusions: Iterable[Exclusion]) -> Table:
    """A row for each exclusion."""
    rows = tuple((each.count, each.of, each.what, each.subset or "all", each.reason) for each in exclusions)
    title = "Images and boxes excluded" if rows else "No image and no box was excluded"
    return Table(title, ("excluded", "of", "what", "set", "why"), rows)


def write_exclusions(folder: Path, exclusions: Iterable[Exclusion]) -> None:
    """Write exclusions into a dataset's folder, for data preparation; no file where there are none."""
    write_records(folder / _EXCLUSIONS, exclusions)


def read_exclusions(folder: Path) -> tuple[Exclusion, ...]:
    """Read what `write_exclusions` wrote; empty where there is no file."""
    return tuple(Exclusion(**each) for each in read_records(folder / _EXCLUSIONS))


def write_records(path: Path, records: Iterable[Any]) -> None:
    """Write dataclasses as JSON; no file where there are none."""
    if content := [asdict(each) for each in records]:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_records(path: Path) -> list[dict[str, Any]]:
    """The fields of the dataclasses that `write_records` wrote; empty where there is no file."""
    return list(json.loads(path.read_text("utf-8"))) if path.is_file() else []


def _text(cell: Cell) -> str:
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _html_cell(cell: Cell) -> str:
    side = "left" if isinstance(cell, str) else "right"
    return f"<td style='text-align:{side}'>{escape(_text(cell))}</td>"
