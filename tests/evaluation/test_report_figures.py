"""Charts for one, six and eighty classes, and predictions beside ground truth: they show what the metrics say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from cases import cases
from detections import found

from pipeline.data.figures import Chart, Pixels
from pipeline.evaluation.chance import measure_chance
from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.image_properties import Division, Divisions
from pipeline.evaluation.metrics import LEVELS, DetectionMetrics, evaluate
from pipeline.evaluation.report_figures import (
    ap_by_iou_chart,
    ap_chart,
    calibration_chart,
    confused_pairs,
    confusion_chart,
    draw_comparisons,
    f1_chart,
    precision_by_score_chart,
    precision_recall_chart,
    recall_by_score_chart,
    slices_chart,
)
from pipeline.evaluation.resampling import draw_figures
from pipeline.evaluation.slices import measure_divisions

BLUE, ORANGE = np.array([178, 114, 0]), np.array([0, 94, 213])  # BGR of right and wrong


def drawn_ap_chart(metrics: DetectionMetrics) -> Chart:
    return ap_chart(metrics, measure_chance(metrics, draw_figures(metrics, draws=20)))


def drawn_slices_chart(metrics: DetectionMetrics) -> Chart:
    """With one part of each image, so that the chart has more slices than it shows."""
    parts = {f"part {number}": np.arange(metrics.images) % 40 != number for number in range(min(metrics.images, 40))}
    return slices_chart(metrics, measure_divisions(metrics, Divisions((Division("part", parts),), ()), draws=20))


BY_SCORE = [f1_chart, precision_by_score_chart, recall_by_score_chart]
OF_CLASSES = [precision_recall_chart, *BY_SCORE, drawn_ap_chart, confusion_chart]
CHARTS = [*OF_CLASSES, ap_by_iou_chart, calibration_chart, drawn_slices_chart]


@pytest.fixture
def many(coco_file: Callable, jittered: Callable) -> Callable[[int], DetectionMetrics]:
    """Metrics of `count` classes, the first of them the most frequent."""

    def make(count: int) -> DetectionMetrics:
        rng = np.random.default_rng(count)
        boxes = [
            (int(rng.integers(1, 41)), label, [*rng.integers(0, 100, 2).tolist(), 40, 30])
            for label in range(1, count + 1)
            for _ in range(3 + 2 * (count - label))
        ]
        truth = coco_file(boxes, categories=[f"class {n}" for n in range(1, count + 1)], images=40)
        return evaluate(truth, jittered(truth, 1))

    return make


def in_colour(axes: Any) -> list[Any]:
    return [one for one in axes.lines if one.get_color() not in ("#bbbbbb", "black")]


@pytest.mark.parametrize(("count", "coloured", "entries"), [(1, 1, 1), (6, 6, 7), (80, 10, 12)])
def test_curves_highlight_at_most_ten_classes(many: Callable, count: int, coloured: int, entries: int) -> None:
    metrics = many(count)
    (axes,) = precision_recall_chart(metrics).axes
    assert len(in_colour(axes)) == coloured
    assert len({(one.get_color(), one.get_linestyle()) for one in in_colour(axes)}) == coloured
    assert len(axes.get_legend().get_texts()) == entries
    first = next(one for one in in_colour(axes) if one.get_label().startswith("class 1 "))
    np.testing.assert_array_equal(first.get_ydata(), metrics.precision[0])
    if count > 1:
        mean = next(one for one in axes.lines if one.get_label() == f"mean of {count} classes")
        assert np.mean(mean.get_ydata()) == pytest.approx(metrics.map50)


@cases(
    "draw, curves",
    {
        "F1": (f1_chart, "f1_by_score"),
        "precision": (precision_by_score_chart, "precision_by_score"),
        "recall": (recall_by_score_chart, "recall_by_score"),
    },
)
def test_the_points_by_score_lie_on_the_curves_and_the_mean_is_of_the_classes_that_have_one(
    many: Callable, draw: Callable, curves: str
) -> None:
    metrics = many(6)
    expected = getattr(metrics, curves)
    (axes,) = draw(metrics).axes
    points = sorted(points.get_offsets()[0].tolist() for points in axes.collections)
    best = [each.best.threshold for each in metrics.classes]
    on_curves = [[level, row[np.searchsorted(LEVELS, level)]] for level, row in zip(best, expected, strict=True)]
    assert np.array(points) == pytest.approx(np.array(sorted(on_curves)))
    mean = next(one for one in axes.lines if one.get_label() == "mean of 6 classes").get_ydata()
    for level in (0, 50, 95):
        assert mean[level] == pytest.approx(np.mean([row[level] for row in expected if not np.isnan(row[level])]))


def test_slices_are_drawn_worst_first_with_their_intervals(coco_file: Callable) -> None:
    """Twelve images of which the first six are hard; a third slice has too few images."""
    truth = coco_file([(number, 1, [10, 10, 40, 40]) for number in range(1, 13)], images=12)
    metrics = evaluate(truth, [found(number, 1, [10, 10, 40, 40]) for number in (1, 7, 8, 9, 10, 11, 12)])
    number = np.arange(12)
    parts = {"dusk": number < 6, "day": number >= 6, "fog": number == 3}
    slices = measure_divisions(metrics, Divisions((Division("light", parts),), ()), draws=100)
    (axes,) = slices_chart(metrics, slices).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert [name for name in names if name.startswith("light")] == ["light: dusk (6)", "light: day (6)"]
    drawn = {(each.ap50, each.interval.low, each.interval.high) for each in slices.judged if each.interval is not None}
    dots = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    bars = [part.get_segments()[0][:, 0].tolist() for part in axes.collections]
    assert {(dot, *bar) for dot, bar in zip(dots, bars, strict=True)} == drawn


@pytest.mark.parametrize("count", [1, 6, 31, 80])
def test_every_chart_fits_a_page(many: Callable, count: int) -> None:
    metrics = many(count)
    for draw in CHARTS:
        assert (draw(metrics).get_size_inches() <= (9, 10)).all()


@pytest.mark.parametrize("boxes", [[], [(1, 1, [10, 10, 40, 40])]], ids=["no objects", "no detections"])
def test_charts_of_nothing(coco_file: Callable, boxes: list) -> None:
    metrics = evaluate(coco_file(boxes), [])
    assert all(draw(metrics).to_png().startswith(b"\x89PNG") for draw in CHARTS)


@pytest.mark.parametrize(("count", "numbers"), [(6, True), (80, False)])
def test_confusions_of_few_classes_are_numbers(many: Callable, count: int, numbers: bool) -> None:
    metrics = many(count)
    (axes,) = confusion_chart(metrics).axes
    assert sum(int(text.get_text()) for text in axes.texts) == (metrics.confusion.sum() if numbers else 0)
    assert [text.get_text() for text in axes.get_yticklabels()][-2:] == [f"class {count}", "nothing there"]


def test_confused_pairs_are_the_largest_counts_off_the_diagonal(many: Callable) -> None:
    metrics = many(6)
    pairs = confused_pairs(metrics, limit=3)
    off = metrics.confusion[:-1, :-1] - np.diag(np.diag(metrics.confusion[:-1, :-1]))
    assert [count for _, _, count in pairs] == sorted(off.ravel().tolist(), reverse=True)[:3]
    truth, detected, count = pairs[0]
    assert metrics.confusion[int(truth[6:]) - 1, int(detected[6:]) - 1] == count


@pytest.mark.parametrize("draw", BY_SCORE)
@pytest.mark.parametrize(("box", "marked"), [([10, 10, 40, 40], True), ([150, 10, 40, 40], False)])
def test_the_best_thresholds_are_marked_where_there_are_some(
    coco_file: Callable, box: list[int], marked: bool, draw: Callable
) -> None:
    truth = coco_file([(1, 1, [10, 10, 40, 40])])
    metrics = evaluate(truth, [found(1, 1, box)])
    (axes,) = draw(metrics).axes
    assert [text.get_text() for text in axes.texts] == ([" best for all: 0.45 "] if marked else [])
    assert [points.get_offsets().tolist() for points in axes.collections] == ([[[0.45, 1.0]]] if marked else [])
    assert confusion_chart(metrics).axes[0].get_title().startswith(f"Confusions at score {metrics.errors_at:.2f}")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", OF_CLASSES)
def test_charts_write_names_of_any_script_as_they_are(coco_file: Callable, draw: Callable) -> None:
    names = ["日本語", "구름", "कुत्ता", "صورة", "$x^2$", "_hidden", "bell\x07"]
    truth = coco_file([(1, label, [10, 10, 40, 40]) for label in range(1, 8)], names)
    chart = draw(evaluate(truth, [found(1, label, [10, 10, 40, 40]) for label in range(1, 8)]))
    chart.to_png()
    shown = [text for axes in chart.axes for text in [*axes.get_yticklabels(), *axes.texts, *legend_texts(axes)]]
    for name in [*names[:-1], "#7 bell"]:
        assert any(text.get_text().startswith(name) and not text.get_parse_math() for text in shown), name


def legend_texts(axes: Any) -> list[Any]:
    return axes.get_legend().get_texts() if axes.get_legend() else []


def has(panel: Pixels, colour: np.ndarray) -> bool:
    return bool((np.abs(panel.astype(int) - colour).max(axis=2) < 40).sum() > 50)


@pytest.fixture
def truth(write_dataset: Callable) -> GroundTruth:
    """Five images with one object each: 1..3 bright (category 1), 4..5 dark (category 2)."""
    return write_dataset([250, 240, 230, 60, 50])


def test_the_worst_come_first_and_the_typical_are_others(truth: GroundTruth) -> None:
    results = [found(1, 1), found(2, 1), found(3, 1, box=[40, 40, 20, 20]), found(4, 1)]
    rows = draw_comparisons(truth, evaluate(truth, results), worst=2, typical=2).rows
    assert list(rows) == ["With the most errors", "Typical"]
    assert [each.caption for each in rows["With the most errors"]] == [
        "3.png: 0 found, 1 missed, 1 false or mislabelled",
        "4.png: 0 found, 1 missed, 1 false or mislabelled",
    ]
    assert "2.png: 1 found, 0 missed, 0 false or mislabelled" in [each.caption for each in rows["Typical"]]


def test_without_errors_there_is_no_worst_image(truth: GroundTruth) -> None:
    results = [found(n, 1 if n <= 3 else 2) for n in range(1, 6)]
    rows = draw_comparisons(truth, evaluate(truth, results)).rows
    assert {heading: len(images) for heading, images in rows.items()} == {"Typical": 3}


@pytest.mark.parametrize(
    ("results", "left", "right"),
    [
        pytest.param([found(1, 1)], (True, False), (True, False), id="right"),
        pytest.param([found(1, 2)], (False, True), (False, True), id="mislabelled"),
        pytest.param([], (False, True), (False, False), id="missed"),
        pytest.param([found(1, 1), found(1, 2, box=[40, 40, 20, 20])], (True, False), (True, True), id="one-false"),
    ],
)
def test_blue_is_right_and_orange_is_wrong(write_dataset: Callable, results: list, left: tuple, right: tuple) -> None:
    truth = write_dataset([250])
    ((picture,),) = draw_comparisons(truth, evaluate(truth, results), worst=1, typical=1).rows.values()
    image = cv2.imdecode(np.frombuffer(picture.data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[:2] == (picture.height, picture.width)
    for half, expected in zip(np.split(image, [picture.width // 2], axis=1), (left, right), strict=True):
        assert (has(half, BLUE), has(half, ORANGE)) == expected


def test_many_boxes_names_in_any_script_and_no_boxes_can_be_drawn(write_dataset: Callable) -> None:
    truth = write_dataset([250, 240, 60], categories=("bright", "велосипед"))
    rng = np.random.default_rng(0)
    many = [found(1, 2, [*rng.integers(0, 40, 2).tolist(), 20, 20]) for _ in range(40)]
    results = [*many, found(2, 1), found(3, 2)]
    worst, typical = draw_comparisons(truth, evaluate(truth, results)).rows.values()
    assert worst[0].caption == "1.png: 0 found, 1 missed, 40 false or mislabelled"
    assert worst[1].caption == "3.png: 0 found, 0 missed, 1 false or mislabelled"
    assert typical[0].caption == "2.png: 1 found, 0 missed, 0 false or mislabelled"
