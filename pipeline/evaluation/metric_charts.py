"""The metrics as charts: precision-recall and F1 curves, AP per class, confusions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from pipeline.data.figures import PALETTE, Chart
from pipeline.evaluation.matching import Floats, Ints
from pipeline.evaluation.metrics import ClassMetrics, DetectionMetrics

_STYLES = tuple(itertools.product(("-", "--"), PALETTE[:6]))
_HIGHLIGHTED = 10
_CONFUSED = 12
_GREY = "#bbbbbb"
_GRID = "#e6e6e6"


def precision_recall_chart(metrics: DetectionMetrics) -> Chart:
    """Precision over recall at IoU 0.5 for each class, and the mean of the classes."""
    curves, ap50 = metrics.curves, [each.ap50 for each in metrics.classes]
    chart, axes = _start()
    _draw_classes(axes, metrics, curves.recall, curves.precision, ap50)
    _finish(axes, "Precision-recall at IoU 0.5", "recall", "precision", "AP50")
    return chart


def f1_chart(metrics: DetectionMetrics) -> Chart:
    """F1 over the score threshold at IoU 0.5 for each class, with the best threshold for all, if there is one."""
    curves, best = metrics.curves, [each.best.f1 for each in metrics.classes]
    chart, axes = _start()
    _draw_classes(axes, metrics, curves.score, curves.f1, best)
    if metrics.threshold is not None:
        left = metrics.threshold > 0.6
        axes.axvline(metrics.threshold, color="black", linewidth=1, linestyle=":")
        axes.annotate(
            f"best for all: {metrics.threshold:.2f}",
            (metrics.threshold, 1.0),
            (-4 if left else 4, -3),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
        )
    _finish(axes, "F1 by score threshold at IoU 0.5", "score threshold", "F1", "best F1")
    return chart


def _start() -> tuple[Chart, Axes]:
    chart = Chart(8.5, 5)
    return chart, chart.add_subplot()


def _draw_classes(
    axes: Axes, metrics: DetectionMetrics, x: Floats, curves: Floats, figures: Sequence[float | None]
) -> None:
    """Draw one curve per class: the most frequent classes in colour, the others grey, the mean black and bold."""
    drawn = [label for label, each in enumerate(metrics.classes) if each.ground_truth]
    frequent = sorted(drawn, key=lambda label: -metrics.classes[label].ground_truth)[:_HIGHLIGHTED]
    others = [label for label in drawn if label not in frequent]
    for number, label in enumerate(others):
        name = f"{len(others)} rarer classes" if number == 0 else None
        axes.plot(x, curves[label], color=_GREY, linewidth=0.7, label=name, zorder=1)
    styles = dict(zip(frequent, _STYLES, strict=False))  # a class looks the same in every chart, whatever its rank
    for label in sorted(frequent, key=lambda label: -(figures[label] or 0.0)):
        style, colour = styles[label]
        name = f"{_short(metrics.classes[label].name)} {figures[label] or 0:.2f}"
        axes.plot(x, curves[label], style, color=colour, linewidth=1.5, label=name, zorder=2)
    if len(drawn) > 1:
        name = f"mean of {len(drawn)} classes"
        axes.plot(x, curves[drawn].mean(axis=0), color="black", linewidth=2.8, label=name, zorder=3)


def _finish(axes: Axes, title: str, x: str, y: str, legend: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(title=legend, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "no ground truth", ha="center", va="center", color="#666666")


def ap_chart(metrics: DetectionMetrics) -> Chart:
    """AP50 and AP of each class as bars, best first, with the number of objects behind the name."""
    ranked = sorted((each for each in metrics.classes if each.ground_truth), key=lambda each: -(each.ap50 or 0.0))
    columns = 1 if len(ranked) <= 30 else 2
    rows = max(1, -(-len(ranked) // columns))
    chart = Chart(8.5, 1.1 + 0.21 * max(rows, 4))
    grid = np.ravel(chart.subplots(1, columns, squeeze=False))
    for column, axes in enumerate(grid):
        _draw_bars(axes, ranked[column * rows : (column + 1) * rows], rows)
    chart.suptitle("Average precision per class (number of objects)", fontsize=12)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        chart.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return chart


def _draw_bars(axes: Axes, classes: Sequence[ClassMetrics], rows: int) -> None:
    places = np.arange(len(classes))
    axes.barh(places, [each.ap50 or 0.0 for each in classes], 0.75, color=PALETTE[4], label="AP50")
    axes.barh(places, [each.ap or 0.0 for each in classes], 0.4, color=PALETTE[0], label="AP (IoU 0.50:0.95)")
    axes.set_yticks(places, [f"{_short(each.name)} ({each.ground_truth})" for each in classes], fontsize=8)
    axes.set(xlim=(0, 1), ylim=(max(rows, 1) - 0.4, -0.6))
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def confusion_chart(metrics: DetectionMetrics) -> Chart:
    """Counts of which class was taken for which, shaded by their share of the row, where errors are counted.

    Of more than a dozen classes, those most often confused are shown and the others are summed up.
    """
    counts, names = _most_confused(metrics)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.42 * len(counts)
    chart = Chart(side + 0.6, side)
    axes = chart.add_subplot()
    axes.imshow(shares, cmap=mpl.colormaps["Blues"], vmin=0, vmax=1)
    size = 9 if len(counts) <= 8 else 7
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=size)
    places = np.arange(len(counts))
    axes.set_yticks(places, [*names, "nothing there"], fontsize=8)
    axes.set_xticks(places, [*names, "missed"], fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    axes.set(xlabel="detected as", ylabel="truth", title=f"Confusions at score {metrics.errors_at:.2f}, IoU 0.5")
    return chart


def _most_confused(metrics: DetectionMetrics) -> tuple[Ints, list[str]]:
    names = [_short(each.name) for each in metrics.classes]
    counts = metrics.confusion
    if len(names) <= _CONFUSED:
        return counts, names
    among = counts[:-1, :-1] - np.diag(np.diag(counts)[:-1])
    objects = counts[:-1].sum(axis=1)  # decides where nothing is confused
    order = np.lexsort((-objects, -(among.sum(axis=0) + among.sum(axis=1))))
    shown = np.sort(order[: _CONFUSED - 1])
    group = np.full(len(counts), len(shown))
    group[shown] = np.arange(len(shown))
    group[-1] = len(shown) + 1
    merged = np.zeros((len(shown) + 2,) * 2, np.int64)
    np.add.at(merged, (group[:, None], group[None, :]), counts)
    return merged, [names[label] for label in shown] + [f"{len(names) - len(shown)} others"]


def confused_pairs(metrics: DetectionMetrics, limit: int = 10) -> list[tuple[str, str, int]]:
    """The most frequent confusions as (truth, detected as, count), most frequent first."""
    names = [each.name for each in metrics.classes]
    pairs = [
        (names[row], names[column], int(metrics.confusion[row, column]))
        for row, column in itertools.permutations(range(len(names)), 2)
        if metrics.confusion[row, column]
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:limit]


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
