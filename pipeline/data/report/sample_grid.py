"""Some images of a written data set with all their boxes and labels, as a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.data.coco import Annotation, CocoDataset, Image, read_coco
from pipeline.data.conversion import draw_order
from pipeline.data.figures import PALETTE, Chart
from pipeline.data.image_drawing import Pixels, draw_labelled, read_pixels, scale
from pipeline.data.report.figure_style import WIDTH, labels, written
from pipeline.errors import UsageError

_SHOWN_SIDE = 380  # pixels of the longer side of a picture in a grid


def sample_grid(folder: Path, *, count: int = 9, seed: int = 0) -> Chart:
    """Some images of a data set's folder with their boxes and labels.

    Args:
        folder: `annotations.json` and `images/`.
        count: How many images, at most; at least 1.
        seed: Which ones.

    Raises:
        UsageError: The count is below 1.
        DataError: An image cannot be decoded.
    """
    if count < 1:
        raise UsageError(f"A grid of {count} images is none", expected="1 or more")
    dataset = read_coco(folder / "annotations.json")
    chosen = sorted(dataset.images, key=lambda image: draw_order(image.file_name, seed))[:count]
    columns = min(3, max(1, len(chosen)))
    rows = max(1, math.ceil(len(chosen) / columns))
    chart = Chart(WIDTH, rows * (WIDTH / columns * _aspect(chosen) + 0.25))
    groups = dataset.by_image()
    cells: npt.NDArray[Any] = chart.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for axes, image in zip(cells.flat, chosen, strict=False):
        axes.imshow(_annotated(folder / "images" / image.file_name, groups.get(image.id, []), dataset))
        axes.set_title(written(Path(image.file_name).name, 40), fontsize=8, color="0.3", parse_math=False)
    return chart


def _annotated(path: Path, annotations: Sequence[Annotation], dataset: CocoDataset) -> Pixels:
    """The image in RGB, at the size it is shown in, so that labels are equally large on all."""
    pixels = read_pixels(path)
    zoom = _SHOWN_SIDE / max(pixels.shape[:2])
    pixels = scale(pixels, zoom)
    if annotations:
        index = {category.id: i for i, category in enumerate(dataset.categories)}
        rows = [index[each.category_id] for each in annotations]
        names = labels(dataset.categories)
        texts = [names[row] + " crowd" * each.iscrowd for row, each in zip(rows, annotations, strict=True)]
        boxes = np.array([each.bbox for each in annotations]) * zoom
        pixels = draw_labelled(pixels, boxes, [PALETTE[row % 7] for row in rows], texts)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _aspect(images: Sequence[Image]) -> float:
    """Height over width that most of the pictures fit in, within reason."""
    return float(np.clip(np.quantile([each.height / max(1, each.width) for each in images] or [1.0], 0.75), 0.6, 1.0))
