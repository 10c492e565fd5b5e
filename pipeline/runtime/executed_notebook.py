"""The cells of a notebook file as plain JSON: what a person would call each, and what each printed.

Nothing of Jupyter is imported, so that looking at a notebook costs no more than reading it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

FAILURE = "papermill-error-cell-tag"  # papermill puts two markdown cells of its own into a notebook that failed
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x08\x0e\x0f]")
FIGURE = "[figure]"

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class CodeCell:
    """A code cell as it ran.

    Attributes:
        label: What a person would call it.
        state: papermill's: `completed`, `failed`, `running` or `pending`.
        seconds: How long it took, where it is over.
        text: What it printed, figures as `[figure]`.
    """

    label: str
    state: str
    seconds: float | None
    text: str


def labels(cells: Sequence[Cell]) -> list[str]:
    """What a person would call each cell: the sentence above it, its tag, or its first line."""
    named = []
    for above, cell in zip([None, *cells[:-1]], cells, strict=True):
        tags = [tag for tag in cell["metadata"].get("tags", []) if tag.replace("-", "").isalpha()]
        told = _joined(above["source"]).strip().splitlines() if above and above["cell_type"] == "markdown" else []
        sentence = told[0] if told and not told[0].startswith("#") else ""
        lines = [line for line in _joined(cell["source"]).splitlines() if line.strip()]
        first = "imports" if lines and lines[0].startswith(("import ", "from ")) else lines[0] if lines else ""
        named.append(sentence or (tags[0] if tags else first))
    return named


def code_cells(notebook: Mapping[str, Any]) -> list[CodeCell]:
    """The code cells of an executed notebook.

    Args:
        notebook: The file, parsed.
    """
    cells = [cell for cell in notebook["cells"] if FAILURE not in cell["metadata"].get("tags", [])]
    return [
        CodeCell(label, *_ran(cell), text=printed(cell.get("outputs", [])))
        for label, cell in zip(labels(cells), cells, strict=True)
        if cell["cell_type"] == "code"
    ]


def printed(outputs: Sequence[Mapping[str, Any]]) -> str:
    """The outputs of a cell as a terminal without colours would have shown them; a figure is `[figure]`."""
    texts: list[str] = []
    for streamed, group in groupby(outputs, lambda output: output["output_type"] == "stream"):
        pieces = [_text(output) for output in group]
        texts += ["".join(pieces)] if streamed else pieces  # a stream is kept in pieces, as it was written
    plain = [_plain(text).strip("\n") for text in texts]
    return "\n".join(text for text in plain if text.strip())


def _ran(cell: Cell) -> tuple[str, float | None]:
    told = cell["metadata"].get("papermill", {})
    return told.get("status", ""), told.get("duration")


def _text(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _joined(output["text"])
    if output["output_type"] == "error":
        trace = "\n".join(output.get("traceback", []))
        return trace or f"{output.get('ename', '')}: {output.get('evalue', '')}"
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return FIGURE  # whose text is `<Figure size 640x480 with 1 Axes>`
    kinds = [kind for kind in ("text/markdown", "text/plain") if kind in data]
    return _joined(data[kinds[0]]) if kinds else "".join(f"[{kind}]" for kind in list(data)[:1])


def _plain(text: str) -> str:
    """Without colours, and of a line that was written over, what was seen last."""
    lines = ANSI.sub("", text).split("\n")
    return "\n".join(next((part for part in reversed(line.split("\r")) if part), "").rstrip() for line in lines)


def _joined(text: str | Sequence[str]) -> str:
    """In a notebook a text is one string or a list of lines."""
    return text if isinstance(text, str) else "".join(text)
