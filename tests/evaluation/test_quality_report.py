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

from pipeline.data.learned_images import SeenImage, UnknownWeights
from pipeline.data.report.inline_images import FigureList, Gallery, GalleryRow, InlineImage
from pipeline.evaluation import quality_report
from pipeline.evaluation.client import TestImageCheck
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import evaluate
from pipeline.evaluation.prediction import Latency, ServicePredictions
from pipeline.evaluation.prediction_images import draw_comparisons
from pipeline.evaluation.quality_gate import judge
from pipeline.evaluation.quality_report import _ordinal, dataset_rows, write_report

NOTHING = Gallery(())
CLEAN = Exposure(images=3, learned=120, seen=(), thumbnails=NOTHING, unknown_weights=(), coco_names=(), unseen=None)
UNKNOWN = replace(CLEAN, learned=None)
COCO = UnknownWeights("c" * 64, True)
AGREES = TestImageCheck(True, 0.0, 0.0, 3, 3, 0)
PIXEL = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()
WRONG = {"image_id": 0, "category_id": 2, "bbox": [8, 8, 32, 32], "score": 0.9}
EVIL = "<script>alert('x')</script>"


def predictions(results: list[dict], **changes: Any) -> ServicePredictions:
    values = {
        "results": results,
        "service": {"name": "object_detector", "classes": ["bright", "dark"], "input_size": [64, 96], "limits": {}},
        "score_threshold": 0.01,
        "images": 3,
        "retries": 0,
        "workers": 2,
        "seconds": 0.5,
        "images_per_second": 6.0,
        "latency": Latency(10.0, 20.0, 21.0, 22.0, 23.4),
        "dropped": {},
        "unknown_classes": (),
        "resized": (),
    }
    return ServicePredictions(**(values | changes))


