"""What became of the images of a command: a table for people, JSON for programs, and an exit code."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.command import CommandResult
from pipeline.cli.printing import count

if TYPE_CHECKING:
    from pipeline.client.http_client import ServedImage

WIDTH = 80  # characters of a line of the table
LONGEST_NAME = 32  # characters of an image's name in it

log = logging.getLogger(__name__)


class Outcome:
    """What became of the images."""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps  # whether each image is shown
        self._rows: list[dict[str, Any]] = []
        self._problems: list[tuple[str, str]] = []
        self._images = self._detections = 0

    def add(self, name: str, answer: ServedImage | None, problem: str) -> None:
        """Take an image's answer, or its problem."""
        if answer is None:
            self._problems.append((name, problem))
            self._rows.append({"image": name, "error": problem})
            return
        self._images += 1
        self._detections += len(answer.detections)
        if self._keeps:
            self._rows.append({"image": name, **answer.model_dump(exclude_none=True)})

    def result(self, made: Iterable[Path], *, as_json: bool) -> CommandResult:
        """What the command prints, with the files and folders that it made, and its exit code."""
        for name, problem in self._problems:
            log.warning("not predicted: %s: %s", name, problem)
        lines = []
        if self._keeps and not as_json:
            lines.append(predictions_table(self._rows))
        else:
            failed = f", {len(self._problems)} not predicted" if self._problems else ""
            lines.append(f"{count(self._images, 'image')}, {count(self._detections, 'detection')}{failed}")
            lines += [f"  {path}" for path in made]
        return CommandResult(self._rows, "\n".join(lines), code=1 if self._problems else 0)


def predictions_table(rows: list[dict[str, Any]]) -> str:
    """Images, how many objects they have, and these by class with the best score, in 80 columns."""
    longest = min(LONGEST_NAME, max((len(row["image"]) for row in rows), default=0))
    lines = [f"{'image'.ljust(longest)}  objects"]
    for row in rows:
        name = row["image"] if len(row["image"]) <= longest else "…" + row["image"][1 - longest :]
        if "error" in row:
            lines.append(_cut(f"{name.ljust(longest)}        -  {row['error']}"))
            continue
        found = row["detections"]
        best = {each["label"]: each["score"] for each in reversed(found)}  # the first is the most certain
        numbers = Counter(each["label"] for each in found)
        line = f"{name.ljust(longest)}  {len(found):7}  "
        texts = [f"{number} {label} {best[label]:.2f}" for label, number in numbers.items()]
        while len(texts) > 1 and len(line) + len(", ".join(texts)) > WIDTH:
            texts = [*texts[: -2 if texts[-1] == "…" else -1], "…"]
        lines.append(_cut(line + ", ".join(texts)))
    return "\n".join(lines)


def _cut(line: str) -> str:
    line = " ".join(line.splitlines()).rstrip()
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…"
