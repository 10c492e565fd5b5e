"""FigureList of classes: boxes of each class and on each image, and classes that occur together."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.data.coco import CocoDataset
from pipeline.data.figures import PALETTE, Chart
from pipeline.data.report.box_columns import BoxColumns, Floats, Integers, subsets
from pipeline.data.report.figure_style import COLOUR_MAP, WIDTH, finish, labels, note
from pipeline.data.split.dataset_split import Split

_MOST_CLASS_BARS = 40  # bars that stay readable under each other
_MOST_BARS = 30  # of boxes per image
_MOST_TICKS = 15
_MOST_CLASSES = 30  # of a matrix
_NUMBERED = 12  # up to so many classes the cells hold their numbers


def class_histogram(parts: Split) -> Chart:
    """Boxes per class and subset, as bars; crowd regions are not counted."""
    categories = parts.train.categories
    counts = np.array([BoxColumns.of(each).per_class(len(categories)) for each in subsets(parts).values()])
    order = np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST_CLASS_BARS]
    chart = Chart(WIDTH, 1.4 + 0.3 * max(4, len(order)))
    axes: Axes = chart.add_subplot()
    left = np.zeros(len(order))
    for name, row, colour in zip(subsets(parts), counts, PALETTE, strict=False):
        bars = row[order]
        axes.barh(np.arange(len(order)), bars, left=left, color=colour, label=f"{name} ({row.sum()})", height=0.75)
        left += bars
    for y, total in enumerate(left):
        axes.annotate(f"{total:.0f}", (total, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    names = labels(categories)
    axes.set_yticks(range(len(order)), [names[i] for i in order], parse_math=False)
    axes.set_ylim(max(4, len(order)) - 0.4, -0.6)  # a single bar need not fill the page
    axes.set_xlim(0, max(1, left.max(initial=0)) * 1.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    more = f" (the {_MOST_CLASS_BARS} most frequent of {len(names)} classes)" if len(names) > _MOST_CLASS_BARS else ""
    finish(axes, f"Boxes per class{more}", "boxes", "")
    chart.legend(frameon=False, loc="outside upper right", ncols=3)
    return chart


def boxes_per_image(parts: Split) -> Chart:
    """The number of boxes on an image, as shares of each subset's images."""
    counts = {name: BoxColumns.of(each).per_image() for name, each in subsets(parts).items() if each.images}
    colours = [colour for colour, each in zip(PALETTE, subsets(parts).values(), strict=False) if each.images]
    step, bars, names = _steps(np.concatenate([np.zeros(1, np.int64), *counts.values()]))
    chart = Chart(WIDTH, 3.6)
    axes: Axes = chart.add_subplot()
    for place, (name, each) in enumerate(counts.items()):
        shares = 100 * np.bincount(np.minimum(each // step, bars - 1), minlength=bars) / len(each)
        label = f"{name} (mean {each.mean():.1f}, {(each == 0).sum()} empty)"
        width = 0.85 / len(counts)
        x = np.arange(bars) + (place - (len(counts) - 1) / 2) * width
        axes.bar(x, shares, width, color=colours[place], label=label)
    every = math.ceil(bars / _MOST_TICKS)
    axes.set_xticks(range(0, bars, every), names[::every])
    axes.set_xlim(-0.6, max(bars, 8) - 0.4)
    if counts:
        chart.legend(frameon=False, loc="outside upper right", ncols=3)
    finish(axes, "Boxes per image", "boxes in an image", "% of the subset's images")
    return chart


def _steps(counts: Integers) -> tuple[int, int, list[str]]:
    """Bars that show almost all images well: numbers of boxes in a bar, number of bars, and their names.

    A few images with very many boxes share the last bar; else all other bars would be too narrow.
    """
    most = int(counts.max())
    usual = max(10, math.ceil(float(np.quantile(counts, 0.99)) * 1.2))
    step = math.ceil((min(most, usual) + 1) / _MOST_BARS)
    bars = math.ceil((min(most, usual) + 1) / step)
    names = [f"{i * step}" if step == 1 else f"{i * step}-{i * step + step - 1}" for i in range(bars)]
    if most >= bars * step:
        names[-1] = f"{(bars - 1) * step}+"
    return step, bars, names


def co_occurrence(dataset: CocoDataset) -> Chart:
    """The share of the images with one class (row) that also show another (column), for the most frequent classes."""
    order, images, together = joint_images(dataset)
    title = "Classes that appear together"
    if len(order) < 2:
        return note(title, "There is one class on the images." if len(order) else "There are no boxes.")
    share = 100 * together / images[:, None]
    np.fill_diagonal(share, np.nan)
    names = labels([dataset.categories[i] for i in order])
    side = 0.24 if len(order) > _NUMBERED else 0.5
    chart = Chart(WIDTH, 2.0 + side * max(5, len(order)))
    axes: Axes = chart.add_subplot()
    axes.set_facecolor("0.9")  # the diagonal
    cells = axes.imshow(share, COLOUR_MAP, vmin=0, vmax=max(1.0, float(np.nanmax(share))), aspect="auto")
    places = range(len(order))
    axes.set_yticks(places, [f"{name} ({count})" for name, count in zip(names, images, strict=True)], parse_math=False)
    axes.set_xticks(places, names, rotation=90 if len(order) > 5 else 0, parse_math=False)
    axes.tick_params(labelsize=8, length=0)
    if len(order) <= _NUMBERED:
        _write_numbers(axes, share)
    axes.spines[:].set_visible(False)
    more = f", the {len(order)} most frequent of {len(dataset.categories)}" if len(order) == _MOST_CLASSES else ""
    axes.set_title(title + more, loc="left", fontsize=11)
    axes.set_ylabel("of the images with ... (how many)")
    axes.set_xlabel("... show also")
    chart.colorbar(cells, label="% of the row's images", aspect=30)
    return chart


def joint_images(dataset: CocoDataset) -> tuple[Integers, Integers, Floats]:
    """Count the images that show each class, and each pair of classes.

    Returns:
        Positions in `dataset.categories` of the K classes on most images, with at least one; their image counts,
        `(K,)`; and the counts of images with both, `(K, K)`.
    """
    shown = BoxColumns.of(dataset).shown(len(dataset.categories))
    images = np.bincount(shown[:, 1], minlength=len(dataset.categories))
    order = np.argsort(-images, kind="stable")[: min(_MOST_CLASSES, np.count_nonzero(images))]
    row = np.full(len(dataset.categories), -1)
    row[order] = np.arange(len(order))
    present = np.zeros((len(dataset.images), len(order)), np.float32)  # exact up to 16 million images
    kept = shown[row[shown[:, 1]] >= 0]
    present[kept[:, 0], row[kept[:, 1]]] = 1
    return order, images[order], (present.T @ present).astype(np.float64)


def _write_numbers(axes: Axes, share: Any) -> None:
    half = np.nanmax(share) * 0.55
    for (i, j), value in np.ndenumerate(share):
        if not np.isnan(value):
            axes.text(
                j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color="black" if value > half else "white"
            )
