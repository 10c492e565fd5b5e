"""An executed notebook: the name of each cell, what each printed, and the whole as HTML.

Cells are read as plain JSON. Jupyter's converter is imported only to write HTML, which takes most of a second; so it is
prepared once for all steps of a command, in a thread, while the first kernel starts.
"""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

FAILURE = "papermill-error-cell-tag"  # of two markdown cells that papermill adds to a notebook that failed
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x08\x0e\x0f]")
FIGURE = "[figure]"
REPR = re.compile(r"(?P<name>[A-Za-z_][\w.]*)\(")
LONGEST_REPR = 20_000  # characters that are parsed
SHORT_FIELD = 80  # characters
_converting = threading.Lock()

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class CodeCell:
    """An executed code cell.

    Attributes:
        label: Its name for a person.
        state: papermill's: `completed`, `failed`, `running` or `pending`.
        seconds: Its duration, once it is over.
        text: What it printed, figures as `[figure]`.
    """

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
    plain = [_plain(text).strip("\n") for text in texts]
    return "\n".join(text for text in plain if text.strip())


def _text(output: Mapping[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _joined(output["text"])
    if output["output_type"] == "error":
        trace = "\n".join(output.get("traceback", []))
        return trace or f"{output.get('ename', '')}: {output.get('evalue', '')}"
    data = output.get("data", {})
    if any(kind.startswith("image/") for kind in data):
        return FIGURE  # its text is `<Figure size 640x480 with 1 Axes>`
    if "text/markdown" in data or "text/plain" not in data:
        return _joined(data.get("text/markdown", "")) or "".join(f"[{kind}]" for kind in list(data)[:1])
    return _without_repr(_joined(data["text/plain"]))


def _without_repr(text: str) -> str:
    """The text of a value; of a repr such as `Model(path=..., size=3)` the class and its short fields."""
    if text.startswith("<") and text.endswith(">"):
        return f"[{text[1:-1].split()[0]}]"
    call = REPR.match(text)
    if not call or not text.endswith(")"):
        return text
    try:
        parsed = ast.parse(text[:LONGEST_REPR], mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        return f"[{call['name']}]"
    fields = parsed.keywords if isinstance(parsed, ast.Call) else []
    shown = {each.arg: each.value.value for each in fields if isinstance(each.value, ast.Constant)}
    lines = [
        f"  {name}  {value}"
        for name, value in shown.items()
        if not isinstance(value, bytes) and len(str(value)) <= SHORT_FIELD
    ]
    return "\n".join([f"[{call['name']}]", *lines])


def _plain(text: str) -> str:
    """The text without colours, and the last state of each line that was written over."""
    lines = ANSI.sub("", text).split("\n")
    return "\n".join(next((part for part in reversed(line.split("\r")) if part), "").rstrip() for line in lines)


def _joined(text: str | Sequence[str]) -> str:
    """A notebook stores a text as one string or as a list of lines."""
    return text if isinstance(text, str) else "".join(text)


def prepare_html() -> None:
    """Begin to prepare `write_html` in a thread, and return at once."""
    _start()


def write_html(notebook: Path) -> Path:
    """Write an executed notebook as HTML beside it."""
    with _converting:  # waits for the preparation
        body, _ = _exporter().from_filename(str(notebook))
    page = notebook.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return page


@cache
def _start() -> threading.Thread:
    thread = threading.Thread(target=_warm_up, name="html")
    thread.start()
    return thread


def _warm_up() -> None:
    """Convert a notebook with a cell of each kind: templates are compiled at their first use."""
    with _converting:
        import nbformat

        code, text, output = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell, nbformat.v4.new_output
        cells = [text("# *a*"), code("a = 1", outputs=[output("stream", text="a\n")])]
        _exporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells))


@cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="lab")
