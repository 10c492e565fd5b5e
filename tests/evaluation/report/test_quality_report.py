"""The report: whole, self-contained, escaped, and saying what the figures say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from detections import found
from evaluations import CLEAN, NO_CHARTS, NO_EXAMPLES, card_of, evaluated, origin_of

from pipeline.data.learned_images import UnknownWeights
from pipeline.data.report.inline_images import Gallery, InlineImage
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.report.charts import draw_charts
from pipeline.evaluation.report.gallery import make_gallery
from pipeline.evaluation.report.quality_report import write_report
from pipeline.metrics.detection_metrics import evaluate

UNKNOWN = replace(CLEAN, learned=None)
COCO = UnknownWeights("c" * 64, True)
PIXEL = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
WRONG = found(1, 2)
EVIL = "<script>alert('x')</script>"
PROVENANCE = {"run": "20260101T000000Z", "inputs": {"coco_test_dataset": "file:///store/abc"}, "note": EVIL}


class Page(HTMLParser):
    """Text, tags and the addresses that a browser would fetch."""

    notes: list[str]
    described = 0  # images with words for those who do not see them

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []
        self.feed(path.read_text("utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += f" {dict(attributes)['class']}: " if tag == "section" else ""  # the colour of the head
        self.described += any(name == "alt" and bool(value) for name, value in attributes)
        found = [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.addresses += [value for value in found if not value.startswith("#")]  # which is in the page itself
        self.text += " " if tag in ("td", "th", "b") else ""
        if tag not in ("meta", "img", "br", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data


@pytest.fixture
def report(write_dataset: Callable, tmp_path: Path) -> Callable[..., Page]:
    """Write a report and read it; charts and images only if asked for, because they take long."""

    def write(
        greys: tuple[int, ...] = (250, 240, 60),
        categories: tuple[str, ...] = ("bright", "dark"),
        results: list[dict] | None = None,
        gate: float = 0.5,
        max_seen_exact: float = 1.0,
        exposure: Exposure = CLEAN,
        chosen: tuple[str, ...] = (),
        crowds: tuple[int, ...] = (),
        others: dict[str, Any] | None = None,
        drawn: bool = False,
        **changes: Any,
    ) -> Page:
        truth = write_dataset(greys, categories, crowds)
        if results is None:
            results = [found(n, 1, score=1.0 - n / 10) for n in (1, 2)]
        limits = {"min_map50": gate, "max_seen_exact": max_seen_exact}
        measured, decided = evaluated(truth, results, exposure=exposure, others=others, gate=limits, **changes)
        provenance = {"run": "20260101T000000Z", "inputs": {"coco_test_dataset": "file:///store/abc"}, "note": EVIL}
        origin = origin_of(provenance, chosen=chosen)
        notes = write_report(
            tmp_path / "report.html",
            measured,
            decided,
            origin,
            card=card_of(measured, truth, origin),
            charts=draw_charts(measured, truth.folder) if drawn else NO_CHARTS,
            gallery=make_gallery(truth, measured.metrics) if drawn else NO_EXAMPLES,
        )
        page = Page(tmp_path / "report.html")
        page.notes = notes
        return page

    return write


SIX_OF_EIGHT = {"greys": (250,) * 8, "results": [found(number, 1) for number in range(1, 7)]}


def test_it_says_how_far_chance_moves_the_figures(report: Callable) -> None:
    """Eight images, in two of which the object is not found."""
    page = report(**SIX_OF_EIGHT)
    low, high = re.search(r"mAP50 0.752 ?([\d.]+) to ([\d.]+)", page.text).groups()
    assert 0.2 < float(low) < 0.752 < float(high) <= 1
    told = (
        r"8 test images: mAP 0.752 \(95 % interval 0.\d+ to [01].\d+\); to see a difference of 0.02 takes about (\d+)"
    )
    needed = int(re.search(told, page.text)[1])
    assert 500 < needed < 10_000
    assert f"bright 8 8 0.752 {float(low):.2f} to {float(high):.2f} 0.752" in page.text


@cases("limit, is_close", {"far below": (0.05, False), "within": (0.6, True), "none": (0.0, False)})
def test_a_limit_within_the_interval_is_too_close_to_call(report: Callable, limit: float, is_close: bool) -> None:
    page = report(**SIX_OF_EIGHT, gate=limit)
    notes = [note for note in page.notes if note.startswith("too close to call: mAP50 0.7525, at least 0.6; its 95")]
    assert len(notes) == is_close
    assert ("too close to call" in page.text) == is_close


def test_other_models_stand_beside_it(report: Callable) -> None:
    others = {"given": [found(1, 1)], "earlier": "no earlier run has another model", "pytorch": SIX_OF_EIGHT["results"]}
    page = report(**SIX_OF_EIGHT, others=others, gate=0.0)
    head = page.text.partition("Gate figure")[0]
    for expected in (
        "figure this model given weights weights in PyTorch",
        "better than the given weights: mAP +0.", "the same as the weights in PyTorch",
        "No earlier model: no earlier run has another model.", NO_LIMIT,
    ):  # fmt: skip
        assert expected in head


def test_classes_stand_beside_those_of_other_models(report: Callable) -> None:
    found_by_both = [found(number, 1) for number in range(1, 7)] + [found(number, 2) for number in range(7, 13)]
    page = report(greys=(250,) * 6 + (60,) * 6, results=found_by_both, others={"given": found_by_both[3:]})
    table = page.text.partition("AP beside other models")[2]
    assert re.search(r"bright 1.000 0.505 \+0.495 better \+0.\d+ to \+\d", table)
    assert "dark 1.000 1.000 the same" in table


def test_it_tells_everything_and_fetches_nothing(report: Callable) -> None:
    page = report(drawn=True)
    assert page.open == []
    assert (page.tags.count("script"), page.tags.count("link")) == (2, 0)  # the gallery's boxes, and its script
    assert len(page.addresses) == 8 + 3  # charts and photographs
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.described == 8
    for expected in (
        "Ship this model: the quality gate is passed the quality gate is passed: mAP50 0.5, at least 0.5 ",
        "mAP50 ≥ 0.5 0.5000 yes",
        "6.0 images/s: 3 images",
        "request from sending it to the end of the answer 11.0 10.0 20.0 23.0 23.4",
        "input size 64, 96", "inputs coco_test_dataset: file:///store/abc",
        "1 found, 0 missed, 0 false", "Worst misses", "2 of 2 classes have fewer",
        "bright 2 2 1.000 1.000 1.000 0.40 1.00", "dark 1 1 0.000 0.000 0.000 - 0.00",
        "an object without any detection 1 0.500", "3 test images, too few with objects to tell how far",
        "so far, in prod: 2;", "with objects 3 3 0.00",
        "without objects 0 0 -", "false alarms on empty scenes are not measured", EVIL,
    ):  # fmt: skip
        assert expected in page.text


NOT_KNOWN = "it is unknown which images the model learned from"
NO_LIMIT = "Decide yourself: no limit of the model's quality was set"
REFUSED = "Do not ship this model: the quality gate failed"
OTHER = replace(COCO, coco=False)
NAMED = {"coco_names": ("000000000009.jpg",)}
TRAINED = {"best_epoch": 2, "pretrained_mAP": 0.4, "gained_mAP": 0.05}
KEPT = {"best_epoch": 0, "pretrained_mAP": 0.4, "gained_mAP": 0.0}
NO_THRESHOLD = "no score threshold can be recommended: "
UNKNOWN_WEIGHTS = "the model descends from weights whose training images are unknown"
NAMES = "named like those of COCO train2017, which COCO's weights learned from: "
DESCENDS = "and so did the model if it descends from such weights."
NO_NAME = "No test image is named like an image of COCO train2017."
SENTENCES: dict[str, tuple[dict, tuple[str, ...]]] = {
    "passed": ({}, ("verdict passed: Ship this model: the quality gate is passed", "byte for byte: 0 of 3.")),
    "gate failed": (
        {"gate": 0.9}, (f"verdict failed: {REFUSED} limit missed: mAP50 0.5, at least 0.9 ", "mAP50 ≥ 0.9 0.5000 no"),
    ),
    "no gate": (
        {"gate": 0}, (f"verdict open: {NO_LIMIT}", "mAP50 none 0.5000 no limit"),
    ),
    "a limit, unknown": ({"max_seen_exact": 0.0, "exposure": UNKNOWN}, (f"byte for byte ≤ 0 {NOT_KNOWN} unknown",)),
    "unknown": (
        {"exposure": UNKNOWN},
        (f"byte for byte none {NOT_KNOWN} no limit",
         "which images the model learned from is unknown: it was packed before this",
         "It is unknown which images the model learned from, because it was packed before"),
    ),
    "unknown, COCO's names": (
        {"exposure": replace(UNKNOWN, **NAMED)},
        (NAMES + "1 of 3", "train2017: 1 of 3, such as 000000000009.jpg.", DESCENDS),
    ),
    "COCO's weights": (
        {"exposure": replace(CLEAN, unknown_weights=(COCO,))},
        (UNKNOWN_WEIGHTS, "(SHA-256 cccccccccccc…). They know COCO's 80 classes", NO_NAME),
    ),
    "COCO's weights and names": (
        {"exposure": replace(CLEAN, unknown_weights=(COCO,), **NAMED)},
        (NAMES + "1 of 3", "The public weights for COCO learned from images of these names."),
    ),
    "other weights": (
        {"exposure": replace(CLEAN, unknown_weights=(OTHER,))},
        (UNKNOWN_WEIGHTS, "They may have learned from test images, or descend from weights that did.", NO_NAME),
    ),
    "other weights, COCO's names": ({"exposure": replace(CLEAN, unknown_weights=(OTHER,), **NAMED)}, (DESCENDS,)),
    "no predictions": (
        {"results": []},
        ("mAP50 ≥ 0.5 0.0000 no", "No detection has score 0.50 or more, so false positives",
         "the model found nothing in the test set", NO_THRESHOLD + "there is no detection",
         "At score 0.50 for every class, because no threshold can be recommended"),
    ),
    "no objects": (
        {"categories": ("owl",), "results": []}, ("mAP50 ≥ 0.5 - no", NO_THRESHOLD + "the test set has no object"),
    ),
    "an image without objects": ({"categories": ("bright",)}, ("without objects 1 0 0.00",)),
    "crowd regions": (
        {"crowds": (3,)},
        ("with objects 2 2 0.00 without objects 0 0 - with crowd regions only 1 0 -", "so it is in neither mean"),
    ),
    "nothing right": (
        {"results": [WRONG]},
        ("with objects 3 3 0.33", "counted at score 0.50 and IoU 0.5.", NO_THRESHOLD + "no detection is right at any"),
    ),
    "by hand": (
        {"chosen": ("coco_test_dataset", "model_pack: bento_service")},
        ("inputs chosen by hand: coco_test_dataset, model_pack: bento_service",),
    ),
    "a class without objects": ({"categories": ("bright", "dark", "owl")}, ("not in the means: owl",)),
    "unknown classes": ({"unknown_classes": ("dark",)}, ("does not know these classes",)),
    "letters of no font": (
        {"categories": ("bright", "dark", "བོད\ufdd0")},
        ("class names shown as numbers: 1; no font here has ", "In the figures, #3 is བོད"),
    ),
    "dropped": ({"dropped": {"cat": 3, "dog": 4}}, ("7 detections of 2 classes",)),
    "resized": ({"resized": ("1.png",)}, ("not of the annotated size: 1, for instance 1.png",)),
    "training gained": ({"service": {"training": TRAINED}}, ("raised mAP on the eval set by 0.050",)),
    "training gained nothing": ({"service": {"training": KEPT}}, ("are packed unchanged",)),
}  # fmt: skip


@cases("arguments, expected", SENTENCES)
def test_it_says_what_a_reader_must_know(report: Callable, arguments: dict, expected: tuple[str, ...]) -> None:
    page = report(**arguments)
    for sentence in expected:
        assert sentence in page.text
    for note in page.notes:  # in the head too
        assert note in page.text.partition("Gate figure")[0]
        assert len(note) <= 100


def test_it_says_no_gain_of_training_from_scratch_nor_of_an_old_service(report: Callable) -> None:
    for training in ({"best_epoch": 2, "eval_mAP": 0.4}, None):
        text = report(service={"training": training}).text
        assert "raised mAP" not in text
        assert "packed unchanged" not in text


def test_class_names_are_text(report: Callable) -> None:
    page = report(categories=("bright", "<b>dark</b>", "half \ud83d"))
    assert "b" not in page.tags[page.tags.index("table") :]
    assert "<b>dark</b>" in page.text


def test_it_shows_training_images_and_the_figures_without_them(report: Callable, write_dataset: Callable) -> None:
    results = [{"image_id": n, "category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9} for n in (1, 2)]
    seen = {f"{number}{EVIL}.png": kind for number, kind in enumerate(("exact", "similar", "similar"))}
    left = evaluate(write_dataset([250, 240, 60]).only({3}), [])
    shown = tuple(InlineImage(name, PIXEL, 1, 1, f"{name}: as said") for name in list(seen)[:2])
    exposure = replace(CLEAN, seen=seen, thumbnails=Gallery({"": shown}), unseen=left)
    page = report(results=results, exposure=exposure)
    for expected in (
        "among them, byte for byte: 1 of 3.", "turned or hardly different: 2.",
        "images 3 1", "mAP 0.500 0.000", "best threshold for all 0.45 -",
        f"0{EVIL}.png: as said", f"1{EVIL}.png: as said", "1 more are not shown",
        "share of test images that are training images, byte for byte none 0.3333 no limit",
        "unseen test images none 0 no limit",
    ):  # fmt: skip
        assert expected in page.text
    assert "script" not in page.tags
    assert page.notes == ["test images that the model learned from: 1 of 3 byte for byte, 2 more look alike"]
    nothing = report(results=results, exposure=replace(CLEAN, seen=seen))
    assert "Without these images nothing is left to judge by." in nothing.text
    assert "mAP 0.500 -" in nothing.text
