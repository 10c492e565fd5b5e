"""Figures of a dataset: its classes; sizes of its images; numbers, sizes, shapes and places of its boxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from pipeline.data.coco import CocoDataset
from pipeline.data.figures import PALETTE, Chart
from pipeline.data.fonts import labels
from pipeline.data.report.box_columns import MEDIUM, SMALL, BoxColumns, Floats, Integers
from pipeline.data.split.dataset_split import Split

WIDTH = 9.0  # inches; 900 pixels at 100 dpi, a notebook's column
_COLOUR_MAP = "cividis"  # even in lightness, and the same for every kind of colour vision
_MOST_CLASS_BARS = 40  # bars that stay readable under each other
_MOST_BARS = 30  # of boxes per image
_MOST_CLASSES = 30  # of a matrix
_NUMBERED = 12  # up to so many classes the cells hold their numbers
_DOT, _BUBBLE = 12, 500  # areas of the smallest and the largest mark, in square points
_FEW_BOXES = 3000  # up to so many are drawn as dots, more as a density
_THINNEST = 0.5  # pixels; thinner boxes are drawn here, as a logarithm has no 0
_MOST_CELLS = 40  # of a heat map, along the longer side
_STRETCH = 4  # boxes longer than this many times their other side are hard for a detector's anchors and grids


def class_histogram(parts: Split) -> Chart:
    """Boxes per class and subset, as bars; crowd regions are not counted."""
    categories = parts.train.categories
    counts = np.array([BoxColumns.of(each).per_class(len(categories)) for each in parts.subsets.values()])
    order = np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST_CLASS_BARS]
    rows = max(4, len(order))  # a single bar need not fill the page
    more = f" (the {len(order)} most frequent of {len(categories)} classes)" if len(order) < len(categories) else ""
    chart, axes = _chart(1.4 + 0.3 * rows, f"Boxes per class{more}", "boxes")
    left = np.zeros(len(order))
    for name, row, colour in zip(parts.subsets, counts, PALETTE, strict=False):
        label = f"{name} ({row.sum()})"
        bars = axes.barh(np.arange(len(order)), row[order], left=left, color=colour, label=label, height=0.75)
        left += row[order]
    axes.bar_label(bars, [f"{total:.0f}" for total in left], padding=4, fontsize=8)
    names = labels(categories)
    axes.set_yticks(range(len(order)), [names[i] for i in order])
    axes.set(ylim=(rows - 0.4, -0.6), xlim=(0, max(1, left.max(initial=0)) * 1.08))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    chart.legend(frameon=False, loc="outside upper right", ncols=3)
    return chart


def boxes_per_image(parts: Split) -> Chart:
    """The number of boxes on an image, as shares of each subset's images.

    A few images with very many boxes share the last bar; else all other bars would be too narrow.
    """
    counts = {name: BoxColumns.of(each).per_image() for name, each in parts.subsets.items()}
    every = np.concatenate([np.zeros(1, np.int64), *counts.values()])
    last = min(int(every.max()), max(10, math.ceil(float(np.quantile(every, 0.99)) * 1.2)))
    step = math.ceil((last + 1) / _MOST_BARS)
    bars = math.ceil((last + 1) / step)
    names = [f"{i}" if step == 1 else f"{i}-{i + step - 1}" for i in range(0, bars * step, step)]
    if every.max() >= bars * step:
        names[-1] = f"{(bars - 1) * step}+"
    chart, axes = _chart(3.6, "Boxes per image", "boxes in an image", "% of the subset's images")
    shown = {name: each for name, each in counts.items() if len(each)}
    width = 0.85 / max(1, len(shown))
    for place, (name, each) in enumerate(shown.items()):
        heights = 100 * np.bincount(np.minimum(each // step, bars - 1), minlength=bars) / len(each)
        label = f"{name} (mean {each.mean():.1f}, {(each == 0).sum()} empty)"
        x = np.arange(bars) + (place - (len(shown) - 1) / 2) * width
        axes.bar(x, heights, width, color=PALETTE[list(counts).index(name)], label=label)
    ticks = range(0, bars, math.ceil(bars / 15))
    axes.set_xticks(ticks, [names[i] for i in ticks])
    axes.set_xlim(-0.6, max(bars, 8) - 0.4)
    if shown:
        chart.legend(frameon=False, loc="outside upper right", ncols=3)
    return chart


def co_occurrence(dataset: CocoDataset) -> Chart:
    """The share of the images with one class (row) that also show another (column), for the most frequent classes."""
    order, images, together = joint_images(dataset)
    title = "Classes that appear together"
    if len(order) < 2:
        return _note(title, "There is one class on the images." if len(order) else "There are no boxes.")
    share = 100 * together / images[:, None]
    np.fill_diagonal(share, np.nan)
    names = labels([dataset.categories[i] for i in order])
    more = f", the {len(order)} most frequent of {len(dataset.categories)}" if len(order) == _MOST_CLASSES else ""
    side = 0.24 if len(order) > _NUMBERED else 0.5
    chart, axes = _chart(
        2.0 + side * max(5, len(order)), title + more, "... show also", "of the images with ... (how many)"
    )
    axes.set_facecolor("0.9")  # the diagonal
    top = max(1.0, float(np.nanmax(share)))
    cells = axes.imshow(share, _COLOUR_MAP, vmin=0, vmax=top, aspect="auto")
    rows = [f"{name} ({count})" for name, count in zip(names, images, strict=True)]
    axes.set_yticks(range(len(order)), rows)
    axes.set_xticks(range(len(order)), names, rotation=90 if len(order) > 5 else 0)
    axes.tick_params(labelsize=8, length=0)
    axes.spines[:].set_visible(False)
    for (i, j), value in np.ndenumerate(share):
        if len(order) <= _NUMBERED and i != j:
            colour = "black" if value > 0.55 * top else "white"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    chart.colorbar(cells, label="% of the row's images", aspect=30)
    return chart


def joint_images(dataset: CocoDataset) -> tuple[Integers, Integers, Floats]:
    """The K classes on most images, `(K,)` positions; images with each, `(K,)`; images with both of two, `(K, K)`."""
    shown = BoxColumns.of(dataset).shown(len(dataset.categories))
    images = np.bincount(shown[:, 1], minlength=len(dataset.categories))
    order = np.argsort(-images, kind="stable")[: min(_MOST_CLASSES, np.count_nonzero(images))]
    row = np.full(len(dataset.categories), -1)
    row[order] = np.arange(len(order))
    present = np.zeros((len(dataset.images), len(order)), np.float32)  # exact up to 16 million images
    kept = shown[row[shown[:, 1]] >= 0]
    present[kept[:, 0], row[kept[:, 1]]] = 1
    return order, images[order], (present.T @ present).astype(np.float64)


def image_sizes(dataset: CocoDataset) -> Chart:
    """Width against height of the images, as bubbles by how many have that size, and their megapixels."""
    sizes = np.array([(each.width, each.height) for each in dataset.images], np.int64).reshape(-1, 2)
    kinds, counts = np.unique(sizes, axis=0, return_counts=True)
    kinds, counts = kinds[np.argsort(-counts, kind="stable")], np.sort(counts)[::-1]  # small bubbles on large ones
    title = f"Sizes of {len(sizes)} images"
    if len(kinds):
        share = "all" if len(kinds) == 1 else f"{len(kinds)} different, {counts[0] / len(sizes):.0%} are"
        title += f": {share} {kinds[0, 0]} x {kinds[0, 1]}"
    chart = Chart(WIDTH, 4.4)
    left, right = chart.subplots(1, 2, width_ratios=(3, 2))
    _finish(left, title, "width, pixels", "height, pixels")
    top = max(256, int(kinds.max(initial=0)) * 1.12)
    left.plot([0, top], [0, top], color="0.8", linewidth=1, zorder=0)
    left.annotate("square", (0, 0), (8, 10), textcoords="offset points", color="0.5", fontsize=8, rotation=45)
    left.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    style: dict[str, Any] = {"color": PALETTE[0], "alpha": 0.35, "linewidths": 0}
    most = int(counts.max(initial=1))
    left.scatter(kinds[:, 0], kinds[:, 1], s=np.maximum(_DOT, _BUBBLE * counts / most), **style)
    left.scatter(kinds[:, 0], kinds[:, 1], s=4, color=PALETTE[0], linewidths=0)
    if len(kinds):
        for count in sorted({1, max(1, most // 10), most}):
            left.scatter([], [], s=max(_DOT, _BUBBLE * count / most), label=f"{count}", **style)
        left.legend(title="images", frameon=False, loc="upper left", bbox_to_anchor=(1, 1), labelspacing=1.2)
    megapixels = sizes.prod(axis=1) / 1e6
    middle = f", median {np.median(megapixels):.2g}" if len(megapixels) else ""
    _finish(right, f"Megapixels{middle}", "megapixels", "images")
    edges = np.linspace(0, max(0.01, megapixels.max(initial=0)) * 1.05, 31).tolist()
    right.hist(megapixels, edges, color=PALETTE[0], rwidth=0.9)
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    return chart


def box_sizes(dataset: CocoDataset) -> Chart:
    """Width against height of all boxes in pixels, with COCO's bounds between small, medium and large."""
    columns = BoxColumns.of(dataset)
    sides = np.maximum(columns.boxes[:, 2:], _THINNEST)
    kinds = np.bincount(columns.size_class(), minlength=3) / max(1, len(sides))
    shares = "{:.0%} small, {:.0%} medium, {:.0%} large".format(*kinds) if len(sides) else "none"
    chart, axes = _chart(5.6, f"Sizes of {len(sides)} boxes: {shares}", "width, pixels", "height, pixels")
    axes.set(xscale="log", yscale="log")
    if len(sides) <= _FEW_BOXES:
        axes.scatter(sides[:, 0], sides[:, 1], s=14, color=PALETTE[0], alpha=0.4, linewidths=0)
    else:
        scales: dict[str, Any] = {"xscale": "log", "yscale": "log", "bins": "log"}
        cells = axes.hexbin(sides[:, 0], sides[:, 1], gridsize=50, cmap=_COLOUR_MAP, mincnt=1, **scales)
        chart.colorbar(cells, label="boxes", format="%d")
    low, high = min(sides.min(initial=SMALL / 2), SMALL / 2) / 1.3, max(sides.max(initial=1), MEDIUM * 2) * 1.3
    for side, label in ((SMALL, "small | medium"), (MEDIUM, "medium | large")):  # a square's area: both are within
        axes.plot([low, high], [side**2 / low, side**2 / high], color=PALETTE[5], linewidth=1.2, linestyle="--")
        end = min(high, side**2 / low) / 1.1
        style: dict[str, Any] = {"rotation": -45, "rotation_mode": "anchor", "ha": "right", "va": "bottom"}
        style["bbox"] = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
        axes.text(end, side**2 / end, label, color=PALETTE[5], fontsize=9, **style)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):  # not the scale's base: hexbin sets its own
        axis.set_major_locator(FixedLocator([2.0**power for power in range(-1, 20)]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    return chart


def aspect_ratios(dataset: CocoDataset) -> Chart:
    """Width over height of all boxes, as bars of small, medium and large ones."""
    columns = BoxColumns.of(dataset)
    sides = columns.boxes[:, 2:]
    sound = (sides > 0).all(axis=1)
    if not sound.any():
        return _note("Aspect ratios", "There are no boxes.")
    ratios = np.log2(sides[sound, 0] / sides[sound, 1])
    long = np.mean(np.abs(ratios) > np.log2(_STRETCH))
    title = f"Aspect ratios: median {2 ** np.median(ratios):.2f}, {long:.1%} of the boxes beyond {_STRETCH}:1"
    chart, axes = _chart(3.6, title, "width : height; tall boxes at the left, wide ones at the right", "boxes")
    reach = min(6, max(2, int(np.ceil(np.abs(ratios).max()))))
    groups = [np.clip(ratios[columns.size_class()[sound] == kind], -reach, reach) for kind in range(3)]
    edges = np.linspace(-reach, reach, 42).tolist()  # an odd number of bars: square boxes are in the middle of one
    colours = [PALETTE[4], PALETTE[0], PALETTE[7]]  # the larger, the darker
    axes.hist(groups, edges, stacked=True, label=["small", "medium", "large"], color=colours, rwidth=0.9)
    doublings = range(-reach, reach + 1)
    axes.set_xticks(doublings, [f"{2**each}:1" if each >= 0 else f"1:{2**-each}" for each in doublings])
    chart.legend(frameon=False, loc="outside upper right", ncols=3)
    return chart


def heat_map(parts: Split) -> Chart:
    """Where the centres of the boxes lie on the image, one map for each subset.

    Coordinates are fractions of the image's width and height; maps have the shape of the median image. 1 is the
    value of an even spread.
    """
    maps = {name: BoxColumns.of(each) for name, each in parts.subsets.items()}
    maps = {name: each for name, each in maps.items() if len(each.boxes)}
    if not maps:
        return _note("Centres of boxes", "There are no boxes.")
    sizes = np.concatenate([each.sizes for each in maps.values()])
    tall = float(np.clip(np.median(sizes[:, 1] / np.maximum(1, sizes[:, 0])), 0.4, 2.5))
    densities = [centre_density(each, tall) for each in maps.values()]
    top = max(1.0, *(float(each.max()) for each in densities))
    panel = (WIDTH - 1.2) / max(2, len(maps)) - 0.35  # inches; a single one need not fill the page
    chart = Chart(WIDTH, 1.15 + panel * min(1.3, tall))
    row: Any = chart.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, columns), density in zip(row, maps.items(), densities, strict=True):
        shown = axes.imshow(density, _COLOUR_MAP, extent=(0, 1, 1, 0), aspect=tall, vmin=0, vmax=top)
        axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="x / width")
        axes.set_title(f"{name}: {len(columns.boxes)} boxes", loc="left", fontsize=10)
    row[0].set_ylabel("y / height")
    chart.suptitle("Centres of boxes", x=0.005, ha="left", fontsize=11)
    chart.colorbar(shown, ax=list(row), label="1 = even spread", aspect=18)
    return chart


