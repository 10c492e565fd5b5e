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

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []
        self.feed(path.read_text("utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param({"gate": 0.9}, "Quality gate failed: mAP50 0.5, at least 0.9 ", id="gate-failed"),
        pytest.param({"gate": 0.9}, "mAP50 ≥ 0.9 0.5000 no", id="gate-failed, its figures"),
        pytest.param({"gate": 0}, "No limit for mAP50 was set, nor any other", id="no-gate"),
        pytest.param({"gate": 0}, "mAP50 none 0.5000 no limit", id="no-gate, its figures"),
        pytest.param({"gate": 0, "max_seen_exact": 0.0}, "was set; the other limits are met", id="no limit of mAP50"),
        pytest.param(
            {"max_seen_exact": 0.0, "exposure": UNKNOWN}, "those learned from ≤ 0 - unknown", id="a limit, unknown"
        ),
        pytest.param({"exposure": UNKNOWN}, "those learned from none - no limit", id="unknown, without a limit"),
        pytest.param({"results": []}, "mAP50 ≥ 0.5 0.0000 no", id="no-predictions"),
        pytest.param({"categories": ("owl",)}, "mAP50 ≥ 0.5 - no", id="no-objects"),
        pytest.param({"categories": ("bright",)}, "without objects 1 0 0.00", id="an image without objects"),
        pytest.param({"crowds": (2,)}, "with objects 2 2 0.00 without objects 0 0 - with crowd", id="two kinds"),
        pytest.param({"crowds": (2,)}, "with crowd regions only 1 0 -", id="crowd regions"),
        pytest.param({"crowds": (2,)}, "so it is in neither mean", id="crowd regions, explained"),
        pytest.param({"results": []}, "No detection has score 0.50 or more, so false positives", id="nothing to count"),
        pytest.param({"results": [WRONG]}, "with objects 3 3 0.33", id="nothing right"),
        pytest.param({"results": [WRONG]}, "counted at score 0.50 and IoU 0.5.", id="nothing right, where counted"),
        pytest.param(
            {"chosen": {"coco_test_dataset": "run 7", "model_pack: obj_detect_inference_files": "s3://other/a"}},
            "Inputs chosen by hand coco_test_dataset run 7 model_pack: obj_detect_inference_files s3://other/a What",
            id="by hand",
        ),
        pytest.param({"categories": ("bright", "dark", "owl")}, "not in the means: owl", id="class-without-objects"),
        pytest.param({"check": TestImageCheck(False, 9.5, 0.1, 3, 4, 1)}, "differs from the recorded", id="disagrees"),
        pytest.param(
            {"check": TestImageCheck(False, 9.5, 0.1, 3, 4, 1)}, "is not the one that was packed", id="remark"
        ),
        pytest.param({"unknown_classes": ("dark",)}, "does not know these classes", id="unknown-classes"),
        pytest.param({"dropped": {"cat": 3, "dog": 4}}, "7 detections of 2 classes", id="dropped"),
        pytest.param({"resized": ("0.png",)}, "1 images are not of the annotated size", id="resized"),
    ],
)
def test_it_says_what_a_reader_must_know(report: Callable, arguments: dict, expected: str) -> None:
    assert expected in report(**arguments).text


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        pytest.param(
            {"best_epoch": 2, "pretrained_mAP": 0.4, "gained_mAP": 0.05},
            "raised mAP on the eval set by 0.050",
            id="gain",
        ),
        pytest.param({"best_epoch": 0, "pretrained_mAP": 0.4, "gained_mAP": 0.0}, "are packed unchanged", id="none"),
        pytest.param({"best_epoch": 2, "eval_mAP": 0.4}, "", id="from scratch"),
        pytest.param(None, "", id="an older service"),
    ],
)
def test_it_says_what_training_gained(report: Callable, training: dict | None, expected: str) -> None:
    text = report(service={"name": "object_detector", "classes": ["bright", "dark"], "training": training}).text
    said = [each for each in ("raised mAP on the eval set by 0.050", "are packed unchanged") if each in text]
    assert said == ([expected] if expected else [])


def test_class_names_are_text(report: Callable) -> None:
    page = report(categories=("bright", "<b>dark</b>"))
    assert "b" not in page.tags[page.tags.index("table") :]
    assert "<b>dark</b>" in page.text


@pytest.mark.parametrize(
    "expected", ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "101st", "111th"]
)
def test_it_counts_the_models(expected: str) -> None:
    assert _ordinal(int(expected[:-2])) == expected


def test_it_says_how_many_models_were_judged(report: Callable) -> None:
    said = "This is the 2nd model judged on these images, by the records of this store (prod)."
    assert said in report(judged=2, mode="prod").text


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
    assert "At score 0.50 for every class, for no threshold can be recommended" in page.text
    assert "highest mean F1" not in page.text
    assert ("the model found nothing in the test set" in page.notes) == (reason == "there is no detection")


@pytest.mark.parametrize(
    ("changes", "said", "notes"),
    [
        pytest.param(
            {}, ["learned from: 120. No test image is among them"], [], id="a clean test set"
        ),
        pytest.param(
            {"learned": None}, ["It is unknown which images the model learned from, because it was packed before"],
            ["which images the model learned from is unknown: it was packed before this was recorded"], id="unknown",
        ),
        pytest.param(
            {"learned": None, "coco_names": ("000000000009.jpg",)},
            ["train2017: 1 of 3, 000000000009.jpg.", "and so did the model if it descends from such weights."],
            ["which images the model learned from is unknown: it was packed before this was recorded",
             "test images named like those of COCO train2017, which COCO's weights learned from: 1 of 3"],
            id="unknown, COCO's names",
        ),
        pytest.param(
            {"unknown_weights": (COCO,)},
            ["training images are unknown (SHA-256 cccccccccccc…). They know COCO's 80 classes",
             "No test image is named like an image of COCO train2017."],
            ["the model descends from weights whose training images are unknown"], id="COCO's weights",
        ),
        pytest.param(
            {"unknown_weights": (replace(COCO, coco=False),)},
            ["They may have learned from test images, or descend from weights that did.",
             "No test image is named like an image of COCO train2017."],
            ["the model descends from weights whose training images are unknown"], id="other weights",
        ),
        pytest.param(
            {"unknown_weights": (replace(COCO, coco=False),), "coco_names": ("000000000009.jpg",)},
            ["train2017: 1 of 3, 000000000009.jpg.", "and so did the model if it descends from such weights."],
            ["the model descends from weights whose training images are unknown",
             "test images named like those of COCO train2017, which COCO's weights learned from: 1 of 3"],
            id="other weights, COCO's names",
        ),
        pytest.param(
            {"unknown_weights": (COCO,), "coco_names": tuple(f"{n:012}.jpg" for n in range(12)), "images": 20},
            ["train2017: 12 of 20, 000000000000.jpg", "000000000009.jpg and 2 more. The public weights"],
            ["the model descends from weights whose training images are unknown",
             "test images named like those of COCO train2017, which COCO's weights learned from: 12 of 20"],
            id="many of COCO's names",
        ),
    ],
)  # fmt: skip
def test_it_says_what_is_known_of_training_images_in_the_test_set(
    report: Callable, changes: dict, said: list[str], notes: list[str]
) -> None:
    page = report(exposure=replace(CLEAN, **changes))
    for sentence in said:
        assert sentence in page.text
    assert list(page.notes) == notes
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
        "share of test images byte for byte among those learned from none 0.3333 no limit",
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
