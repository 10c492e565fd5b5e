"""The data report: whole, self-contained, escaped, and saying what the data set is."""

from __future__ import annotations

import base64
import csv
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from crowded import crowded
from operations import lines_run

from pipeline.data import fonts
from pipeline.data.checks.findings import Finding, Findings
from pipeline.data.checks.validation import Validation
from pipeline.data.coco import Category, CocoDataset, Image
from pipeline.data.dataset_origin import with_source
from pipeline.data.report.page import write_report
from pipeline.data.report.preparation import Preparation
from pipeline.data.sample import make_sample
from pipeline.data.split.dataset_split import Split, split
from pipeline.data.tables import exclude

EVIL = "<script>alert('1')</script>"
VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Text, elements, tables and the addresses that a browser would fetch; tags must close in order."""

    def __init__(self, path: Any) -> None:
        super().__init__()
        self.text, self.open, self.rows = "", [], []
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.feed(path.read_text("utf-8"))
        self.close()
        assert self.open == []
        self.text = re.sub(r"\s+", " ", self.text)
        self.addresses = [address for name in ("src", "href", "srcset", "action") for address in self.values(name)]

    def values(self, name: str) -> list[Any]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def handle_starttag(self, tag: Any, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        assert len(dict(attributes)) == len(attributes)
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: Any) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: Any) -> None:
        if "style" in self.open:
            assert not re.search(r"url\(|@import", data)
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data.replace("\u2009", "")

    def row(self, first: Any) -> Any:
        """The first row that begins with this cell."""
        return next(row for row in self.rows if row[0] == first)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    folder = tmp_path_factory.mktemp("shapes")
    return make_sample(folder, images=40), folder


def write(
    folder: Any, shapes: Any, *, dataset: Any = None, parts: Any = None, findings: Any = None, **options: Any
) -> Any:
    """A report about the shapes, changed as asked, with some findings."""
    dataset = dataset or shapes[0]
    return write_report(
        folder,
        checked=Validation(dataset, Findings(FINDINGS if findings is None else tuple(findings))),
        parts=parts or split(dataset, train_share=0.6, eval_share=0.2),
        selected=dataset,
        images_folder=shapes[1],
        **{"sample_images": 2, **options},
    )


@pytest.fixture(scope="module")
def written(shapes: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report about the shapes as they are."""
    folder = tmp_path_factory.mktemp("report") / "new"
    return write(folder, shapes)


@pytest.fixture
def report(shapes: Any, tmp_path: Path) -> Any:
    """Writes a report with changes."""
    return partial(write, tmp_path / "report", shapes)


FINDINGS = (
    Finding("boxes-outside", "warning", "annotation 3", "repaired", "cut", "shapes_000001.jpg", (-9, 5, 40, 40)),
    Finding("boxes-outside", "warning", "annotation 4", "repaired", "cut", "shapes_000002.jpg", (240, 5, 40, 40)),
    Finding("truncated", "error", "image 'x\"y'", "dropped", "ends early", 'x"y <i>.jpg'),
)  # fmt: skip


def test_the_page_is_whole_and_fetches_nothing_and_describes_its_pictures(written: Any) -> None:
    page = Page(written.path)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.elements}
    outside = [each for each in page.addresses if not each.startswith(("data:image/", "#"))]
    assert outside == ["findings.csv"]
    assert (written.path.parent / "findings.csv").is_file()
    anchors = [each[1:] for each in page.addresses if each.startswith("#")]
    assert sorted(anchors) == sorted(page.values("id"))
    assert len(anchors) == 8
    assert "default-src 'none'" in written.path.read_text("utf-8")
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 7 + 2 + 4 * 2  # charts, two findings with an image, two samples of each class
    for each in images:
        kind, _, data = each["src"].partition(";base64,")
        pixels = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
        assert kind in ("data:image/png", "data:image/jpeg")
        assert pixels.shape[:2] == (int(each["height"]), int(each["width"]))
        assert each["alt"].strip()


def test_its_numbers_are_those_of_the_data_set(written: Any, shapes: Any) -> None:
    dataset = shapes[0]
    parts = split(dataset, train_share=0.6, eval_share=0.2)
    page = Page(written.path)
    for name, part in {**parts.subsets, "all": dataset}.items():
        expected = [name, len(part.images), part.background, len(part.annotations)]
        assert page.row(name)[:4] == list(map(str, expected))
    for category in dataset.categories:
        row = page.row(category.name)
        for column, part in zip((1, 5, 9), parts.subsets.values(), strict=True):
            boxes = [each for each in part.annotations if each.category_id == category.id]
            assert row[column] == str(len({each.image_id for each in boxes}))
            assert row[column + 2] == str(len(boxes))
    assert f"{len(dataset.images)} images" in page.text or f"images {len(dataset.images)}" in page.text
    assert page.row("boxes-outside")[:4] == ["boxes-outside", "warning", "repaired", "2"]
    assert page.row("truncated")[:4] == ["truncated", "error", "dropped", "1"]


