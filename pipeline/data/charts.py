"""Figures of a data set, made to be read at a notebook's width.

Figures do without pyplot and its global state; a `Chart` as the last expression of a cell shows itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from pipeline.chart import FONT, PALETTE, Chart
from pipeline.data.coco import Annotation, CocoDataset, Image, read_coco
from pipeline.data.conversion import draw_order
from pipeline.data.split import Split
from pipeline.errors import DataError, UsageError

_WIDTH = 9.0  # inches; 900 pixels at 100 dpi, a notebook's column
_SMALL, _MEDIUM = 32.0, 96.0  # COCO's bounds of small and medium objects: the sides of squares of that area
_MOST_CLASSES = 40  # bars that stay readable under each other
_SHOWN_SIDE = 380  # pixels of the longer side of a picture in a grid
_FEW_BOXES = 3000  # drawn as dots; more become a density


def class_histogram(parts: Split) -> Chart:
    """Boxes per class and subset, as bars; crowd regions are not counted."""
    subsets = _named(parts)
    classes = parts.train.classes
    counts = np.array([_boxes_per_class(dataset) for dataset in subsets.values()])  # (subsets, classes)
    order = np.argsort(-counts.sum(axis=0), kind="stable")[:_MOST_CLASSES]
    chart = Chart(_WIDTH, 1.4 + 0.3 * max(4, len(order)))
    axes: Axes = chart.add_subplot()
    left = np.zeros(len(order))
    for (name, _), row, colour in zip(subsets.items(), counts, PALETTE, strict=False):
        axes.barh(
            np.arange(len(order)), row[order], left=left, color=colour, label=f"{name} ({row.sum()})", height=0.75
        )
        left += row[order]
    for y, total in enumerate(left):
        axes.annotate(f"{total:.0f}", (total, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), [_short(classes[i]) for i in order])
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.margins(x=0.08)
    more = f" (the {_MOST_CLASSES} most frequent of {len(classes)} classes)" if len(classes) > _MOST_CLASSES else ""
    _finish(axes, f"Boxes per class{more}", "boxes", "")
    chart.legend(frameon=False, loc="outside upper right", ncols=3)
    return chart


def box_sizes(dataset: CocoDataset) -> Chart:
    """Width against height of all boxes in pixels, with COCO's bounds between small, medium and large."""
    sides = np.array([each.bbox[2:] for each in dataset.annotations if not each.iscrowd]).reshape(-1, 2)
    chart = Chart(_WIDTH, 5.6)
    axes: Axes = chart.add_subplot()
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    if 0 < len(sides) <= _FEW_BOXES:
        axes.scatter(sides[:, 0], sides[:, 1], s=14, color=PALETTE[0], alpha=0.4, linewidths=0)
    elif len(sides):
        cells = axes.hexbin(
            sides[:, 0], sides[:, 1], xscale="log", yscale="log", gridsize=50, bins="log", cmap="cividis", mincnt=1
        )
        chart.colorbar(cells, label="boxes")
    low, high = (sides.min(), sides.max()) if len(sides) else (1.0, 256.0)
    limits = np.array([max(0.5, low) / 1.3, high * 1.3])
    for side, label in ((_SMALL, "small | medium"), (_MEDIUM, "medium | large")):
        axes.plot(limits, side**2 / limits, color=PALETTE[5], linewidth=1.2, linestyle="--")
        end = min(limits[1], side**2 / limits[0]) / 1.1  # the lower right, where boxes are few
        style: dict[str, Any] = {
            "rotation": -45,
            "rotation_mode": "anchor",
            "ha": "right",
            "va": "bottom",
            "fontsize": 9,
        }
        axes.annotate(label, (end, side**2 / end), color=PALETTE[5], **style)
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.xaxis.set_major_formatter(_pixels)
    axes.yaxis.set_major_formatter(_pixels)
    _finish(axes, f"Sizes of {len(sides)} boxes: {_size_shares(dataset)}", "width, pixels", "height, pixels")
    return chart


