"""The report in a real browser: filters, search, keyboard, zoom, print, contrast; and it asks nobody for anything."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browsers import DESK, PHONE, grave_violations
from cases import cases
from crowded import crowded
from detections import found
from evaluations import write_evaluated
from playwright.sync_api import Browser, Locator, Page, expect

from pipeline.data.coco import write_coco
from pipeline.evaluation.changes import find_changes
from pipeline.evaluation.examples import BEST_HITS, FALSE_ALARMS, MOST_ERRORS, WORST_MISSES, Example
from pipeline.evaluation.report.comparison_page import write_comparison
from pipeline.evaluation.report.gallery import ExampleGallery, draw_gallery, make_gallery
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth, read_ground_truth
from pipeline.metrics.paired import compare_models

SECTIONS = ["Gate", "Images", "Training images in the test set", "Classes", "Curves", "Slices", "Errors", "Examples"]
SECTIONS += ["Service"]
CLASSES = ("cat", "dog", "owl & <b>eagle</b>")
SIDES = (20, 60, 120)  # small, medium, large
FEW = 12
RECT = "(each) => { const r = each.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; }"


@dataclass(frozen=True)
class Written:
    """Pages of a made-up test set, and the gallery in the first."""

    report: Path
    comparison: Path
    gallery: ExampleGallery

    def count(self, fits: Callable[[Example], bool]) -> int:
        """How many examples of the gallery fit."""
        return sum(fits(each) for examples in self.gallery.groups.values() for each in examples)


@pytest.fixture(scope="module")
def written(coco_file: Callable[..., GroundTruth], tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Thirty images with three objects each, of three sizes; models that find some, with every kind of error."""
    rng = np.random.default_rng(0)
    names = [f"Street{number:02d}.png" for number in range(1, 31)]
    boxes, before, after = [], [], []
    for image in range(1, 31):
        for place, side in enumerate(SIDES):
            box, label = [10 + 110 * place, 60, side, side], int(rng.integers(3)) + 1
            boxes.append((image, label, box))
            moved = [box[0] + side // 2, *box[1:]]
            other = label % 3 + 1
            kinds = [(label, box), (label, moved), (other, box), (other, moved), (label, [300, 5, 40, 40])]
            for results in (before, after):
                for named, where in [kinds[0], kinds[int(rng.integers(5))]][: int(rng.integers(3))]:
                    results.append(found(image, named, where, round(float(rng.uniform(0.3, 1)), 3)))
    truth = coco_file(boxes, CLASSES, images=names, size=(400, 240))
    (truth.folder / "images").mkdir()
    for image in truth.images:
        pixels = cv2.resize(rng.integers(60, 200, (12, 20, 3), np.uint8), (400, 240), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(truth.path_of(image.file_name)), pixels)
    folder = tmp_path_factory.mktemp("pages")
    metrics, later = evaluate(truth, before), evaluate(truth, after)
    gallery = make_gallery(truth, metrics)
    write_evaluated(folder / "report.html", truth, before, gallery, others={"given": after, "earlier": "there is none"})
    changes = find_changes(truth, metrics, later)
    write_comparison(
        folder / "comparison.html",
        truth=truth,
        names=("20260101T000000Z", "20260102T000000Z"),
        paired=compare_models(truth, before, after, draws=20),
        changes=changes,
        gallery=draw_gallery(truth, {"before": metrics, "after": later}, changes.select(12)),
    )
    return Written(folder / "report.html", folder / "comparison.html", gallery)


@pytest.fixture
def page(open_page: Callable[..., Page], written: Written) -> Page:
    """The report."""
    return open_page(written.report)


def shown(page: Page) -> Locator:
    return page.locator("#gallery li[data-image]:visible")


def show_all(page: Page) -> None:
    while page.locator(".more:visible").count():
        page.locator(".more:visible").first.click()


def number_told(page: Page) -> int:
    return int(page.locator(".told").inner_text().split()[0])


def test_the_report_has_its_sections_and_the_gallery_its_groups(page: Page, written: Written) -> None:
    assert page.locator("main > h2").all_inner_texts() == [*SECTIONS, "Where it came from"]
    groups = page.locator("#gallery .group h3").all_inner_texts()
    assert groups == list(written.gallery.groups)
    assert {WORST_MISSES, FALSE_ALARMS, BEST_HITS, MOST_ERRORS} <= set(groups)
    assert number_told(page) == written.count(lambda each: True)


FILTERS: dict[str, tuple[dict[str, str], Callable[[Example], bool]]] = {
    "class": ({"label": CLASSES[2]}, lambda each: 2 in each.labels),
    "kind": ({"kind": "localisation"}, lambda each: each.kind == "localisation"),
    "missed": ({"kind": "missed"}, lambda each: each.kind == "missed"),
    "size": ({"size": "small"}, lambda each: each.size == "small"),
    "from a score": ({"low": "0.8"}, lambda each: each.score is not None and round(each.score, 3) >= 0.8),
    "a range of scores": ({"low": "0.5", "high": "0.8"}, lambda each: 0.5 <= round(each.score or 0, 3) <= 0.8),
    "a file name in small letters": ({"file": " street07"}, lambda each: each.image_id == 7),
    "all of it": (
        {"label": "dog", "kind": "background", "size": "medium", "low": "0.4"},
        lambda each: 1 in each.labels and each.kind == "background" and each.size == "medium" and each.score >= 0.4,
    ),
    "nothing": ({"file": "no such image"}, lambda each: False),
}


@cases("values, fits", FILTERS)
def test_filters_show_what_fits_and_nothing_else(
    page: Page, written: Written, values: dict[str, str], fits: Callable[[Example], bool]
) -> None:
    for name, value in values.items():
        field = page.locator(f"[name={name}]")
        if name in ("label", "kind", "size"):
            field.select_option(label=value)
        else:
            field.fill(value)
    expected = written.count(fits)
    assert number_told(page) == expected
    assert (expected == 0) == ("file" in values and "no such" in values["file"])
    told = page.locator(".told").inner_text()
    assert all(value.strip() in told for value in values.values())
    show_all(page)
    assert shown(page).count() == expected
    empty = sum(not any(map(fits, examples)) for examples in written.gallery.groups.values())
    assert page.locator(".none:visible").count() == empty
    page.get_by_role("button", name="Reset").click()
    total = written.count(lambda each: True)
    expect(page.locator(".told")).to_have_text(f"{total} of {total} examples")


def test_a_group_shows_its_first_examples_until_all_are_asked_for(page: Page, written: Written) -> None:
    misses = page.locator(".group").filter(has=page.get_by_role("heading", name=WORST_MISSES))
    total = len(written.gallery.groups[WORST_MISSES])
    assert total > FEW
    assert misses.locator("li:visible").count() == FEW
    misses.get_by_role("button", name=f"Show all {total}").click()
    assert misses.locator("li:visible").count() == total
    expect(misses.locator("button.tile").nth(FEW)).to_be_focused()


def test_it_can_be_used_by_keyboard_alone(page: Page) -> None:
    page.locator("[name=label]").focus()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('tile')"):
            break
    tiles, dialog = page.locator("button.tile:visible"), page.locator("dialog")
    expect(tiles.first).to_be_focused()
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    title = dialog.locator("h3")
    first, total = title.inner_text(), shown(page).count()
    assert first.endswith(f"(1 of {total})")
    page.keyboard.press("ArrowLeft")
    assert title.inner_text().endswith(f"({total} of {total})")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert title.inner_text().endswith(f"(3 of {total})")
    for _ in range(12):  # all controls of the dialog, and none outside of it
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(tiles.nth(2)).to_be_focused()


def view_of(page: Page) -> list[float]:
    return list(map(float, page.locator("dialog svg").first.get_attribute("viewBox").split()))


def test_it_zooms_to_the_example_and_moves(page: Page, written: Written) -> None:
    page.locator("button.tile:visible").first.click()
    assert view_of(page) == [0, 0, 400, 240]
    for _ in range(4):
        page.keyboard.press("+")
    x, y, width, height = view_of(page)
    assert 90 < width < 110
    assert width / height == pytest.approx(400 / 240)
    left, top, side, _ = written.gallery.groups[WORST_MISSES][0].box
    assert x <= left + side / 2 <= x + width
    assert y <= top + side / 2 <= y + height
    title = page.locator("dialog h3").inner_text()
    for key in ("ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    assert view_of(page)[0] < x or x == 0
    assert page.locator("dialog h3").inner_text() == title
    for svg in page.locator("dialog svg").all():
        assert svg.get_attribute("viewBox") == page.locator("dialog svg").first.get_attribute("viewBox")
    for _ in range(6):
        page.get_by_role("button", name="Zoom out").click()
    assert view_of(page) == [0, 0, 400, 240]
    page.locator("dialog svg").first.hover()
    page.mouse.wheel(0, -100)
    expect(page.locator("dialog svg").first).not_to_have_attribute("viewBox", "0 0 400 240")


def test_boxes_lie_at_the_pixels_of_their_objects(page: Page, written: Written) -> None:
    page.locator("button.tile:visible").first.click()
    panes = page.locator("dialog figure")
    assert panes.locator("figcaption").all_inner_texts() == ["ground truth", "predictions"]
    left, top, right, bottom = panes.first.locator("svg").evaluate(RECT)
    assert (right - left) / (bottom - top) == pytest.approx(400 / 240, rel=0.01)
    scale = (right - left) / 400
    x, y, width, height = (side * scale for side in written.gallery.groups[WORST_MISSES][0].box)
    drawn = panes.first.locator("rect.focus").evaluate(RECT)
    assert drawn == pytest.approx([left + x, top + y, left + x + width, top + y + height], abs=2)
    assert panes.first.locator("rect.focus").evaluate("(each) => getComputedStyle(each).vectorEffect") == (
        "non-scaling-stroke"
    )
    outlines = page.locator("defs path").first
    assert outlines.evaluate("(each) => getComputedStyle(each).vectorEffect") == "non-scaling-stroke"


def test_ground_truth_and_predictions_can_be_hidden(page: Page) -> None:
    tile = shown(page).first
    for layer, name in (("truth", "ground truth"), ("found", "predictions")):
        assert tile.locator(f"use.{layer}").evaluate("(each) => getComputedStyle(each).display") == "inline"
        page.get_by_label(name).first.uncheck()
        assert tile.locator(f"use.{layer}").evaluate("(each) => getComputedStyle(each).display") == "none"
        expect(page.locator(f"dialog [data-layer={layer}]")).not_to_be_checked()


SCREENS = {
    "desk": ("report", "light", DESK),
    "desk, dark": ("report", "dark", DESK),
    "phone": ("report", "light", PHONE),
    "phone, dark": ("report", "dark", PHONE),
    "comparison": ("comparison", "light", DESK),
    "comparison, phone, dark": ("comparison", "dark", PHONE),
}


@cases("name, scheme, viewport", SCREENS)
def test_everybody_can_use_it_on_any_screen(
    open_page: Callable[..., Page], written: Written, name: str, scheme: str, viewport: dict[str, int]
) -> None:
    page = open_page(getattr(written, name), viewport=viewport, color_scheme=scheme)
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) <= viewport["width"]
    for is_open in (False, True):
        if is_open:
            page.locator("button.tile:visible").first.click()
            assert page.locator("dialog").evaluate("(each) => each.scrollWidth <= each.clientWidth")
        assert grave_violations(page) == []


def test_print_shows_what_the_filters_show_without_controls(page: Page, tmp_path: Path) -> None:
    page.locator("[name=file]").fill("street07")
    before = shown(page).count()
    page.emulate_media(media="print")
    assert shown(page).count() == before
    assert page.locator("#gallery form").is_hidden()
    assert page.locator(".told").is_visible()
    page.pdf(path=str(tmp_path / "few.pdf"))
    page.emulate_media(media="screen")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".none:visible")).to_have_count(0)
    show_all(page)
    page.pdf(path=str(tmp_path / "many.pdf"))
    few, many = (
        len(re.findall(rb"/Type\s*/Page\b", (tmp_path / name).read_bytes())) for name in ("few.pdf", "many.pdf")
    )
    assert 5 <= few < many