def test_every_finding_is_a_line_of_the_file_and_the_splits_are_beside_the_classes(report: Any, shapes: Any) -> None:
    lacks = [
        Finding("class-absent-from-subset", "warning", f"class 'kind {i}'", "reported", f"none of {i} in eval")
        for i in range(50)
    ]
    written = report(parts=replace(split(shapes[0]), findings=Findings(tuple(lacks))))
    with (written.path.parent / "findings.csv").open(encoding="utf-8", newline="") as file:
        rules = Counter(each["rule"] for each in csv.DictReader(file))
    assert rules == {"boxes-outside": 2, "truncated": 1, "class-absent-from-subset": 50}
    assert len(written.findings) == 53
    page = Page(written.path)
    assert "Findings of the split; the first 40 of 50" in page.text
    lines = [row for row in page.rows if row[:2] == ["warning", "class-absent-from-subset"]]
    assert [line[3] for line in lines] == [f"none of {i} in eval" for i in range(40)]


def test_the_worst_findings_come_first(report: Any) -> None:
    mixed = [
        Finding("rule", severity, f"image {n}", "reported", "") for n, severity in enumerate(("info", "error") * 3)
    ]
    written = report(findings=[*mixed, Finding("rule", "warning", "image 9", "reported", "")])
    told = [each.severity for each in written.findings]
    assert told == ["error"] * 3 + ["warning"] + ["info"] * 3
    assert [each.item for each in written.findings[:3]] == ["image 1", "image 3", "image 5"], "otherwise as they came"


def test_what_the_notebook_shows_is_what_the_page_shows(written: Any) -> None:
    page = written.path.read_text("utf-8")
    for section in written.figures.parts.values():
        assert section.__html__() in page
        assert section.__html__() in written.figures._repr_html_()
    headings = re.findall("<h2[^>]*>([^<]*)</h2>", written.figures._repr_html_())
    assert headings == re.findall("<h2[^>]*>([^<]*)</h2>", page)[2:8]
    assert len(repr(written.figures)) < 300
    assert repr(written) == str(written)
    assert len(str(written).splitlines()) == 7
    assert str(written.counts) in str(written)


def test_the_head_says_where_the_data_comes_from_and_how_it_was_made(report: Any, shapes: Any) -> None:
    by, nc = {"id": 1, "name": "CC BY", "url": "https://x.org/by"}, {"id": 2, "name": EVIL, "url": "javascript:alert()"}
    images = tuple(
        replace(each, extra={"license": 1 + each.id % 2} if each.id < 40 else {}) for each in shapes[0].images
    )
    named = replace(shapes[0], images=images, info={"description": "Streets", "year": 2026}, licenses=(by, nc))
    made = Preparation(
        "0123abc-dirty",
        "2026-03-01T12:30:00Z",
        {"labels": "cafe"},
        {"share": 0.5, "seed": 7, "classes": []},
        {"share": 0.7, "seed": 7, "classes": []},
        "find cafe",
    )
    written = report(dataset=with_source(named, "/home/anna/street.zip", format="yolo"), preparation=made)
    page = Page(written.path)
    for part in (
        "Data report: Streets",
        "source street.zip annotations beside the images, read as yolo published year 2026",
        f"licences {EVIL}: 20 images CC BY: 19 images none stated: 1 image",
        "commit 0123abc of 2026-03-01 12:30 UTC, with uncommitted changes inputs labels cafe",
        "parameters share 0.5 (default 0.7) all parameters share 0.5 seed 7 classes []",
        "runs find cafe lists those that made this data, and what was made from it; not those that reused a step",
    ):
        assert part in page.text, page.text[:1500]
    assert "https://x.org/by" in page.addresses
    assert "javascript" not in written.path.read_text("utf-8")


def test_half_a_letter_in_a_text_does_not_stop_it(report: Any, shapes: Any) -> None:
    first, *others = shapes[0].categories
    named = replace(
        shapes[0], info={"description": "Rome \ud83d"}, categories=(replace(first, name="cat \ud83d"), *others)
    )
    page = Page(report(dataset=named).path)
    assert "Data report: Rome ?" in page.text
    assert page.row("cat ?")


