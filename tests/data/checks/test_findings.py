from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

from pipeline.data.checks.findings import Finding, Findings
from pipeline.data.checks.validation import apply_rules
from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.images import ImageFacts

CAT = Category(1, "cat")


def finding(number: int, **fields: object) -> Finding:
    given = {"rule": "tiny-box", "severity": "warning", "item": f"annotation {number} in image 1", "action": "dropped"}
    return Finding(**(given | {"detail": "a side is below 1", "file_name": "<b>.png"} | fields))


def test_counts_actions_and_short_examples() -> None:
    found = Findings(tuple(finding(number) for number in range(1, 31)))
    examples = "annotation 1 in image 1, annotation 2 in image 1, annotation 3 in image 1, …"
    assert found.summary.rows == (("tiny-box", "warning", "dropped", 30, examples),)
    assert repr(found) == str(found) == str(found.summary), "a log has no records"
    assert "tiny-box  warning   dropped     30  annotation 1" in str(found)
    html = found._repr_html_()
    assert "&lt;b&gt;.png" in html
    assert "<b>" not in html
    assert html.count("<tr>") == 2 + 21
    assert "first 20 findings" in html
    others = Findings((finding(1, item="image 1 (" + "x" * 200 + ")"), finding(2, action="reported"), finding(3)))
    assert [row[2:4] for row in others.summary.rows] == [("dropped", 2), ("reported", 1)]
    assert len(str(others.summary.rows[0][4]).partition(",")[0]) == 40
    placed = Findings((finding(1, source="labels/a.txt:3"), finding(2, source="long/" * 20 + "b.txt:7")))
    assert placed.summary.rows[0][4] == "labels/a.txt:3, …g/long/long/long/long/long/long/b.txt:7"
    assert str(Findings()) == "Nothing was found wrong"
    assert "Nothing was found wrong" in Findings()._repr_html_()


def test_csv_has_all_and_a_spreadsheet_runs_nothing(tmp_path: Path) -> None:
    starts = ("=", "+", "-", "@", "\t", "\r=", "\n=", " =")
    names = [f"{start}HYPERLINK(1).png" for start in starts]
    Findings((finding(0), *(finding(1, file_name=name) for name in names))).write_csv(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(newline="") as file:
        first, *others = csv.DictReader(file)
    assert first == {
        "rule": "tiny-box",
        "severity": "warning",
        "action": "dropped",
        "item": "annotation 0 in image 1",
        "file_name": "<b>.png",
        "source": "",
        "detail": "a side is below 1",
    }
    assert [each["file_name"] for each in others] == ["'" + re.sub(r"[\r\n]", " ", name) for name in names]


def test_a_fault_of_a_label_names_its_place_and_that_of_the_other(tmp_path: Path) -> None:
    first = Annotation(1, 1, 1, (5.0, 5.0, 9.0, 9.0), 81.0, source="a.txt:1")
    dataset = CocoDataset((Image(1, "a.png", 60, 40),), (first, replace(first, id=2, source="a.txt:2")), (CAT,))
    found = apply_rules(dataset, {"a.png": ImageFacts(60, 40)}).findings
    found.write_csv(tmp_path / "findings.csv")
    with (tmp_path / "findings.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["rule"], row["source"]) == ("duplicate-box", "a.txt:2")
    assert row["detail"].endswith("is there already, as annotation 1 (a.txt:1)")


def test_what_cannot_be_drawn_has_no_box() -> None:
    image = Image(1, "a.png", 60, 40)
    boxes = ((5.0, 5.0, float("nan"), 5.0), (70.0, 5.0, 9.0, 9.0))
    annotations = tuple(Annotation(i, 1, 1, bbox, 9.0) for i, bbox in enumerate(boxes, 1))
    found = apply_rules(CocoDataset((image,), annotations, (CAT,)), {"a.png": ImageFacts(60, 40)})
    first, second = found.findings[:2]
    assert (first.bbox, second.bbox) == (None, boxes[1])
    assert first.file_name == second.file_name == "a.png"
