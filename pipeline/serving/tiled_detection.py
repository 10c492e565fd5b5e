"""Detection in an image of any size: as a whole, and where it is larger than a tile of the model, in tiles as well.

An object may be found in several views, which are the whole image and the tiles. What is found in one view has been
suppressed there, by the graph. Between views:

- A box that ends at a border of its tile, inside the image, is cut off. It counts after all whole ones, whatever their
  scores, and is dropped where another view has a box that covers most of it. Intersection over union would not find
  that: a tile may show a tenth of the object.
- Of whole boxes of one object, the highest score is kept. These are told by intersection over union, so that a small
  object in front of a large one of its class stays.
- In the whole image, only objects that may be cut in every tile are looked for. A smaller one is whole in a tile, at a
  larger scale.

Both limits are the 0.5 of SAHI (Akyon et al., Slicing Aided Hyper Inference, 2022), which also adds the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.model_metadata import ModelMetadata
from pipeline.serving.predictor import MAX_DETECTIONS, Detections, Predictor, best_first
from pipeline.serving.preprocessing import Letterboxed, letterbox
from pipeline.serving.tiling import Tile

SAME_OBJECT = 0.5
BORDER = 4.0
"""Within so many pixels of the network's input from a border, a box ends there: half of the finest cell's side."""

Detect = Callable[[Letterboxed], Detections]
Spread = Callable[[Callable[[Tile], Detections], Iterable[Tile]], Iterable[Detections]]


def detect_in_image(
    image: NDArray[np.uint8],
    metadata: ModelMetadata,
    detect: Detect,
    *,
    whole: Letterboxed | None = None,
    spread: Spread = map,
) -> Detections:
    """Detect objects in an image as the model's service does.

    Args:
        image: `(H, W, 3)`, BGR.
        metadata: Of the model.
        detect: Runs the network on one input.
        whole: The whole image as the network's input, where that is there already.
        spread: As `map`; that of an executor has several threads run the tiles.

    Returns:
        The detections, in pixels of the image.
    """
    height, width = image.shape[:2]
    size, tiles = metadata.image_size, metadata.tiling.tiles(width, height)
    found = detect(whole or letterbox(image, size))
    if not tiles:
        return found
    found = found.rows(~metadata.tiling.is_within_a_tile(found.boxes, width, height))
    parts = spread(lambda tile: detect(letterbox(tile.of(image), size)), tiles)
    return merge([(Tile(0, 0, width, height), found), *zip(tiles, parts, strict=True)], size)


def predict_image(
    predictor: Predictor, image: NDArray[np.uint8], metadata: ModelMetadata, *, alone: bool = True
) -> Detections:
    """Detect objects in an image `(H, W, 3)`, BGR, on this thread; for `alone` see `Predictor.detect`."""
    return detect_in_image(image, metadata, lambda view: predictor.detect([view], alone=alone)[0])


def merge(views: Iterable[tuple[Tile, Detections]], size: tuple[int, int]) -> Detections:
    """The detections of all views as those of the image, each object once; the first view is the whole image.

    `size` is (height, width) of the network's input.
    """
    seen = list(views)
    image = seen[0][0]
    boxes = np.concatenate([_in_image(tile, found) for tile, found in seen])
    scores = np.concatenate([found.scores for _, found in seen])
    labels = np.concatenate([found.labels for _, found in seen])
    view = np.repeat(np.arange(len(seen)), [len(found.scores) for _, found in seen])
    is_cut = np.concatenate([_ends_inside(found.boxes, tile, image, size) for tile, found in seen])
    order = best_first(boxes, scores, labels)
    boxes, scores, labels, view, is_cut = boxes[order], scores[order], labels[order], view[order], is_cut[order]
    chosen = [np.zeros(0, np.intp)]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen.append(_suppress(rows[~is_cut[rows]], rows[is_cut[rows]], boxes, view))
    kept = np.sort(np.concatenate(chosen))[:MAX_DETECTIONS]
    return Detections(boxes[kept], scores[kept], labels[kept], image.right, image.bottom)


def _in_image(tile: Tile, found: Detections) -> NDArray[np.float32]:
    """The boxes in pixels of the image."""
    return found.boxes + np.array([tile.left, tile.top] * 2, np.float32)


def _ends_inside(boxes: NDArray[np.float32], tile: Tile, image: Tile, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which boxes, in pixels of a tile, end at a border of it that is no border of the image."""
    width, height = tile.right - tile.left, tile.bottom - tile.top
    border = BORDER / min(size[0] / height, size[1] / width)
    near = np.abs(boxes - np.array([0, 0, width, height])) <= border
    inner = np.array(tile.corners) != np.array(image.corners)
    ends: NDArray[np.bool_] = np.any(near & inner, axis=1)
    return ends


def _suppress(
    whole: NDArray[np.intp], cut: NDArray[np.intp], boxes: NDArray[np.float32], view: NDArray[np.intp]
) -> NDArray[np.intp]:
    """The rows to keep of one class: of whole boxes and of cut ones, each by descending score."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept_whole: list[np.intp] = []
    kept_cut: list[np.intp] = []
    while len(whole) and len(kept_whole) < MAX_DETECTIONS:
        best, whole = whole[0], whole[1:]
        kept_whole.append(best)
        common = _common(boxes[best], boxes[whole])
        union = areas[best] + areas[whole] - common
        whole = whole[(view[whole] == view[best]) | (common <= SAME_OBJECT * union)]
        covered = _common(boxes[best], boxes[cut])
        cut = cut[(view[cut] == view[best]) | (covered <= SAME_OBJECT * areas[cut])]
    while len(cut) and len(kept_cut) < MAX_DETECTIONS:
        best, cut = cut[0], cut[1:]
        kept_cut.append(best)
        smaller = np.minimum(areas[best], areas[cut])
        cut = cut[(view[cut] == view[best]) | (_common(boxes[best], boxes[cut]) <= SAME_OBJECT * smaller)]
    return np.array([*kept_whole, *kept_cut], np.intp)


def _common(box: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The areas that a box has in common with others `(N, 4)`."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    areas: NDArray[np.float32] = np.maximum(sides, 0).prod(axis=1)
    return areas
