"""FigureList of sizes: those of images; sizes, aspect ratios and places of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from pipeline.data.coco import CocoDataset
from pipeline.data.figures import PALETTE, Chart
from pipeline.data.report.box_columns import MEDIUM, SMALL, BoxColumns, Floats, shares, subsets
from pipeline.data.report.figure_style import COLOUR_MAP, WIDTH, finish, note
from pipeline.data.split.dataset_split import Split

_DOT, _BUBBLE = 12, 500  # areas of the smallest and the largest mark, in square points
_FEW_BOXES = 3000  # up to so many are drawn as dots, more as a density
_THINNEST = 0.5  # pixels; thinner boxes are drawn here, as a logarithm has no 0
_MOST_CELLS = 40  # of a heat map, along the longer side
_SIZES = (PALETTE[4], PALETTE[0], PALETTE[7])  # the larger, the darker
_STRETCH = 4  # boxes longer than this many times their other side are hard for a detector's anchors and grids


def image_sizes(dataset: CocoDataset) -> Chart:
    """Width against height of the images, as bubbles by how many have that size, and their megapixels."""
    sizes = np.array([(each.width, each.height) for each in dataset.images], np.int64).reshape(-1, 2)
    kinds, counts = np.unique(sizes, axis=0, return_counts=True)
    chart = Chart(WIDTH, 4.4)
    left, right = chart.subplots(1, 2, width_ratios=(3, 2))
    _draw_bubbles(left, kinds, counts)
    finish(left, _sizes_title(kinds, counts), "width, pixels", "height, pixels")
    megapixels = sizes.prod(axis=1) / 1e6
    edges = np.linspace(0, max(0.01, megapixels.max(initial=0)) * 1.05, 31).tolist()
    right.hist(megapixels, edges, color=PALETTE[0], rwidth=0.9)
    right.xaxis.set_major_locator(MaxNLocator(5))
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    middle = f", median {np.median(megapixels):.2g}" if len(megapixels) else ""
    finish(right, f"Megapixels{middle}", "megapixels", "images")
    return chart


def _draw_bubbles(axes: Axes, kinds: Any, counts: Any) -> None:
    top = max(256, int(kinds.max(initial=0)) * 1.12)
    axes.plot([0, top], [0, top], color="0.8", linewidth=1, zorder=0)
    axes.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    axes.annotate("square", (0, 0), (8, 10), textcoords="offset points", color="0.5", fontsize=8, rotation=45)
    if not len(kinds):
        return
    order = np.argsort(-counts, kind="stable")  # small bubbles on top of large ones
    most = int(counts.max())
    area = _bubble_area(counts[order], most)
    axes.scatter(kinds[order, 0], kinds[order, 1], s=area, color=PALETTE[0], alpha=0.35, linewidths=0)
    axes.scatter(kinds[:, 0], kinds[:, 1], s=4, color=PALETTE[0], linewidths=0)
    for count in sorted({1, max(1, most // 10), most}):
        axes.scatter(
            [],
            [],
            s=_bubble_area(np.array([count]), most),
            color=PALETTE[0],
            alpha=0.35,
            linewidths=0,
            label=f"{count}",
        )
    axes.legend(title="images", frameon=False, loc="upper left", bbox_to_anchor=(1, 1), labelspacing=1.2, borderpad=0.8)


def _bubble_area(counts: Any, most: int) -> Any:
    return np.maximum(_DOT, _BUBBLE * counts / most)


def _sizes_title(kinds: Any, counts: Any) -> str:
    if not len(kinds):
        return "Sizes of 0 images"
    first = int(counts.argmax())
    width, height = kinds[first]
    if len(kinds) == 1:
        return f"Sizes of {counts.sum()} images: all {width} x {height}"
    share = counts[first] / counts.sum()
    return f"Sizes of {counts.sum()} images: {len(kinds)} different, {share:.0%} are {width} x {height}"


def box_sizes(dataset: CocoDataset) -> Chart:
    """Width against height of all boxes in pixels, with COCO's bounds between small, medium and large."""
    columns = BoxColumns.of(dataset)
    sides = np.maximum(columns.boxes[:, 2:], _THINNEST)
    chart = Chart(WIDTH, 5.6)
    axes: Axes = chart.add_subplot()
    axes.set(xscale="log", yscale="log")
    if 0 < len(sides) <= _FEW_BOXES:
        axes.scatter(sides[:, 0], sides[:, 1], s=14, color=PALETTE[0], alpha=0.4, linewidths=0)
    elif len(sides):
        cells = axes.hexbin(
            sides[:, 0], sides[:, 1], xscale="log", yscale="log", gridsize=50, bins="log", cmap=COLOUR_MAP, mincnt=1
        )
        chart.colorbar(cells, label="boxes", format="%d")
    low, high = (sides.min(), sides.max()) if len(sides) else (1.0, 256.0)
    limits = np.array([min(low, SMALL / 2) / 1.3, max(high, MEDIUM * 2) * 1.3])  # both bounds are within
    for side, label in ((SMALL, "small | medium"), (MEDIUM, "medium | large")):
        _draw_bound(axes, side, label, limits)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):  # not the scale's base: hexbin sets its own
        axis.set_major_locator(FixedLocator([2.0**power for power in range(-1, 20)]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(_pixels)
    finish(axes, f"Sizes of {len(sides)} boxes: {_size_shares(columns)}", "width, pixels", "height, pixels")
    return chart


def aspect_ratios(dataset: CocoDataset) -> Chart:
    """Width over height of all boxes, as bars of small, medium and large ones."""
    columns = BoxColumns.of(dataset)
    sides = columns.boxes[:, 2:]
    sound = (sides > 0).all(axis=1)
    if not sound.any():
        return note("Aspect ratios", "There are no boxes.")
    ratios = np.log2(sides[sound, 0] / sides[sound, 1])
    reach = min(6, max(2, int(np.ceil(np.abs(ratios).max()))))
    groups = [np.clip(ratios[columns.size_class()[sound] == kind], -reach, reach) for kind in range(3)]
    chart = Chart(WIDTH, 3.6)
    axes: Axes = chart.add_subplot()
    edges = np.linspace(-reach, reach, 42).tolist()  # an odd number of bars: square boxes are in the middle of one
    axes.hist(groups, edges, stacked=True, label=["small", "medium", "large"], color=_SIZES, rwidth=0.9)
    axes.xaxis.set_major_locator(FixedLocator(range(-reach, reach + 1)))
    axes.xaxis.set_major_formatter(_ratio)
    chart.legend(frameon=False, loc="outside upper right", ncols=3)
    long = np.mean(np.abs(ratios) > np.log2(_STRETCH))
    title = f"Aspect ratios: median {2 ** np.median(ratios):.2f}, {long:.1%} of the boxes beyond {_STRETCH}:1"
    finish(axes, title, "width : height; tall boxes at the left, wide ones at the right", "boxes")
    return chart


def heat_map(parts: Split) -> Chart:
    """Where the centres of the boxes lie on the image, one map for each subset.

    Coordinates are fractions of the image's width and height; maps have the shape of the median image. 1 is the
    value of an even spread.
    """
    maps = {name: BoxColumns.of(each) for name, each in subsets(parts).items()}
    maps = {name: each for name, each in maps.items() if len(each.boxes)}
    if not maps:
        return note("Centres of boxes", "There are no boxes.")
    tall = _height_over_width(np.concatenate([each.sizes for each in maps.values()]))
    densities = {name: centre_density(each, tall) for name, each in maps.items()}
    top = max(1.0, *(float(each.max()) for each in densities.values()))
    panel = (WIDTH - 1.2) / max(2, len(maps)) - 0.35  # inches; a single one need not fill the page
    chart = Chart(WIDTH, 1.15 + panel * min(1.3, tall))
    row: Any = chart.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, density) in zip(row, densities.items(), strict=True):
        shown = axes.imshow(density, COLOUR_MAP, extent=(0, 1, 1, 0), aspect=tall, vmin=0, vmax=top)
        axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="x / width")
        axes.set_title(f"{name}: {len(maps[name].boxes)} boxes", loc="left", fontsize=10)
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


def _draw_bound(axes: Axes, side: float, label: str, limits: Floats) -> None:
    """Draw the line of boxes with the area of a square of this side, labelled at its lower right."""
    axes.plot(limits, side**2 / limits, color=PALETTE[5], linewidth=1.2, linestyle="--")
    end = min(limits[1], side**2 / limits[0]) / 1.1
    style: dict[str, Any] = {"rotation": -45, "rotation_mode": "anchor", "ha": "right", "va": "bottom", "fontsize": 9}
    style["bbox"] = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}
    axes.annotate(label, (end, side**2 / end), color=PALETTE[5], **style)


def _size_shares(columns: BoxColumns) -> str:
    small, medium, large = shares(columns.size_class(), 3)
    return f"{small:.0%} small, {medium:.0%} medium, {large:.0%} large" if len(columns.areas) else "none"


def _height_over_width(sizes: Floats) -> float:
    return float(np.clip(np.median(sizes[:, 1] / np.maximum(1, sizes[:, 0])), 0.4, 2.5))


def _ratio(value: float, _: float) -> str:
    return f"{2**value:g}:1" if value >= 0 else f"1:{2**-value:g}"


def _pixels(value: float, _: float) -> str:
    return f"{value:g}"
