"""How many boxes each class, and each image, has."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.data.figures import PALETTE, Chart
from pipeline.data.report.box_columns import Columns, Integers, subsets
from pipeline.data.report.figure_style import WIDTH, finish, labels
from pipeline.data.split.dataset_split import Split

_MOST_CLASSES = 40  # bars that stay readable under each other
_MOST_BARS = 30  # of boxes per image
_MOST_TICKS = 15


def class_histogram(parts: Split) -> Chart:
    """Boxes per class and subset, as bars; crowd regions are not counted."""
    categories = parts.train.categories
    counts = np.array([Columns.of(each).per_class(len(categories)) for each in subsets(parts).values()])
    order = np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST_CLASSES]
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
    more = f" (the {_MOST_CLASSES} most frequent of {len(names)} classes)" if len(names) > _MOST_CLASSES else ""
    finish(axes, f"Boxes per class{more}", "boxes", "")
    chart.legend(frameon=False, loc="outside upper right", ncols=3)
    return chart


def boxes_per_image(parts: Split) -> Chart:
    """How many images of each subset hold how many boxes, as shares of the subset."""
    counts = {name: Columns.of(each).per_image() for name, each in subsets(parts).items() if each.images}
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
    """Bars that show almost all images well: how many numbers a bar takes, how many bars, and their names.

    A few images with very many boxes share the last bar, which would else press all others together.
    """
    most = int(counts.max())
    usual = max(10, math.ceil(float(np.quantile(counts, 0.99)) * 1.2))
    step = math.ceil((min(most, usual) + 1) / _MOST_BARS)
    bars = math.ceil((min(most, usual) + 1) / step)
    names = [f"{i * step}" if step == 1 else f"{i * step}-{i * step + step - 1}" for i in range(bars)]
    if most >= bars * step:
        names[-1] = f"{(bars - 1) * step}+"
    return step, bars, names
