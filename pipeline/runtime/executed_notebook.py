"""An executed notebook: the name of each cell, what each printed, and the whole as HTML.

Cells are read as plain JSON. Jupyter's converter is imported only to write HTML, which takes most of a second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

FAILURE = "papermill-error-cell-tag"  # of two markdown cells that papermill adds to a notebook that failed
PAGE = Path(__file__).with_name("notebook_page.html.j2")  # lays a switch for code over Jupyter's own template
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

Cell = Mapping[str, Any]

_converting = Lock()


@dataclass(frozen=True)
class CodeCell:
    """An executed code cell: its name, papermill's state, its duration once it is over, and what it printed."""

    label: str
    state: str
    seconds: float | None
    text: str


def labels(cells: Sequence[Cell]) -> list[str]:
    """A name for each cell: the sentence above it, its tag, or its first line."""
    names = []
    for above, cell in zip([None, *cells[:-1]], cells, strict=True):
        tags = [tag for tag in cell["metadata"].get("tags", []) if tag.replace("-", "").isalpha()]
        text = _joined(above["source"]).strip().splitlines() if above and above["cell_type"] == "markdown" else []
        sentence = text[0] if text and not text[0].startswith("#") else ""
        lines = [line for line in _joined(cell["source"]).splitlines() if line.strip()]
        first = "imports" if lines and lines[0].startswith(("import ", "from ")) else lines[0] if lines else ""
        names.append(sentence or (tags[0] if tags else first))
    return names


def code_cells(notebook: Mapping[str, Any]) -> list[CodeCell]:
    """The code cells of an executed notebook, which is given as parsed JSON."""
    cells = [cell for cell in notebook["cells"] if FAILURE not in cell["metadata"].get("tags", [])]
    executed = []
    for label, cell in zip(labels(cells), cells, strict=True):
        if cell["cell_type"] == "code":
            status = cell["metadata"].get("papermill", {})
            text = printed(cell.get("outputs", []))
            executed.append(CodeCell(label, status.get("status", ""), status.get("duration"), text))
    return executed


def printed(outputs: Sequence[Mapping[str, Any]]) -> str:
    """The outputs of a cell as a terminal without colours would show them; a figure is `[figure]`."""
    texts: list[str] = []
    for streamed, group in groupby(outputs, lambda output: output["output_type"] == "stream"):
        pieces = [_text(output) for output in group]
        texts += ["".join(pieces)] if streamed else pieces  # a stream is stored in the pieces that were written
    lines = [line for text in texts for line in ANSI.sub("", text).strip("\n").split("\n")]
    # of a line that was written over, such as a progress bar, the last state
    return "\n".join(line.rstrip("\r").rpartition("\r")[2].rstrip() for line in lines).strip("\n")


def _text(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _joined(output["text"])
    if output["output_type"] == "error":
        return "\n".join(output["traceback"])
    data = output["data"]
    if any(kind.startswith("image/") for kind in data):
        return "[figure]"  # its text is `<Figure size 640x480 with 1 Axes>`
    return _joined(data.get("text/markdown") or data.get("text/plain") or "")


def _joined(text: str | Sequence[str]) -> str:
    """A notebook stores a text as one string or as a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def write_html(notebook: Path) -> Path:
    """Write an executed notebook as HTML beside it: a page that needs no network, with its code behind a switch."""
    with _converting:
        body, _ = _html_exporter().from_filename(str(notebook))
    page = notebook.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return page


def warm_up() -> None:
    """Convert a small notebook, while a kernel starts: templates are compiled at their first use."""
    with _converting:
        import nbformat

        cells = [nbformat.v4.new_markdown_cell("# *a*"), nbformat.v4.new_code_cell("a = 1")]
        _html_exporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells))


@cache
def _html_exporter() -> HTMLExporter:
    """Jupyter's converter to HTML, which is slow to import."""
    from nbconvert import HTMLExporter

    return HTMLExporter(template_file=str(PAGE))
