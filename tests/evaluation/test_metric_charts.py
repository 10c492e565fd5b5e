"""Figures for one, six and eighty classes: what they draw is what the metrics say, and little enough to read."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.metric_charts import (
    ap_chart,
    confused_pairs,
    confusion_chart,
    f1_chart,
    precision_recall_chart,
)
from pipeline.evaluation.metrics import DetectionMetrics, evaluate

CHARTS = [precision_recall_chart, f1_chart, ap_chart, confusion_chart]


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
    np.testing.assert_array_equal(first.get_ydata(), metrics.curves.precision[0])


def test_the_mean_is_the_mean_of_the_classes_with_objects(coco_file: Callable) -> None:
    box = [10, 10, 40, 40]
    truth = coco_file([(1, 1, box), (2, 2, box)])
    metrics = evaluate(truth, [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9}])
    (axes,) = precision_recall_chart(metrics).axes
    mean = next(one for one in axes.lines if one.get_label() == "mean of 2 classes")
    assert np.mean(mean.get_ydata()) == pytest.approx(metrics.map50)


@pytest.mark.parametrize("count", [1, 6, 31, 80])
def test_every_chart_fits_a_page(many: Callable, count: int) -> None:
    metrics = many(count)
    for draw in CHARTS:
        width, height = draw(metrics).get_size_inches()
        assert width <= 9
        assert height <= 10


@pytest.mark.parametrize("boxes", [[], [(1, 1, [10, 10, 40, 40])]], ids=["no-objects", "no-detections"])
def test_charts_of_nothing(coco_file: Callable, boxes: list) -> None:
    metrics = evaluate(coco_file(boxes), [])
    for draw in CHARTS:
        assert draw(metrics).to_png().startswith(b"\x89PNG")


def test_rare_confusions_are_summed_up_and_nothing_is_lost(many: Callable) -> None:
    metrics = many(80)
    (axes,) = confusion_chart(metrics).axes
    assert sum(int(text.get_text()) for text in axes.texts) == metrics.confusion.sum()
    assert axes.get_yticklabels()[-2].get_text() == "69 others"


def test_confused_pairs_are_the_largest_counts_off_the_diagonal(many: Callable) -> None:
    metrics = many(6)
    pairs = confused_pairs(metrics, limit=3)
    off = metrics.confusion[:-1, :-1] - np.diag(np.diag(metrics.confusion[:-1, :-1]))
    assert [count for _, _, count in pairs] == sorted(off.ravel().tolist(), reverse=True)[:3]
    truth, detected, count = pairs[0]
    assert metrics.confusion[int(truth[6:]) - 1, int(detected[6:]) - 1] == count


@pytest.mark.parametrize(
    ("box", "marked"),
    [pytest.param([10, 10, 40, 40], True, id="found"), pytest.param([150, 10, 40, 40], False, id="nothing right")],
)
def test_the_best_threshold_is_marked_where_there_is_one(coco_file: Callable, box: list[int], marked: bool) -> None:
    truth = coco_file([(1, 1, [10, 10, 40, 40])])
    metrics = evaluate(truth, [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9}])
    (axes,) = f1_chart(metrics).axes
    assert [text.get_text() for text in axes.texts] == (["best for all: 0.45"] if marked else [])
    assert confusion_chart(metrics).axes[0].get_title().startswith(f"Confusions at score {metrics.errors_at:.2f}")
