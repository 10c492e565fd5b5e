"""A comparison of two runs, as a table to read."""

from __future__ import annotations

import json
import re
from typing import Any

from pipeline.cli.printing import figure, table
from pipeline.runtime.comparison import METRICS, Comparison, Row

WIDTH = 48  # characters of a value; --json has it whole
ABSENT = "-"
DIGEST = re.compile(r"\b([0-9a-f]{12})(?:[0-9a-f]{28}|[0-9a-f]{52})\b")  # of git, and SHA-256
ALWAYS = (METRICS,)  # shown even where they are equal


def comparison_text(comparison: Comparison, *, everything: bool = False) -> str:
    """The comparison to be read: what differs and all metrics, or everything."""
    shown = [row for row in comparison.rows if everything or row.differs or row.section in ALWAYS]
    cells: list[tuple[str, ...]] = [("", comparison.left, comparison.right, "")]
    for section in dict.fromkeys(row.section for row in shown):
        cells.append((section, "", "", ""))
        cells += [(f"  {row.name}", *_shown(row), _difference(row)) for row in shown if row.section == section]
    text = table(cells)
    if comparison.files:
        text += "\nfiles that differ between the commits\n" + "\n".join(f" {line}" for line in comparison.files)
    elif comparison.files is None and any(row.name == "commit" and row.differs for row in comparison.rows):
        text += "\nwhich files differ is not known: this repository does not have both commits"
    if not any(row.differs for row in comparison.rows):
        return f"{text}\nnothing differs"
    return text if everything else f"{text}\nwhat is not shown is the same in both"


def _shown(row: Row) -> tuple[str, str]:
    """Both values, cut to what fits; of long ones the part in which they differ."""
    left, right = (figure(value) if row.section == METRICS else _text(value) for value in (row.left, row.right))
    shorter = min(len(left), len(right))
    common = next((at for at in range(shorter) if left[at] != right[at]), shorter)
    skipped = common - WIDTH // 4 if row.differs and max(len(left), len(right)) > WIDTH and common > WIDTH // 2 else 0
    cut = [f"…{text[skipped:]}" if skipped else text for text in (left, right)]
    one, other = (text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…" for text in cut)
    return one, other


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, dict) and "digest" in value:
        return f"{value['digest'][:12]}  {value['files']} files  {value['size'] / 1e6:.1f} MB"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = ", ".join(value) or "none"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return DIGEST.sub(r"\1", text)


def _difference(row: Row) -> str:
    if row.section != METRICS or row.difference is None or not row.differs:
        return ""
    return f"{row.difference:+.4g}"