class Page(HTMLParser):
    """Text, tags and the addresses that a browser would fetch."""

    notes: tuple[str, ...]
    described = 0  # images with words for those who do not see them

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []
        self.feed(path.read_text("utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.described += any(name == "alt" and bool(value) for name, value in attributes)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action")]
        self.text += " " if tag in ("td", "th", "b") else ""
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def report(write_dataset: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Page]:
    """Write a report and read it; charts and images only if asked for, because they take long."""

    def write(
        greys: tuple[int, ...] = (250, 240, 60),
        categories: tuple[str, ...] = ("bright", "dark"),
        results: list[dict] | None = None,
        gate: float = 0.5,
        max_seen_exact: float = 1.0,
        check: TestImageCheck = AGREES,
        exposure: Exposure = CLEAN,
        judged: int = 1,
        mode: str = "dev",
        chosen: dict[str, str] | None = None,
        crowds: tuple[int, ...] = (),
        drawn: bool = False,
        **changes: Any,
    ) -> Page:
        truth = write_dataset(greys, categories, crowds)
        if results is None:
            results = [{"image_id": n, "category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9 - n / 10} for n in (0, 1)]
        metrics = evaluate(truth, results)
        if not drawn:
            monkeypatch.setattr(quality_report, "draw", lambda *_: FigureList(()))
            for name in ("precision_recall_chart", "f1_chart", "ap_chart", "confusion_chart"):
                monkeypatch.setattr(quality_report, name, lambda _: None)
        limits = {"min_map50": gate, "max_seen_exact": max_seen_exact, "max_seen_similar": 1.0}
        written = write_report(
            tmp_path / "report.html",
            truth=truth,
            metrics=metrics,
            predictions=predictions(results, **changes),
            check=check,
            gate=judge(metrics, exposure, **limits, allow_no_detections=True, release=False),
            exposure=exposure,
            judged=judged,
            mode=mode,
            chosen=chosen or {},
            comparisons=draw_comparisons(truth, results, metrics) if drawn else NOTHING,
            parameters={"workers": 2, "rate": 0.1 + 0.2, "nothing": None},
            provenance={"run": "20260101T000000Z", "inputs": {"coco_test_dataset": "file:///store/abc"}, "note": EVIL},
        )
        page = Page(written.path)
        page.notes = written.notes
        return page

    return write


def test_it_tells_everything_and_fetches_nothing(report: Callable) -> None:
    page = report(drawn=True)
    assert page.open == []
    assert not {"script", "link"} & set(page.tags)
    assert len(page.addresses) == 4 + 3  # charts and comparisons
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert page.described == len(page.addresses)
    for expected in (
        "Quality gate passed: mAP50 0.5, at least 0.5 ", "mAP50 ≥ 0.5 0.5000 yes",
        "agrees with the recorded predictions", "median 10.0 ms", "longest 23.4 ms",
        "6.0 images/s", "64 x 96 px (height x width)", "coco_test_dataset: file:///store/abc",
        "0.png: 1 found, 0 missed", "curl -F images=@photo.jpg", "bentoml serve /path/to/bento_service",
        "2 of 2 classes have fewer", "bright 2 2 1.000 1.000 1.000 0.80 1.00",
        "dark 1 1 0.000 0.000 0.000 - 0.00", "rate 0.3",
        "predict?score_threshold=0.40'", "the 1st model judged on these images", "with objects 3 3 0.00",
        "without objects 0 0 -", "false alarms on empty scenes are not measured",
        "nothing -", EVIL,
    ):  # fmt: skip
        assert expected in page.text


DIFFERS = TestImageCheck(False, 9.5, 0.1, 3, 4, 1)
BY_HAND = {"coco_test_dataset": "run 7", "model_pack: obj_detect_inference_files": "s3://other/a"}
TRAINED = {"best_epoch": 2, "pretrained_mAP": 0.4, "gained_mAP": 0.05}
KEPT = {"best_epoch": 0, "pretrained_mAP": 0.4, "gained_mAP": 0.0}
SENTENCES: dict[str, tuple[dict, tuple[str, ...]]] = {
    "gate failed": ({"gate": 0.9}, ("Quality gate failed: mAP50 0.5, at least 0.9 ", "mAP50 ≥ 0.9 0.5000 no")),
    "no gate": ({"gate": 0}, ("No limit for mAP50 was set, nor any other", "mAP50 none 0.5000 no limit")),
    "no limit of mAP50": ({"gate": 0, "max_seen_exact": 0.0}, ("was set; the other limits are met",)),
    "a limit, unknown": ({"max_seen_exact": 0.0, "exposure": UNKNOWN}, ("byte for byte ≤ 0 - unknown",)),
    "unknown, without a limit": ({"exposure": UNKNOWN}, ("byte for byte none - no limit",)),
    "no predictions": (
        {"results": []}, ("mAP50 ≥ 0.5 0.0000 no", "No detection has score 0.50 or more, so false positives"),
    ),
    "no objects": ({"categories": ("owl",)}, ("mAP50 ≥ 0.5 - no",)),
    "an image without objects": ({"categories": ("bright",)}, ("without objects 1 0 0.00",)),
    "crowd regions": (
        {"crowds": (2,)},
        ("with objects 2 2 0.00 without objects 0 0 - with crowd regions only 1 0 -", "so it is in neither mean"),
    ),
    "nothing right": ({"results": [WRONG]}, ("with objects 3 3 0.33", "counted at score 0.50 and IoU 0.5.")),
    "by hand": (
        {"chosen": BY_HAND},
        ("Inputs chosen by hand coco_test_dataset run 7 model_pack: obj_detect_inference_files s3://other/a An input",),
    ),
    "a class without objects": ({"categories": ("bright", "dark", "owl")}, ("not in the means: owl",)),
    "another service": ({"check": DIFFERS}, ("differs from the recorded", "is not the one that was packed")),
    "unknown classes": ({"unknown_classes": ("dark",)}, ("does not know these classes",)),
    "dropped": ({"dropped": {"cat": 3, "dog": 4}}, ("7 detections of 2 classes",)),
    "resized": ({"resized": ("0.png",)}, ("1 images are not of the annotated size",)),
    "training gained": ({"service": {"training": TRAINED}}, ("raised mAP on the eval set by 0.050",)),
    "training gained nothing": ({"service": {"training": KEPT}}, ("are packed unchanged",)),
    "models judged": (
        {"judged": 2, "mode": "prod"},
        ("This is the 2nd model judged on these images, by the records of this store (prod).",),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), SENTENCES.values(), ids=SENTENCES)
def test_it_says_what_a_reader_must_know(report: Callable, arguments: dict, expected: tuple[str, ...]) -> None:
    text = report(**arguments).text
    for sentence in expected:
        assert sentence in text


@pytest.mark.parametrize("training", [{"best_epoch": 2, "eval_mAP": 0.4}, None], ids=["from scratch", "an old service"])
def test_it_says_no_gain_of_training_from_scratch(report: Callable, training: dict | None) -> None:
    text = report(service={"training": training}).text
    assert "raised mAP" not in text
    assert "packed unchanged" not in text


def test_class_names_are_text(report: Callable) -> None:
    page = report(categories=("bright", "<b>dark</b>"))
    assert "b" not in page.tags[page.tags.index("table") :]
    assert "<b>dark</b>" in page.text


@pytest.mark.parametrize(
    "expected", ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "101st", "111th"]
)
def test_it_counts_the_models(expected: str) -> None:
    assert _ordinal(int(expected[:-2])) == expected


@pytest.mark.parametrize(
    ("arguments", "colour"),
    [
        pytest.param({}, "passed", id="passed"),
        pytest.param({"gate": 0, "max_seen_exact": 0.0}, "", id="no limit of mAP50"),
        pytest.param({"gate": 0}, "", id="no limit"),
        pytest.param({"gate": 0.9}, "failed", id="failed"),
    ],
)
def test_only_what_was_examined_is_green(report: Callable, tmp_path: Path, arguments: dict, colour: str) -> None:
    report(**arguments)
    assert f'<section class="verdict {colour}">' in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param({"results": []}, "there is no detection", id="nothing found"),
        pytest.param(
            {"results": [WRONG]}, "no detection is right at any", id="nothing right"
        ),
        pytest.param({"categories": ("owl",), "results": []}, "the test set has no object", id="no object"),
    ],
)  # fmt: skip
def test_it_recommends_no_threshold_where_there_is_none(report: Callable, arguments: dict, reason: str) -> None:
    page = report(**arguments)
    assert f"No score threshold can be recommended: {reason}." in page.text
    assert f"no score threshold can be recommended: {reason}" in page.notes
    assert "3000/predict' " in page.text
    assert "score_threshold=" not in page.text
    assert "At score 0.50 for every class, because no threshold can be recommended" in page.text
    assert "highest mean F1" not in page.text
    assert ("the model found nothing in the test set" in page.notes) == (reason == "there is no detection")


