"""The metrics as charts: curves, AP per class and by IoU, calibration, confusions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from pipeline.data.figures import PALETTE, Chart
from pipeline.data.fonts import labels
from pipeline.data.report.inline_images import Sections, draw
from pipeline.detection.training_chart import training_chart
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.slices import Slices
from pipeline.evaluation.training_epochs import read_training_epochs
from pipeline.metrics.chance import Chance
from pipeline.metrics.coco_matching import IOUS, Floats
from pipeline.metrics.detection_metrics import LEVELS, DetectionMetrics

RIGHT, WRONG = PALETTE[0], PALETTE[5]  # blue and vermilion; the labels say it too
_STYLES = tuple(itertools.product(("-", "--"), PALETTE[:6]))
_HIGHLIGHTED = 10
_COUNTED = 12  # with more classes than this, the confusions are shades without numbers
_SLICES = 25  # in the chart; the table has all
_NAME = 50  # letters of a slice's
_GREY, _GRID = "#bbbbbb", "#e6e6e6"


def draw_charts(measured: Measurement, training: Path) -> Sections:
    """Draw all charts of the report, by its headings.

    `training` is the folder of the training; a model that was not trained has no `Epochs`.
    """
    metrics, epochs = measured.metrics, read_training_epochs(training)
    curves = (
        precision_recall_chart(metrics),
        f1_chart(metrics),
        precision_by_score_chart(metrics),
        recall_by_score_chart(metrics),
        ap_chart(metrics, measured.chance),
        ap_by_iou_chart(metrics),
        calibration_chart(metrics),
    )
    parts = {
        "Curves": draw(*curves),
        "Slices": draw(slices_chart(metrics, measured.slices)),
        "Confusions": draw(confusion_chart(metrics)),
    }
    return Sections(parts | ({"Epochs": draw(training_chart(epochs.epochs, epochs.best))} if epochs else {}))


def precision_recall_chart(metrics: DetectionMetrics) -> Chart:
    """Precision over recall at IoU 0.5 for each class, and the mean of the classes."""
    chart, axes = _start(8.5, 5, "Precision-recall at IoU 0.5", "recall", "precision")
    _draw_classes(axes, metrics, metrics.precision, [each.ap50 for each in metrics.classes], "AP50")
    return chart


def f1_chart(metrics: DetectionMetrics) -> Chart:
    """F1 over the score threshold at IoU 0.5 for each class, with the recommended thresholds."""
    return _by_score_chart(metrics, metrics.f1_by_score, "F1", [each.best.f1 for each in metrics.classes])


def precision_by_score_chart(metrics: DetectionMetrics) -> Chart:
    """Precision over the score threshold at IoU 0.5 for each class, with the recommended thresholds."""
    figures = [each.best.precision for each in metrics.classes]
    return _by_score_chart(metrics, metrics.precision_by_score, "Precision", figures)


def recall_by_score_chart(metrics: DetectionMetrics) -> Chart:
    """Recall over the score threshold at IoU 0.5 for each class, with the recommended thresholds."""
    return _by_score_chart(metrics, metrics.recall_by_score, "Recall", [each.best.recall for each in metrics.classes])


def _by_score_chart(metrics: DetectionMetrics, curves: Floats, name: str, at_best: Sequence[float | None]) -> Chart:
    """Curves with a point at the recommended threshold of each class in colour, and a line at that of all.

    `at_best` are the figures at the points. Where no threshold can be recommended, there is no point and no line.
    """
    chart, axes = _start(8.5, 5, f"{name} by score threshold at IoU 0.5", "score threshold", name)
    colours = _draw_classes(axes, metrics, curves, at_best, "best F1" if name == "F1" else f"{name} at best F1")
    for label, colour in colours.items():
        best, value = metrics.classes[label].best, at_best[label]
        if best.f1 and value is not None:
            axes.scatter(best.threshold, value, s=28, color=colour, edgecolors="white", zorder=4)
    if metrics.threshold is not None:
        axes.axvline(metrics.threshold, color="black", linewidth=1, linestyle=":")
        side = "right" if metrics.threshold > 0.6 else "left"
        axes.text(metrics.threshold, 1.0, f" best for all: {metrics.threshold:.2f} ", ha=side, va="top")
    return chart


def ap_chart(metrics: DetectionMetrics, chance: Chance) -> Chart:
    """AP50 and AP of each class as bars, best first, AP with its interval; behind the name the number of objects."""
    ranked = [pair for pair in zip(metrics.classes, chance.class_ap, strict=True) if pair[0].ground_truth]
    ranked.sort(key=lambda pair: -(pair[0].ap50 or 0.0))
    classes = [each for each, _ in ranked]
    height = min(1.4 + 0.21 * max(len(ranked), 4), 10)
    chart, axes = _start(8.5, height, "Average precision per class (number of objects)", "", "")
    places = np.arange(len(ranked))
    axes.barh(places, [each.ap50 or 0.0 for each in classes], 0.75, color=PALETTE[4], label="AP50")
    axes.barh(places, [each.ap or 0.0 for each in classes], 0.4, color=PALETTE[0], label="AP (IoU 0.50:0.95)")
    known = [(place, interval) for place, (_, interval) in enumerate(ranked) if interval is not None]
    if known:
        at, low, high = zip(*((place, each.low, each.high) for place, each in known), strict=True)
        axes.hlines(at, low, high, color="black", linewidth=1.2, label="95 % interval of AP")
    names = [f"{name} ({each.ground_truth})" for name, each in zip(labels(classes), classes, strict=True)]
    axes.set_yticks(places, names, fontsize=8 if len(ranked) <= 40 else 6)
    axes.set(xlim=(0, 1), ylim=(max(len(ranked), 1) - 0.4, -0.6))
    chart.legend(loc="outside lower center", ncols=3, frameon=False)
    return chart


def ap_by_iou_chart(metrics: DetectionMetrics) -> Chart:
    """Mean AP of the classes against the IoU at which a detection counts as right."""
    chart, axes = _start(5.5, 3.6, "AP by IoU: how exact the boxes are", "IoU", "AP, mean of the classes")
    axes.set(xlim=(0.48, 0.97), ylim=(0, 1.02))
    axes.plot(IOUS, metrics.ap_by_iou, "o-", color=PALETTE[0], linewidth=1.5, markersize=4)
    return chart


def calibration_chart(metrics: DetectionMetrics) -> Chart:
    """Precision against score: on the diagonal, scores mean what they say. A point's area shows how many there are."""
    error = metrics.calibration.error
    title = "Precision by score" + ("" if error is None else f": calibration error {error:.3f}")
    chart, axes = _start(5.5, 4.4, title, "score of a detection, mean of the bin", "share that is right at IoU 0.5")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1)
    bins = [each for each in metrics.calibration.bins if each.detections]
    points = np.array([(each.score, each.precision, each.detections) for each in bins], np.float64).reshape(-1, 3)
    score, precision, count = points.T
    axes.plot(score, precision, color=PALETTE[0], linewidth=1)
    axes.scatter(score, precision, s=12 + 180 * count / count.max(initial=1), color=PALETTE[0], alpha=0.8)
    return chart


