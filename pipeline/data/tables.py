"""A small table for notebooks, logs and spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

Cell = str | int | float


@dataclass(frozen=True, repr=False)
class Table:
    """Rows under column names, with a title. Numbers are aligned right, floats have one decimal."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __str__(self) -> str:
        if not self.rows:
            return self.title
        lines = [self.columns, *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        numeric = [_is_numeric(self.rows, i) for i in range(len(self.columns))]
        return "\n".join([self.title, *(_aligned(line, widths, numeric) for line in lines)])

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


def _text(cell: Cell) -> str:
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _html_cell(cell: Cell) -> str:
    side = "left" if isinstance(cell, str) else "right"
    return f"<td style='text-align:{side}'>{escape(_text(cell))}</td>"


def _is_numeric(rows: Sequence[tuple[Cell, ...]], column: int) -> bool:
    return bool(rows) and not any(isinstance(row[column], str) for row in rows)


def _aligned(line: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    columns = zip(line, widths, numeric, strict=True)
    return "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in columns).rstrip()
