from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.data.checks.findings import Finding, Findings
from pipeline.data.checks.validation import apply_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.images import ImageFacts


def finding(number: int, **fields: object) -> Finding:
    given = {"rule": "tiny-box", "severity": "warning", "item": f"annotation {number} in image 1", "action": "dropped"}
    return Finding(**(given | {"detail": "a side is below 1", "file_name": "<b>.png"} | fields))


@pytest.fixture
def thirty() -> Findings:
    return Findings(tuple(finding(number) for number in range(1, 31)))


def test_counts(thirty: Findings) -> None:
    examples = "annotation 1 in image 1, annotation 2 in image 1, annotation 3 in image 1, …"
    assert thirty.summary.rows == (("tiny-box", "warning", "dropped", 30, examples),)
    assert "tiny-box  warning   dropped     30  annotation 1" in str(thirty)


def test_a_rules_actions_are_lines_and_long_examples_are_cut() -> None:
    findings = Findings((finding(1, item="image 1 (" + "x" * 200 + ")"), finding(2, action="reported"), finding(3)))
    assert [row[2:4] for row in findings.summary.rows] == [("dropped", 2), ("reported", 1)]
    assert len(str(findings.summary.rows[0][4]).partition(",")[0]) == 40


def test_html_is_short_and_escaped(thirty: Findings) -> None:
    html = thirty._repr_html_()
    assert "&lt;b&gt;.png" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 2 + 21
    assert "first 20 findings" in html


def test_csv_has_all(thirty: Findings, tmp_path: Path) -> None:
    thirty.write_csv(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert rows[0] == {
        "rule": "tiny-box",
        "severity": "warning",
        "action": "dropped",
        "item": "annotation 1 in image 1",
        "file_name": "<b>.png",
        "detail": "a side is below 1",
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r=", "\n=", " ="])
def test_a_spreadsheet_runs_nothing(start: str, tmp_path: Path) -> None:
    name = f"{start}HYPERLINK(1).png"
    Findings((finding(1, file_name=name),)).write_csv(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(newline="") as file:
        assert next(csv.DictReader(file))["file_name"] == "'" + name.replace("\r", " ").replace("\n", " ")


def test_none() -> None:
    assert str(Findings()) == "Nothing was found wrong"
    assert "Nothing was found wrong" in Findings()._repr_html_()


def test_what_cannot_be_drawn_has_no_box() -> None:
    image, category = Image(1, "a.png", 60, 40), Category(1, "cat")
    boxes = ((5.0, 5.0, float("nan"), 5.0), (70.0, 5.0, 9.0, 9.0))
    annotations = tuple(Annotation(i, 1, 1, bbox, 9.0) for i, bbox in enumerate(boxes, 1))
    found = apply_rules(CocoDataset((image,), annotations, (category,)), {"a.png": ImageFacts(60, 40)})
    first, second = found.findings[:2]
    assert (first.bbox, second.bbox) == (None, boxes[1])
    assert first.file_name == second.file_name == "a.png"


def test_a_log_has_the_summary_and_not_the_records() -> None:
    many = Findings(tuple(Finding("rule", "error", f"image {i}", "dropped", "x" * 50) for i in range(1000)))
    assert repr(many) == str(many) == str(many.summary)
    assert len(repr(many)) < 300