def slices_chart(metrics: DetectionMetrics, slices: Slices) -> Chart:
    """AP50 of the worst slices with its interval, worst first; those worse than the rest beyond chance in vermilion."""
    shown = slices.judged[:_SLICES]
    height = 1.3 + 0.24 * max(len(shown), 3)
    chart, axes = _start(8.5, height, "AP50 on slices of the test set, worst first (images)", "AP50", "")
    for place, each in enumerate(shown):
        colour = WRONG if each.is_worse else RIGHT
        if each.ap50 is not None and each.interval is not None:
            axes.hlines(place, each.interval.low, each.interval.high, color=colour, linewidth=1.5)
            axes.plot(each.ap50, place, "D" if each.is_worse else "o", color=colour, markersize=5)
    if metrics.map50 is not None:
        axes.axvline(metrics.map50, color="black", linewidth=1, linestyle=":")
        side = "right" if metrics.map50 > 0.6 else "left"
        axes.text(metrics.map50, -0.9, f" all images: {metrics.map50:.2f} ", ha=side, va="center", fontsize=8)
    names = [f"{each.property}: {each.value}"[:_NAME] + f" ({each.images_with_objects})" for each in shown]
    axes.set_yticks(np.arange(len(shown)), names, fontsize=8)
    axes.set(xlim=(0, 1), ylim=(max(len(shown), 1) - 0.4, -1.3))
    return chart