def centre_density(columns: BoxColumns, height_over_width: float) -> Floats:
    """Boxes per cell of a grid over the image, `(down, across)`, as multiples of an even spread.

    The fewer the boxes, the larger the cells, so that the map does not show chance.
    """
    cells = int(np.clip(np.sqrt(len(columns.boxes)) / 3, 4, _MOST_CELLS))
    across = max(2, round(cells * min(1.0, 1 / height_over_width)))
    down = max(2, round(cells * min(1.0, height_over_width)))
    centres = (columns.boxes[:, :2] + columns.boxes[:, 2:] / 2) / np.maximum(1, columns.sizes[columns.images])
    x, y = np.clip(centres, 0, 1).T
    counts: Floats = np.histogram2d(y, x, (down, across), ((0, 1), (0, 1)))[0]
    return counts * across * down / max(1, len(centres))


def _chart(height: float, title: str, x: str, y: str = "") -> tuple[Chart, Axes]:
    chart = Chart(WIDTH, height)
    axes: Axes = chart.add_subplot()
    _finish(axes, title, x, y)
    return chart, axes


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)


def _note(title: str, text: str) -> Chart:
    chart, axes = _chart(1.1, title, "")
    axes.axis("off")
    axes.text(0, 0.5, text, transform=axes.transAxes, color="0.35", va="center")
    return chart
