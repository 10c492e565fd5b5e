"""Charts for one, six and eighty classes: they show what the metrics say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import cases
from detections import found

from pipeline.data.figures import Chart
from pipeline.evaluation.image_properties import Division, Divisions
from pipeline.evaluation.report.charts import (
    ap_by_iou_chart,
    ap_chart,
    calibration_chart,
    confused_pairs,
    confusion_chart,
    f1_chart,
    precision_by_score_chart,
    precision_recall_chart,
    recall_by_score_chart,
    slices_chart,
)
from pipeline.evaluation.slices import measure_divisions
from pipeline.metrics.chance import measure_chance
from pipeline.metrics.detection_metrics import LEVELS, DetectionMetrics, evaluate
from pipeline.metrics.resampling import draw_figures


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
