"""Cells of a notebook file: their names, and what they printed."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.runtime.executed_notebook import FAILURE, CodeCell, code_cells, labels, printed


def markdown(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "source": source, "metadata": {"tags": list(tags)} if tags else {}}


def code(source: str, *tags: str, outputs: tuple[dict[str, Any], ...] = (), **papermill: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": list(tags)} if tags else {}
    metadata |= {"papermill": papermill} if papermill else {}
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": list(outputs)}


@pytest.mark.parametrize(
    ("cells", "named"),
    [
        pytest.param([markdown("Train it.\nFor long."), code("train()")], "Train it.", id="the sentence above"),
        pytest.param([markdown("# A title"), code("train()")], "train()", id="a title is no sentence"),
        pytest.param([markdown("Set it."), code("a = 1", "parameters")], "Set it.", id="a sentence before a tag"),
        pytest.param([code("a = 1", "parameters")], "parameters", id="its tag"),
        pytest.param([code("x", "66fe1")], "x", id="a tag that is a number is no name"),
        pytest.param([code("\nimport os\nos.x")], "imports", id="imports"),
        pytest.param([code("\n  first()\nsecond()")], "  first()", id="its first line"),
        pytest.param([code("")], "", id="an empty one"),
        pytest.param([markdown(["Train", " it."]), code(["a\n", "b"])], "Train it.", id="lists of lines"),
    ],
)
def test_a_cell_is_called_what_a_person_would_call_it(cells: list[dict[str, Any]], named: str) -> None:
    assert labels(cells)[-1] == named


def stream(text: Any) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": text}


def result(**data: Any) -> dict[str, Any]:
    kinds = {name.replace("_", "/"): value for name, value in data.items()}
    return {"output_type": "execute_result", "data": kinds, "metadata": {}}


ERROR = {
    "output_type": "error",
    "ename": "ValueError",
    "evalue": "no",
    "traceback": ["\x1b[0;31m----\x1b[0m", "\x1b[31mValueError\x1b[0m: no"],
}


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        pytest.param([], "", id="none"),
        pytest.param([stream("one\ntwo\n")], "one\ntwo", id="a stream"),
        pytest.param([stream(["one\n", "two\n"])], "one\ntwo", id="a stream in lines"),
        pytest.param(
            [stream("a "), stream("b\n"), stream("\r 1%"), stream("\r 2%")], "a b\n 2%", id="a stream in pieces"
        ),
        pytest.param([stream("a"), result(text_plain="42"), stream("\nb")], "a\n42\nb", id="a result between streams"),
        pytest.param([stream("  5%\r 50%\r100%\ndone\n")], "100%\ndone", id="a progress bar's last state"),
        pytest.param([stream("100%\r\ndone\r")], "100%\ndone", id="a line that ends in a return"),
        pytest.param([stream("\x1b[1;32mgood\x1b[0m\x1b[K")], "good", id="colours"),
        pytest.param([result(text_html="<b>", text_plain=["a ", "b"])], "a b", id="text before HTML"),
        pytest.param([result(text_markdown="*a*", text_plain="<Markdown>")], "*a*", id="markdown"),
        pytest.param([result(image_png="…", text_plain="<Figure size 640x480>")], "[figure]", id="a figure"),
        pytest.param([result()], "", id="an empty result"),
        pytest.param([ERROR], "----\nValueError: no", id="an error"),
    ],
)
def test_what_a_cell_printed_is_shown_as_on_a_plain_terminal(outputs: list[dict[str, Any]], text: str) -> None:
    assert printed(outputs) == text


def test_papermills_own_cells_in_a_failed_notebook_change_no_name() -> None:
    cells = [
        markdown("<span>An Exception was encountered</span>", FAILURE),
        markdown("Work on."),
        markdown("<span id='papermill-error-cell'>", FAILURE),
        code("work()", outputs=(ERROR,), status="failed", duration=0.25),
        code("more()", status="pending", duration=None),
        code("by hand"),
    ]
    assert code_cells({"cells": cells}) == [
        CodeCell("Work on.", "failed", 0.25, "----\nValueError: no"),
        CodeCell("more()", "pending", None, ""),
        CodeCell("by hand", "", None, ""),
    ]
