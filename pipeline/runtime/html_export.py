"""An executed notebook as HTML.

Jupyter's converter takes most of a second to import and to compile its templates. So it is got ready once for all steps
of a command, in a thread, while the first notebook's kernel starts and this process has nothing to do but wait.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbconvert import HTMLExporter

_making = threading.Lock()


def prepare_pages() -> None:
    """Begin to get ready for `write_page`, and return at once."""
    _start()


def write_page(notebook: Path) -> Path:
    """An executed notebook as HTML beside it."""
    with _making:  # what is still being got ready is waited for
        body, _ = _exporter().from_filename(str(notebook))
    page = notebook.with_suffix(".html")
    page.write_text(body, encoding="utf-8")
    return page


@cache
def _start() -> threading.Thread:
    thread = threading.Thread(target=_warm_up, name="pages")
    thread.start()
    return thread


def _warm_up() -> None:
    """Convert a notebook with a cell of each kind: templates are compiled when they are first used."""
    with _making:
        import nbformat

        code, text, output = nbformat.v4.new_code_cell, nbformat.v4.new_markdown_cell, nbformat.v4.new_output
        cells = [text("# *a*"), code("a = 1", outputs=[output("stream", text="a\n")])]
        _exporter().from_notebook_node(nbformat.v4.new_notebook(cells=cells))


@cache
def _exporter() -> HTMLExporter:
    from nbconvert import HTMLExporter

    return HTMLExporter(template_name="lab")