def test_what_is_not_recorded_is_said(report: Any, shapes: Any) -> None:
    text = Page(report(dataset=replace(shapes[0], info={})).path).text
    head = text[text.index("source") : text.index("Counts")].strip()
    assert head == "source not recorded licences not stated commit not recorded parameters not recorded"


def test_parameters_at_their_defaults_are_no_news(report: Any) -> None:
    made = Preparation("0123abc", "", {}, {"seed": 7}, {"seed": 7})
    assert "parameters all at their defaults all parameters seed 7" in Page(report(preparation=made).path).text


def test_what_was_excluded_is_the_first_table(report: Any, written: Any, shapes: Any) -> None:
    images = exclude({"nobody annotated them": 80, "by the rule truncated-image": 2}, 122)
    boxes = exclude({"by the rule truncated-image": 3}, 99, what="boxes")
    page = Page(report(exclusions=(*images, *boxes)).path)
    assert page.rows[1:4] == [
        ["80", "122", "images", "all", "nobody annotated them"],
        ["2", "122", "images", "all", "by the rule truncated-image"],
        ["3", "99", "boxes", "all", "by the rule truncated-image"],
    ]
    count = len(shapes[0].annotations)
    assert "images: 122 loaded = 40 kept + 82 excluded" in page.text
    assert f"boxes: {count + 3} loaded = {count} kept + 3 excluded" in page.text
    assert "No image and no box was excluded" in Page(written.path).text


def test_words_from_outside_are_escaped(report: Any, shapes: Any) -> None:
    dataset = shapes[0]
    first, *others = dataset.categories
    named = replace(dataset, categories=(replace(first, name=EVIL), *others))
    bad = Finding(EVIL, "error", EVIL, "dropped", EVIL, f"{EVIL}\"'.jpg")
    written = report(dataset=named, findings=[bad])
    text = written.path.read_text("utf-8")
    assert "<script" not in text + written.figures._repr_html_()
    page = Page(written.path)
    assert page.row(EVIL)[0] == EVIL
    assert page.text.count(EVIL) >= 5


def test_the_same_input_gives_the_same_bytes(written: Any, shapes: Any, tmp_path: Path) -> None:
    again = write(tmp_path, shapes)
    assert again.path.read_bytes() == written.path.read_bytes()
    other = write(tmp_path, shapes, seed=1)  # over the older one
    assert other.path == again.path
    assert other.path.read_bytes() != written.path.read_bytes()


@cases(
    "dataset",
    {
        "nothing": CocoDataset((), (), ()),
        "an-image-without-boxes": CocoDataset((Image(1, "none.jpg", 64, 48),), (), (Category(1, "cat"),)),
    },
)
def test_a_data_set_with_little_in_it(report: Any, dataset: Any) -> None:
    none = dataset.subset(())
    page = Page(report(dataset=dataset, parts=Split(dataset, none, none), findings=()).path)
    assert "Nothing was found wrong" in page.text
    assert "There are no boxes to show." in page.text


def test_names_that_no_font_can_write_are_said(
    report: Any, shapes: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "_installed", dict)
    first, second, *others = shapes[0].categories
    named = replace(shapes[0], categories=(replace(first, name="猫"), replace(second, name="བོད"), *others))
    page = Page(report(dataset=named, parts=Split(named, named, named), findings=()).path)
    said = "lass names shown as numbers: 1; no font here has Tibetan (on Debian: apt install fonts-noto)"
    assert f"C{said}: #{second.id} is བོད." in page.text
    assert f"c{said}" in caplog.messages


def test_a_page_of_eighty_classes_stays_within_six_megabytes(report: Any) -> None:
    dataset = crowded(1600, 200, files=40)
    written = report(dataset=dataset, parts=Split(dataset, dataset, dataset), sample_images=9)
    assert written.path.stat().st_size < 6e6
    assert len(written.figures.parts["Samples"].rows) == 80


@pytest.mark.slow
def test_work_grows_with_the_boxes_and_not_with_their_square(report: Any) -> None:
    few, many = (crowded(boxes, 100, files=40) for boxes in (250, 5_000))
    report(dataset=few, parts=Split(few, few, few))  # what the first one alone must do: fonts, caches
    work = [lines_run(lambda each=each: report(dataset=each, parts=Split(each, each, each))) for each in (few, many)]
    assert work[1] <= 10 * work[0]  # the page itself is most of the work for few
