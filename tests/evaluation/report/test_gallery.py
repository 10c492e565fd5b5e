"""The gallery as HTML: boxes in the colours of their outcome, each photograph once, names as text, and limits."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from detections import found

from pipeline.evaluation.examples import WORST_MISSES, select_examples
from pipeline.evaluation.report.gallery import draw_gallery, make_gallery, script, script_source
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth

OBJECT = "M8 8h32v32h-32z"
ASIDE = [40, 40, 20, 20]


class Tags(HTMLParser):
    """All tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text, self._tag = "", ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def handle_data(self, data: str) -> None:
        self.text += "" if self._tag in ("script", "style") else data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


COLOURS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {  # truth right, truth wrong, found right, found wrong
    "right": ([found(1, 1)], [OBJECT, "", OBJECT, ""]),
    "mislabelled": ([found(1, 2)], ["", OBJECT, "", OBJECT]),
    "missed": ([], ["", OBJECT, "", ""]),
    "one false": ([found(1, 1), found(1, 2, box=ASIDE)], [OBJECT, "", OBJECT, "M40 40h20v20h-20z"]),
    "fractions": ([found(1, 1, [8.04, 8.26, 32, 32])], [OBJECT, "", "M8 8.3h32v32h-32z", ""]),
}


@cases("results, expected", COLOURS)
def test_boxes_have_the_colour_of_their_outcome(
    write_dataset: Callable[..., GroundTruth], results: list[dict[str, Any]], expected: list[str]
) -> None:
    truth = write_dataset([250])
    paths = Tags(make_gallery(truth, evaluate(truth, results)).__html__()).of("path")
    assert [each["class"] for each in paths] == ["box-right", "box-wrong"] * 2
    assert [each["d"] for each in paths] == expected


def test_each_photograph_is_in_the_page_once_and_as_it_is(write_dataset: Callable[..., GroundTruth]) -> None:
    truth = write_dataset([250, 60])
    results = [found(1, 1), found(1, 2), found(2, 1, ASIDE), found(2, 1)]
    gallery = make_gallery(truth, evaluate(truth, results))
    tags = Tags(gallery.__html__())
    assert len(tags.of("li")) - len(gallery.groups) > 2
    photographs = tags.of("image")
    assert [each["id"] for each in photographs] == ["photo-1", "photo-2"] or len(photographs) == 2
    for each in photographs:
        data = base64.b64decode(each["href"].removeprefix("data:image/jpeg;base64,"))
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (64, 64, 3)
        assert abs(float(pixels.mean()) - {"photo-1": 250, "photo-2": 60}[each["id"]]) < 3
    used = {each["href"].removeprefix("#") for each in tags.of("use")}
    assert used <= {attributes.get("id") for _, attributes in tags.found}


def test_names_are_text(coco_file: Callable[..., GroundTruth]) -> None:
    name, category = "a&'\"<i>.png", "</script><b>cat</b>"
    truth = coco_file([(1, 1, [8, 8, 32, 32])], [category], images=[name], size=(64, 64))
    (truth.folder / "images").mkdir()
    cv2.imwrite(str(truth.folder / "images/a.png"), np.full((64, 64, 3), 90, np.uint8))
    (truth.folder / "images/a.png").rename(truth.path_of(name))
    html = make_gallery(truth, evaluate(truth, [found(1, 1)])).__html__()
    tags = Tags(html)
    assert not {"i"} & {tag for tag, _ in tags.found}
    assert name in tags.text
    assert category in tags.text
    boxes = json.loads(re.search(r'id="gallery-boxes">(.*?)</script>', html, re.DOTALL)[1])
    assert boxes["photographs"]["1"]["name"] == name
    assert boxes["photographs"]["1"]["found"] == [[[8, 8, f"{category} 0.90", 1]]]


def test_photographs_stop_at_the_limit_and_the_page_says_how_many_are_left_out(
    write_dataset: Callable[..., GroundTruth],
) -> None:
    truth = write_dataset([250] * 20)
    metrics = evaluate(truth, [])
    one = len(make_gallery(truth, metrics).photographs[1].jpeg) * 4 // 3
    selection = select_examples(truth, metrics, per_class=20)
    gallery = draw_gallery(truth, {"predictions": metrics}, selection, most_bytes=10 * one)
    assert len(gallery.photographs) == 10
    shown = len(gallery.groups[WORST_MISSES])
    assert 0 < shown < 20
    assert f"{shown} of 20 are on this page: the first of each class." in Tags(gallery.__html__()).text


def test_a_large_image_is_made_smaller_and_its_boxes_stay(coco_file: Callable[..., GroundTruth]) -> None:
    truth = coco_file([(1, 1, [1000, 500, 60, 40])], images=1, size=(2000, 1000))
    (truth.folder / "images").mkdir()
    cv2.imwrite(str(truth.path_of("1.png")), np.full((1000, 2000, 3), 90, np.uint8))
    gallery = make_gallery(truth, evaluate(truth, []))
    tags = Tags(gallery.__html__())
    (image,) = tags.of("image")
    assert (image["width"], image["height"]) == ("2000", "1000")
    pixels = cv2.imdecode(np.frombuffer(gallery.photographs[1].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[:2] == (320, 640)
    miss = next(each for each in tags.of("svg") if each.get("viewbox", "").startswith("730 "))
    x, y, width, height = map(float, miss["viewbox"].split())
    assert (x + width / 2, y + height / 2) == pytest.approx((1030, 520), abs=1)  # the middle of the box
    assert width / height == pytest.approx(4 / 3, rel=0.01)


def test_a_notebook_shows_some_without_script(write_dataset: Callable[..., GroundTruth]) -> None:
    truth = write_dataset([250] * 20)
    gallery = make_gallery(truth, evaluate(truth, [found(1, 1)]))
    tags = Tags(gallery._repr_html_())
    assert not {"script", "form", "dialog", "button"} & {tag for tag, _ in tags.found}
    assert 3 <= len(tags.of("image")) < 10


def test_a_wrong_class_is_told_with_the_right_one(coco_file: Callable[..., GroundTruth]) -> None:
    truth = coco_file([(1, 1, [8, 8, 32, 32])], images=1, size=(64, 64))
    (truth.folder / "images").mkdir()
    cv2.imwrite(str(truth.path_of("1.png")), np.full((64, 64, 3), 90, np.uint8))
    text = Tags(make_gallery(truth, evaluate(truth, [found(1, 2)])).__html__()).text
    assert "classification (cat), small" in " ".join(text.split())


def test_without_objects_and_detections_it_says_so(write_dataset: Callable[..., GroundTruth]) -> None:
    truth = write_dataset([250], categories=("owl",))
    assert make_gallery(truth, evaluate(truth, [])).__html__() == "<p>There is no object and no detection to show.</p>"


def test_the_script_ends_no_tag_and_its_digest_is_that_of_its_text() -> None:
    import hashlib

    assert "</" not in script()
    digest = base64.b64encode(hashlib.sha256(script().encode("utf-8")).digest()).decode()
    assert script_source() == f"'sha256-{digest}'"
