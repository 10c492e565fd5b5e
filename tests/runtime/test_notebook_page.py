"""The page of an executed notebook, in a real browser."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from playwright.sync_api import Page, expect

from pipeline.runtime.executed_notebook import write_html

PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf50000003810181"
        "c5c8d3290000000049454e44ae426082"
    )
).decode()
LONG = "x" * 300


def tagged(source: str, *tags: str, outputs: tuple[Any, ...] = ()) -> Any:
    return new_code_cell(source, execution_count=1, metadata={"tags": list(tags)}, outputs=list(outputs))


CELLS = [
    new_markdown_cell("# Train\n\nIt costs $5, or \\(x^2\\).\n\n```mermaid\ngraph TD\n```"),
    tagged("import os"),
    tagged("epochs: int = 20  # passes over the train set", "parameters"),
    tagged(f"# Parameters\nepochs = 3\nurl = '{LONG}'", "injected-parameters"),
    new_markdown_cell("Loss by epoch."),
    tagged(
        f"draw(history, '{LONG}')",
        outputs=(
            new_output("stream", text=f"epoch 1: {LONG}\n"),
            new_output("stream", name="stderr", text="100% |####|\n"),
            new_output("display_data", data={"image/png": PIXEL, "text/plain": "<Figure>"}),
        ),
    ),
    tagged("fail()", outputs=(new_output("error", ename="ValueError", evalue="no luck", traceback=["no luck"]),)),
]
HIDDEN = ("import os", "passes over the train set", "draw(history", "fail()")
SHOWN = ("Loss by epoch.", "epochs = 3", "epoch 1: ", "no luck")


@pytest.fixture
def open_notebook(open_page: Callable[..., Page], tmp_path: Path) -> Callable[[int], Page]:
    """`open_notebook(width)`: the page of the notebook."""
    nbformat.write(new_notebook(cells=CELLS), tmp_path / "train.ipynb")
    page = write_html(tmp_path / "train.ipynb")
    return lambda width: open_page(page, viewport={"width": width, "height": 800})


def visible(page: Page) -> set[str]:
    return {text for text in (*HIDDEN, *SHOWN) if page.get_by_text(text).first.is_visible()}


@pytest.mark.parametrize("width", [1280, 400])
def test_code_is_hidden_at_first_and_shown_by_the_keyboard(open_notebook: Callable[[int], Page], width: int) -> None:
    page = open_notebook(width)
    assert visible(page) == set(SHOWN), "what was printed, and the run's parameters, are the report"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert visible(page) == {*SHOWN, *HIDDEN}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Space")
    assert visible(page) == set(SHOWN)
    page.locator("label").click()
    assert visible(page) == {*SHOWN, *HIDDEN}
    expect(page.get_by_role("checkbox", name="Show the code")).to_be_checked()


def test_printing_follows_the_switch(open_notebook: Callable[[int], Page]) -> None:
    page = open_notebook(1280)
    page.emulate_media(media="print")
    assert visible(page) == set(SHOWN)
    expect(page.locator("label")).to_be_hidden()
    page.get_by_role("checkbox").check(force=True)
    assert visible(page) == {*SHOWN, *HIDDEN}


def test_a_progress_bar_is_not_as_red_as_an_error(open_notebook: Callable[[int], Page]) -> None:
    page = open_notebook(1280)
    backs = ["no luck", "100%"]
    colours = [
        page.get_by_text(text).evaluate("each => getComputedStyle(each.parentElement).backgroundColor")
        for text in backs
    ]
    assert colours == ["rgb(255, 221, 221)", "rgba(0, 0, 0, 0)"]


def test_the_page_has_no_script_of_its_own(tmp_path: Path) -> None:
    nbformat.write(new_notebook(cells=CELLS), tmp_path / "train.ipynb")
    assert "<script" not in write_html(tmp_path / "train.ipynb").read_text()