def test_on_paper_no_column_is_cut_off_and_nothing_is_folded(page: Page) -> None:
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less margins of 1 cm, at 96 dpi
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    cut = "each.getBoundingClientRect().right > innerWidth"
    wide = f"tables => tables.filter(each => {cut}).map(each => each.innerText)"
    assert page.locator("table:visible").evaluate_all(wide) == []
    assert page.locator("details:not([open])").count() == 0


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_without_script_all_is_visible(open_page: Callable[..., Page], written: Written, name: str) -> None:
    page = open_page(getattr(written, name), java_script_enabled=False)
    assert shown(page).count() == page.locator("#gallery li[data-image]").count() > 20
    assert page.locator("#gallery :is(form, button, dialog):visible").count() == 0


def test_only_its_own_script_runs(browser: Browser, written: Written, tmp_path: Path) -> None:
    content = written.report.read_text("utf-8").replace("</main>", "<script>document.title = 'theirs'</script></main>")
    (tmp_path / "changed.html").write_text(content, "utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "changed.html").as_uri())
    assert page.title() == "Model Quality Report: YOLOX-nano, 2 classes"
    assert page.locator("#gallery form").is_visible()
    page.close()


def test_a_comparison_shows_both_models_side_by_side(open_page: Callable[..., Page], written: Written) -> None:
    page = open_page(written.comparison)
    assert page.locator("#gallery .group h3").count() >= 4
    page.locator("button.tile:visible").first.click()
    assert page.locator("dialog figcaption").all_inner_texts() == ["before", "after"]
    assert page.locator("dialog svg").count() == 2


def make_large(folder: Path, photographs: list[Path]) -> tuple[GroundTruth, list[dict[str, Any]]]:
    """A test set of 5,000 images with 190,000 detections, 80 classes; the photographs in turns."""
    dataset = crowded(36_500, 5_000)
    write_coco(dataset, folder / "annotations.json")
    (folder / "images").mkdir()
    for number, image in enumerate(dataset.images):
        os.link(photographs[number % len(photographs)], folder / "images" / image.file_name)
    rng = np.random.default_rng(0)
    results = []
    for each in dataset.annotations:
        for _ in range(rng.poisson(5.2)):
            x, y, width, height = each.bbox
            label = each.category_id if rng.random() < 0.8 else int(rng.integers(80))
            box = [float(x + rng.normal() * width / 10), float(y + rng.normal() * height / 10), width, height]
            results.append(found(each.image_id, label, box, float(rng.random())))
    return read_ground_truth(folder / "annotations.json"), results


@pytest.mark.slow
def test_a_report_of_5000_images_is_small_and_opens_fast(browser: Browser, real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / "val2017.zip") as archive:
        archive.extractall(tmp_path)
    truth, results = make_large(tmp_path / "large", sorted((tmp_path / "val2017").glob("*.jpg")))
    assert len(results) > 185_000
    metrics = evaluate(truth, results)
    gallery = make_gallery(truth, metrics)
    for group in (WORST_MISSES, FALSE_ALARMS):
        assert len({each.labels[0] for each in gallery.groups[group]}) == 80
    path = tmp_path / "report.html"
    write_evaluated(path, truth, results, gallery)
    assert path.stat().st_size < 25e6
    took = []
    for _ in range(5):
        page = browser.new_page(viewport=DESK)
        page.goto(path.as_uri())
        took.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        assert page.locator("#gallery form").is_visible()
        page.close()
    assert min(took) < 2000  # milliseconds; other processes only ever make it longer
