"""The data report in a real browser: any screen, either scheme, keyboard, print; and it asks nobody for anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from browsers import DESK, PHONE, grave_violations
from cases import cases
from playwright.sync_api import Page

from pipeline.data.checks.validation import validate
from pipeline.data.coco import Category
from pipeline.data.dataset_origin import with_source
from pipeline.data.report.page import write_report
from pipeline.data.report.preparation import Preparation
from pipeline.data.sample import make_sample
from pipeline.data.split.dataset_split import split
from pipeline.data.tables import exclude

SCREENS = {
    "desk": ("light", DESK),
    "desk, dark": ("dark", DESK),
    "phone": ("light", PHONE),
    "phone, dark": ("dark", PHONE),
}
WIDTH = "document.documentElement.scrollWidth"
GROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 25, 30)"}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Long names, licences, findings and exclusions: whatever the page can show."""
    folder = tmp_path_factory.mktemp("browser")
    drawn = make_sample(folder / "images", images=30, size=96)
    first, *others = drawn.categories
    names = [Category(first.id, "a class with a long name " * 3), *others]
    licence = {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
    images = tuple(replace(each, extra={"license": 1}) if each.id % 3 else each for each in drawn.images)
    info = {"description": "Streets " * 20, "url": "https://example.org/streets", "year": 2026}
    named = replace(drawn, images=images, categories=tuple(names), info=info, licenses=(licence,))
    dataset = with_source(named, "https://example.org/" + "s" * 200 + ".zip", format="coco")
    checked = validate(dataset, folder / "images")
    return write_report(
        folder / "report",
        checked=checked,
        parts=split(checked.dataset, train_share=0.6, eval_share=0.2, groups=checked.groups),
        selected=checked.dataset,
        images_folder=folder / "images",
        exclusions=exclude({"nobody annotated them": 8}, 38),
        preparation=Preparation(
            "0123456789" * 4 + "-dirty",
            "2026-03-01T12:30:00Z",
            {"first_input": "ab" * 32, "second_input": "cd" * 32},
            {"shares": [0.6, 0.2], "names": {"a" * 90: "b"}},
            {"shares": [0.7, 0.15], "names": {}},
            "find the runs of " + "ab" * 32,
        ),
    ).path


@cases("scheme, viewport", SCREENS)
def test_everybody_can_use_it_on_any_screen(
    open_page: Callable[..., Page], report: Path, scheme: str, viewport: dict[str, int]
) -> None:
    page = open_page(report, viewport=viewport, color_scheme=scheme)
    assert page.evaluate(WIDTH) <= viewport["width"]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS[scheme]
    page.locator("summary").click()
    assert page.evaluate(WIDTH) <= viewport["width"]
    assert grave_violations(page) == []


def test_charts_keep_their_white_ground(open_page: Callable[..., Page], report: Path) -> None:
    page = open_page(report, color_scheme="dark")
    grounds = "(all) => [...new Set(all.map((each) => getComputedStyle(each).backgroundColor))]"
    assert page.locator("figure img").evaluate_all(grounds) == [GROUNDS["light"]]


def test_what_is_wider_than_a_phone_scrolls_by_the_keyboard(open_page: Callable[..., Page], report: Path) -> None:
    page = open_page(report, viewport=PHONE)
    regions = page.get_by_role("region", name="Charts: Boxes")
    regions.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(each) => each.scrollLeft > 0", arg=regions.element_handle())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_printed_in_light(open_page: Callable[..., Page], report: Path, tmp_path: Path, scheme: str) -> None:
    page = open_page(report, color_scheme=scheme)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == GROUNDS["light"]
    assert page.locator("nav").is_hidden()
    page.pdf(path=str(tmp_path / "report.pdf"))
    assert (tmp_path / "report.pdf").stat().st_size > 50_000
