"""The suspects on the page, and in the files for labelling tools."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from cases import cases
from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.data.coco import read_coco
from pipeline.data.figures import Pixels
from pipeline.data.writing.labelled import LabelledBox
from pipeline.evaluation.label_check import (
    BADLY_PLACED,
    KINDS,
    NO_OBJECT,
    UNLABELLED,
    WRONG_CLASS,
    LabelCheck,
    LabelSuspect,
)
from pipeline.evaluation.report.label_check_report import FILES, label_check_section, write_suspects
from pipeline.metrics.ground_truth import GroundTruth

CAT = LabelledBox("cat", (20.0, 30.0, 60.0, 40.0))
DOG = LabelledBox("dog", (22.0, 30.0, 60.0, 40.0), 0.9)
NEW = LabelledBox("owl", (150.0, 100.0, 40.0, 50.0), 0.8)


def decoded(data: bytes) -> Pixels:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels.astype(np.uint8)


@pytest.fixture
def truth(coco_file: Callable[..., GroundTruth]) -> GroundTruth:
    """Two images of noise, which compresses worst, and one that is missing."""
    crowd = (1, 3, [100, 10, 50, 50], {"iscrowd": 1})
    made = coco_file([(1, 1, CAT.bbox), (1, 2, [200, 20, 50, 60]), crowd, (2, 3, [10, 10, 30, 30])], images=3)
    (made.folder / "images").mkdir()
    for number in (1, 2):
        noise = np.random.default_rng(number).integers(0, 255, (200, 300, 3), np.uint8)
        cv2.imwrite(str(made.path_of(f"{number}.png")), noise)
    return made


def suspects() -> tuple[LabelSuspect, ...]:
    return (
        LabelSuspect("2.png", 2, UNLABELLED, 0.9, None, None, NEW),
        LabelSuspect("1.png", 1, WRONG_CLASS, 0.71234, CAT, 1, DOG),
        LabelSuspect("1.png", 1, NO_OBJECT, 0.6, LabelledBox("dog", (200.0, 20.0, 50.0, 60.0)), 2, None),
        LabelSuspect("2.png", 2, UNLABELLED, 0.5, None, None, replace(NEW, bbox=(5.0, 5.0, 20.0, 20.0))),
    )


def checked(*found: LabelSuspect, trusted: int = 7) -> LabelCheck:
    return LabelCheck(3, 4, trusted, found)


def page(check: LabelCheck, truth: GroundTruth) -> str:
    environment = Environment(
        loader=PackageLoader("pipeline.evaluation.report", ""), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["figure"] = lambda number, digits: f"{number:.{digits}f}"
    section = label_check_section(check, truth, "Test images", "label_check")
    return environment.get_template("label_check.html.j2").render(label_checks=[section])


def words(html: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", html).split())


def test_the_page_lists_them_with_pictures(truth: GroundTruth) -> None:
    html = page(checked(*suspects()), truth)
    rows = [words(each) for each in re.findall("<tr>.*?</tr>", html, re.DOTALL)]
    assert [row.rpartition(" ")[2] for row in rows[1:5]] == ["2", "1", "0", "1"]  # of each kind
    assert rows[6:] == [
        "object without a label nothing owl 0.80 0.90 2.png",
        "wrong class cat dog 0.90 0.71 1.png",
        "label without an object dog nothing 0.60 1.png",
        "object without a label nothing owl 0.80 0.50 2.png",
    ]
    assert html.count("<img ") == 4
    assert 'alt="wrong class in 1.png"' in html
    assert "4 labels of 3 images were compared with the 7 detections" in words(html)
    for name in [*FILES.values(), "label_studio.setup.xml"]:
        assert name in html


@cases(
    "check, told",
    {
        "no suspect": (checked(), "No label is suspect: 4 labels of 3 images were compared with 7 detections"),
        "no trust": (checked(trusted=0), "at no score are 80 % of its detections right"),
    },
)
def test_without_suspects_the_page_says_why(truth: GroundTruth, check: LabelCheck, told: str) -> None:
    html = page(check, truth)
    assert told in words(html)
    assert "<table" not in html


def test_a_picture_shows_both_boxes_and_what_is_around(truth: GroundTruth) -> None:
    cv2.imwrite(str(truth.path_of("1.png")), np.zeros((200, 300, 3), np.uint8))
    [shown] = label_check_section(checked(suspects()[1]), truth, "x", "x").shown
    picture = decoded(shown.picture.data)
    # the boxes together are (20, 30) to (82, 70), with half of that around them as far as the image goes
    assert picture.shape == (round(80 * 240 / 113), 240, 3)
    assert (shown.picture.width, shown.picture.height) == picture.shape[1::-1]
    blue, orange = np.array([178, 114, 0]), np.array([0, 94, 213])
    zoom = 240 / 113
    for colour, x in ((blue, 20), (orange, 82)):  # the left edge of the label, the right one of the detection
        column = picture[round(30 * zoom), round(x * zoom) - 1 : round(x * zoom) + 2].astype(int)
        assert np.abs(column - colour).max(axis=1).min() < 60


@cases(
    "box",
    {
        "in a corner": (290.0, 190.0, 10.0, 10.0),
        "without a side": (299.9, 100.0, 0.0, 0.0),
        "outside": (400.0, 300.0, 50.0, 50.0),
        "around all": (-50.0, -50.0, 500.0, 500.0),
        "thin": (0.0, 100.0, 300.0, 0.5),
    },
)
def test_a_box_anywhere_has_a_picture(truth: GroundTruth, box: Any) -> None:
    suspect = LabelSuspect("1.png", 1, BADLY_PLACED, 0.5, LabelledBox("cat", box), 1, None)
    [shown] = label_check_section(checked(suspect), truth, "x", "x").shown
    assert max(decoded(shown.picture.data).shape) <= 240


def test_the_page_stays_small(truth: GroundTruth) -> None:
    many = [LabelSuspect("1.png", 1, WRONG_CLASS, 0.5, LabelledBox("cat", (80, 60, 120, 120)), 1, DOG)] * 100
    html = page(checked(*many), truth)
    assert html.count("<img ") == 30
    assert "70 more are in the files" in words(html)
    assert len(html) < 1_500_000


def test_a_file_has_all_labels_of_the_images_and_the_model_s_boxes(truth: GroundTruth, tmp_path: Path) -> None:
    write_suspects(tmp_path / "new" / "check", checked(*suspects()), truth)
    folder = tmp_path / "new" / "check"
    assert {path.name for path in folder.iterdir()} == {*FILES.values(), "label_studio.setup.xml"}
    dataset, raw = read_coco(folder / "coco.json"), json.loads((folder / "coco.json").read_bytes())
    assert dataset.classes == ("cat", "dog", "owl")
    assert [image.file_name for image in dataset.images] == ["2.png", "1.png"]  # in the order of the suspects
    assert [image["suspicion"] for image in raw["images"]] == [0.9, 0.7123]
    names = {each["id"]: each["name"] for each in raw["categories"]}
    told = [
        (each["image_id"], names[each["category_id"]], each.get("score"), *(each.get("attributes") or {}).values())
        for each in raw["annotations"]
    ]
    assert told == [
        (1, "owl", None),
        (1, "owl", 0.8, UNLABELLED, 0.9, "model"),
        (1, "owl", 0.8, UNLABELLED, 0.5, "model"),
        (2, "cat", None, WRONG_CLASS, 0.7123, "label"),
        (2, "dog", None, NO_OBJECT, 0.6, "label"),
        (2, "dog", 0.9, WRONG_CLASS, 0.7123, "model"),
    ]
    boxes = ET.parse(folder / "cvat.xml").getroot().findall("image/box")
    marks = [each.findtext("attribute[@name='kind']") for each in boxes]
    assert marks == [None, UNLABELLED, UNLABELLED, WRONG_CLASS, NO_OBJECT, WRONG_CLASS]
    tasks = json.loads((folder / "label_studio.json").read_bytes())
    assert [task["data"]["kind"] for task in tasks] == [UNLABELLED, WRONG_CLASS]
    regions = [region for task in tasks for region in task["predictions"][0]["result"]]
    notes = [(region.get("meta") or {"text": [""]})["text"][0] for region in regions]
    assert notes == ["", *(f"kind: {mark}" for mark in marks[1:])]


def test_without_suspects_the_files_are_empty_and_whole(truth: GroundTruth, tmp_path: Path) -> None:
    write_suspects(tmp_path, checked(), truth)
    assert read_coco(tmp_path / "coco.json").classes == ("cat", "dog", "owl")
    assert json.loads((tmp_path / "label_studio.json").read_bytes()) == []
    assert ET.parse(tmp_path / "cvat.xml").getroot().find("image") is None


def test_the_page_explains_every_kind(truth: GroundTruth) -> None:
    html = words(page(checked(*suspects()), truth)).replace("&#39;", "'")
    assert all(f"{kind} {meaning}" in html for kind, meaning in KINDS.items())