def boxes_per_image(parts: Split) -> Chart:
    """How many images of each subset hold how many boxes, as shares of the subset."""
    subsets = {name: dataset for name, dataset in _named(parts).items() if dataset.images}
    counts = {name: _boxes_per_image(dataset) for name, dataset in subsets.items()}
    most = max((int(each.max()) for each in counts.values()), default=0)
    step = max(1, math.ceil((most + 1) / 30))
    edges = np.arange(0, most + step + 1, step) - 0.5
    chart = Chart(_WIDTH, 3.6)
    axes: Axes = chart.add_subplot()
    labels = [f"{name} (mean {each.mean():.1f}, {(each == 0).sum()} empty)" for name, each in counts.items()]
    weights = [np.full(len(each), 100 / len(each)) for each in counts.values()]
    axes.hist(
        list(counts.values()), edges.tolist(), weights=weights, label=labels, color=PALETTE[: len(counts)], rwidth=0.85
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    _finish(axes, "Boxes per image", "boxes in an image", "% of the subset's images")
    return chart


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
    chart = Chart(_WIDTH, rows * (_WIDTH / columns * _aspect(chosen) + 0.25))
    groups = dataset.by_image()
    cells: npt.NDArray[Any] = chart.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.axis("off")
    for axes, image in zip(cells.flat, chosen, strict=False):
        axes.imshow(_annotated(folder / "images" / image.file_name, groups.get(image.id, []), dataset))
        axes.set_title(Path(image.file_name).name, fontsize=8, color="0.3")
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
        labels = [dataset.classes[index[each.category_id]] + " crowd" * each.iscrowd for each in annotations]
        pixels = _draw(pixels, detections, labels)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8)


def _draw(pixels: npt.NDArray[Any], detections: Any, labels: list[str]) -> npt.NDArray[Any]:
    palette = sv.ColorPalette.from_hex(list(PALETTE[:7]))
    drawn = sv.BoxAnnotator(color=palette, thickness=2).annotate(pixels, detections)
    annotator = sv.RichLabelAnnotator(
        palette, text_color=_text_colours(), font_path=FONT, font_size=12, text_padding=2, smart_position=True
    )
    labelled: npt.NDArray[Any] = annotator.annotate(drawn, detections, labels)
    return labelled


def _text_colours() -> Any:
    """Black or white, whichever stands out from each colour of the palette (luma of ITU-R BT.601)."""
    light = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.299, 1), (0.587, 3), (0.114, 5))) > 100 for c in PALETTE[:7]]
    return sv.ColorPalette.from_hex(["#000000" if each else "#FFFFFF" for each in light])


def _aspect(images: Sequence[Image]) -> float:
    """Height over width that most of the pictures fit in, within reason."""
    return float(np.clip(np.quantile([each.height / max(1, each.width) for each in images] or [1.0], 0.75), 0.6, 1.0))


def _named(parts: Split) -> Mapping[str, CocoDataset]:
    return {"train": parts.train, "eval": parts.eval, "test": parts.test}


def _boxes_per_class(dataset: CocoDataset) -> npt.NDArray[np.int64]:
    index = {category.id: i for i, category in enumerate(dataset.categories)}
    columns = [index[each.category_id] for each in dataset.annotations if not each.iscrowd]
    return np.bincount(np.array(columns, np.int64), minlength=len(index))


def _boxes_per_image(dataset: CocoDataset) -> npt.NDArray[np.int64]:
    groups = dataset.by_image()
    return np.array([sum(not each.iscrowd for each in groups.get(image.id, ())) for image in dataset.images], np.int64)


def _size_shares(dataset: CocoDataset) -> str:
    areas = np.array([each.area for each in dataset.annotations if not each.iscrowd])
    if not len(areas):
        return "none"
    small, large = (areas < _SMALL**2).mean(), (areas >= _MEDIUM**2).mean()
    return f"{small:.0%} small, {1 - small - large:.0%} medium, {large:.0%} large"


def _pixels(value: float, _: float) -> str:
    return f"{value:g}"


def _short(name: str) -> str:
    return name if len(name) <= 24 else name[:23] + "…"


def _finish(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