OTHER = replace(COCO, coco=False)
NAMED = ("000000000009.jpg",)
UNKNOWN_NOTE = "which images the model learned from is unknown: it was packed before this was recorded"
WEIGHTS_NOTE = "the model descends from weights whose training images are unknown"
NAMES_NOTE = "test images named like those of COCO train2017, which COCO's weights learned from: "
DESCENDS = "and so did the model if it descends from such weights."
NO_NAME = "No test image is named like an image of COCO train2017."
KNOWN: dict[str, tuple[dict, tuple[str, ...], tuple[str, ...]]] = {
    "a clean test set": ({}, ("learned from: 120. No test image is among them",), ()),
    "unknown": (
        {"learned": None}, ("It is unknown which images the model learned from, because it was packed before",),
        (UNKNOWN_NOTE,),
    ),
    "unknown, COCO's names": (
        {"learned": None, "coco_names": NAMED}, ("train2017: 1 of 3, 000000000009.jpg.", DESCENDS),
        (UNKNOWN_NOTE, NAMES_NOTE + "1 of 3"),
    ),
    "COCO's weights": (
        {"unknown_weights": (COCO,)},
        ("training images are unknown (SHA-256 cccccccccccc…). They know COCO's 80 classes", NO_NAME), (WEIGHTS_NOTE,),
    ),
    "other weights": (
        {"unknown_weights": (OTHER,)},
        ("They may have learned from test images, or descend from weights that did.", NO_NAME), (WEIGHTS_NOTE,),
    ),
    "other weights, COCO's names": (
        {"unknown_weights": (OTHER,), "coco_names": NAMED}, ("train2017: 1 of 3, 000000000009.jpg.", DESCENDS),
        (WEIGHTS_NOTE, NAMES_NOTE + "1 of 3"),
    ),
    "many of COCO's names": (
        {"unknown_weights": (COCO,), "coco_names": tuple(f"{n:012}.jpg" for n in range(12)), "images": 20},
        ("train2017: 12 of 20, 000000000000.jpg", "000000000009.jpg and 2 more. The public weights"),
        (WEIGHTS_NOTE, NAMES_NOTE + "12 of 20"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said", "notes"), KNOWN.values(), ids=KNOWN)
def test_it_says_what_is_known_of_training_images_in_the_test_set(
    report: Callable, changes: dict, said: tuple[str, ...], notes: tuple[str, ...]
) -> None:
    page = report(exposure=replace(CLEAN, **changes))
    for sentence in said:
        assert sentence in page.text
    assert page.notes == notes
    assert all(len(note) <= 100 for note in page.notes)


def test_it_shows_training_images_and_the_figures_without_them(report: Callable, write_dataset: Callable) -> None:
    results = [{"image_id": n, "category_id": 1, "bbox": [8, 8, 32, 32], "score": 0.9} for n in (0, 1)]
    seen = tuple(SeenImage(f"{number}{EVIL}.png", kind) for number, kind in enumerate(("exact", "similar", "similar")))
    left = evaluate(write_dataset([250, 240, 60]).only({2}), [])
    shown = tuple(InlineImage(each.file_name, PIXEL, 1, 1, f"{each.file_name}: as said") for each in seen[:2])
    exposure = replace(CLEAN, seen=seen, thumbnails=Gallery((GalleryRow("", shown),)), unseen=left)
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
    assert page.notes == ("test images that the model learned from: 1 of 3 byte for byte, 2 more look alike",)
    nothing = report(results=results, exposure=replace(CLEAN, seen=seen))
    assert "Without these images nothing is left to judge by." in nothing.text
    assert "mAP 0.500 -" in nothing.text


def test_the_rows_about_a_data_set(write_dataset: Callable) -> None:
    rows = dataset_rows(write_dataset([250, 240, 60], categories=("bright", "owl")))
    assert (rows["images"], rows["images without objects"], rows["objects"], rows["classes"]) == (3, 1, 2, 2)
    assert rows["small / medium / large objects"] == "0 / 2 / 0"
    assert rows["image size, median"] == "64 x 64 px"


def test_an_image_with_crowds_only_is_not_one_without_objects(write_dataset: Callable) -> None:
    rows = dataset_rows(write_dataset([250, 240, 60], categories=("bright", "owl"), crowds=(0,)))
    assert (rows["images without objects"], rows["images with crowd regions only"], rows["objects"]) == (1, 1, 1)


def test_the_head_says_what_makes_the_figures_worth_less(report: Callable, tmp_path: Path) -> None:
    seen = tuple(SeenImage(f"{n}.png", "exact" if n else "similar") for n in range(3))
    page = report(exposure=replace(CLEAN, seen=seen), chosen={"coco_test_dataset": "20260101T000000000Z-abcdef"})
    head = page.text.partition("Gate figure")[0]
    assert (
        "The model learned from images of this test set: 2 of 3 byte for byte, and 1 more look alike. "
        "Nothing is left to judge by." in head
    )
    assert "Inputs chosen by hand: coco_test_dataset." in head
    assert '<section class="verdict ">' in (tmp_path / "report.html").read_text("utf-8"), (
        "a limit was lifted: not green"
    )


def test_the_head_says_where_what_was_learned_is_unknown(report: Callable) -> None:
    head = report(exposure=UNKNOWN).text.partition("Gate figure")[0]
    assert "It is unknown which images the model learned from." in head
    assert "Inputs chosen by hand" not in head
