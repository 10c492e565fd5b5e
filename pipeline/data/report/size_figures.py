"""How large the images are."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.data.coco import CocoDataset
from pipeline.data.figures import PALETTE, Chart
from pipeline.data.report.figure_style import WIDTH, finish

_DOT, _BUBBLE = 12, 500  # areas of the smallest and the largest mark, in square points


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
    area = _area(counts[order], most)
    axes.scatter(kinds[order, 0], kinds[order, 1], s=area, color=PALETTE[0], alpha=0.35, linewidths=0)
    axes.scatter(kinds[:, 0], kinds[:, 1], s=4, color=PALETTE[0], linewidths=0)
    for count in sorted({1, max(1, most // 10), most}):
        axes.scatter(
            [], [], s=_area(np.array([count]), most), color=PALETTE[0], alpha=0.35, linewidths=0, label=f"{count}"
        )
    axes.legend(title="images", frameon=False, loc="upper left", bbox_to_anchor=(1, 1), labelspacing=1.2, borderpad=0.8)


def _area(counts: Any, most: int) -> Any:
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
