"""Some images of a written data set with all their boxes and labels, as a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv

from pipeline.data.coco import Annotation, CocoDataset, Image, read_coco
from pipeline.data.conversion import draw_order
from pipeline.data.figures import FONT, PALETTE, Chart
from pipeline.data.report.figure_style import WIDTH, labels, written
from pipeline.errors import DataError, UsageError

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


def _annotated(path: Path, annotations: Sequence[Annotation], dataset: CocoDataset) -> npt.NDArray[np.uint8]:
    """The picture `(height, width, 3)` RGB, at the size it is shown in, so that labels are equally large on all."""
    data = np.fromfile(path, np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if pixels is None:
        raise DataError("An image of the data set cannot be decoded", where=path)
    zoom = _SHOWN_SIDE / max(pixels.shape[:2])
    pixels = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
    if annotations:
        index = {category.id: i for i, category in enumerate(dataset.categories)}
        boxes = np.array([each.bbox for each in annotations], np.float32) * zoom
        detections = sv.Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            class_id=np.array([index[each.category_id] for each in annotations]),
        )
        names = labels(dataset.categories)
        texts = [names[index[each.category_id]] + " crowd" * each.iscrowd for each in annotations]
        pixels = _draw(pixels, detections, texts)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _draw(pixels: npt.NDArray[Any], detections: Any, texts: list[str]) -> npt.NDArray[Any]:
    palette = sv.ColorPalette.from_hex(list(PALETTE[:7]))
    drawn = sv.BoxAnnotator(color=palette, thickness=2).annotate(pixels, detections)
    annotator = sv.RichLabelAnnotator(
        palette, text_color=_text_colours(), font_path=FONT, font_size=12, text_padding=2, smart_position=True
    )
    labelled: npt.NDArray[Any] = annotator.annotate(drawn, detections, texts)
    return labelled


def _text_colours() -> Any:
    """Black or white, whichever stands out from each colour of the palette (luma of ITU-R BT.601)."""
    light = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5))) > 100 for c in PALETTE[:7]]
    return sv.ColorPalette.from_hex(["#000000" if each else "#FFFFFF" for each in light])


def _aspect(images: Sequence[Image]) -> float:
    """Height over width that most of the pictures fit in, within reason."""
    return float(np.clip(np.quantile([each.height / max(1, each.width) for each in images] or [1.0], 0.75), 0.6, 1.0))
