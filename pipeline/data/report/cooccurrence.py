"""Which classes appear together."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from pipeline.data.coco import CocoDataset
from pipeline.data.figures import Chart
from pipeline.data.report.box_columns import Columns, Floats, Integers
from pipeline.data.report.figure_style import COLOUR_MAP, WIDTH, labels, note

_MOST_CLASSES = 30
_NUMBERED = 12  # up to so many classes the cells hold their numbers


def co_occurrence(dataset: CocoDataset) -> Chart:
    """Of the images with one class (row), the share that also show another (column); the most frequent classes."""
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
    """How many images show a class, and two classes.

    Returns:
        Places in `dataset.categories` of the K classes on most images, with at least one; on how many images each is,
        `(K,)`; and on how many both are, `(K, K)`.
    """
    shown = Columns.of(dataset).shown(len(dataset.categories))
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