def confusion_chart(metrics: DetectionMetrics) -> Chart:
    """Counts of which class was taken for which, shaded by their share of the row, where errors are counted."""
    counts = metrics.confusion
    side = min(2.6 + 0.42 * len(counts), 8.5)
    title = f"Confusions at score {metrics.errors_at:.2f}, IoU 0.5"
    chart, axes = _start(side + 0.5, side, title, "detected as", "truth")
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap=mpl.colormaps["Blues"], vmin=0, vmax=1)
    axes.grid(visible=False)
    if len(metrics.classes) <= _COUNTED:
        for row, column in zip(*np.nonzero(counts), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8)
    places, names = np.arange(len(counts)), labels(metrics.classes)
    size = 8 if len(counts) <= 40 else 5
    axes.set_yticks(places, [*names, "nothing there"], fontsize=size)
    axes.set_xticks(places, [*names, "missed"], fontsize=size, rotation=90)
    return chart


def confused_pairs(metrics: DetectionMetrics, limit: int = 10) -> list[tuple[str, str, int]]:
    """The most frequent confusions as (truth, detected as, count), most frequent first."""
    names = [each.name for each in metrics.classes]
    counts = metrics.confusion[:-1, :-1] * ~np.eye(len(names), dtype=bool)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, counts.shape)
    return [(names[i], names[j], int(counts[i, j])) for i, j in zip(rows, columns, strict=True) if counts[i, j]]


def _start(width: float, height: float, title: str, x: str, y: str) -> tuple[Chart, Axes]:
    chart = Chart(width, height)
    axes = chart.add_subplot()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return chart, axes


def _draw_classes(
    axes: Axes, metrics: DetectionMetrics, curves: Floats, figures: Sequence[float | None], legend: str
) -> dict[int, str]:
    """Draw one curve per class: the most frequent classes in colour, the others grey, the mean black and bold.

    The colours of the frequent classes are returned.
    """
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    drawn = [label for label, each in enumerate(metrics.classes) if each.ground_truth]
    if not drawn:
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center")
        return {}
    frequent = sorted(drawn, key=lambda label: -metrics.classes[label].ground_truth)[:_HIGHLIGHTED]
    others = [label for label in drawn if label not in frequent]
    for number, label in enumerate(others):
        name = f"{len(others)} rarer classes" if number == 0 else None
        axes.plot(LEVELS, curves[label], color=_GREY, linewidth=0.7, label=name, zorder=1)
    names = labels(metrics.classes)
    styles = dict(zip(frequent, _STYLES, strict=False))  # a class looks the same in every chart, whatever its rank
    for label in sorted(frequent, key=lambda label: -(figures[label] or 0.0)):
        style, colour = styles[label]
        name = f"{names[label]} {figures[label] or 0:.2f}"
        axes.plot(LEVELS, curves[label], style, color=colour, linewidth=1.5, label=name, zorder=2)
    if len(drawn) > 1:
        name = f"mean of {len(drawn)} classes"
        axes.plot(LEVELS, _mean(curves[drawn]), color="black", linewidth=2.8, label=name, zorder=3)
    named = [line for line in axes.lines if not str(line.get_label()).startswith("_child")]  # `_x` may be a class
    axes.legend(handles=named, title=legend, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    return {label: colour for label, (_, colour) in styles.items()}


def _mean(curves: Floats) -> Floats:
    """The mean of curves `(K, 101)` where they are defined; NaN where none is."""
    defined = ~np.isnan(curves)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, curves, 0.0).sum(0) / defined.sum(0))
