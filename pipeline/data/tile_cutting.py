"""A dataset of large images as one of tiles, to train on what the service shows to the network.

Each view of an image is an image of the new dataset: its tiles, and the whole image, which the service looks at for
objects that are larger than what tiles share. An image no larger than a tile stays whole.

- In a tile, the boxes are clipped. Where less than `LEAST_VISIBLE` of an object's area remains, the rest is a region
  that is not judged (`iscrowd`): neither an object nor background, in training and in validation.
  DOTA's ImgSplit, of the devkit of that dataset of aerial images, marks such objects as difficult, by the same 0.7.
- In the whole image, an object that is whole in some tile is such a region too. So every object is one of the new
  dataset, at least once.
- Of tiles without an object there are at most as many as of the others, evenly chosen, for most of a large image may
  be background.

The tiles are PNG files, whose pixels are those of the decoded image: another JPEG encoding would lose some of the very
details. The same versions of OpenCV and zlib give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pipeline.data.coco import Annotation, CocoDataset, Image, read_coco, write_coco
from pipeline.errors import DataError, MissingError
from pipeline.serving.decoding import decode
from pipeline.serving.tiling import Tile, Tiling

LEAST_VISIBLE = 0.7
"""The share of an object's area that makes a clipped one an object."""


@dataclass(frozen=True)
class CutDataset:
    """A dataset that was cut into tiles."""

    folder: Path  # with `annotations.json` and `images/`
    dataset: CocoDataset
    tiles: int  # its images that are tiles; the others are whole


@dataclass(frozen=True)
class _View:
    """What is to be an image of the new dataset; its boxes are in pixels of the view."""

    source: Image
    tile: Tile | None  # None: the whole image
    annotations: tuple[Annotation, ...]

    @property
    def name(self) -> str:
        """The file; an image may be called like a tile, so these have a folder of their own."""
        if self.tile is None:
            return f"whole/{self.source.file_name}"
        return f"tiles/{self.source.file_name}.{self.tile.left}_{self.tile.top}.png"

    @property
    def has_object(self) -> bool:
        return any(not each.iscrowd for each in self.annotations)


def cut_tiles(source: Path, folder: Path, tiling: Tiling) -> CutDataset:
    """Cut a dataset's folder into tiles, and write it to a new folder; the same data gives the same files.

    Whole images are links to those of the source.

    Raises:
        MissingError: The annotations or an image is missing.
        DataError: An image cannot be decoded, or has not the size that the annotations say.
    """
    dataset = read_coco(source / "annotations.json")
    groups = dataset.by_image()
    planned = [_views(image, groups.get(image.id, []), tiling) for image in dataset.images]
    kept = _without_most_empty(planned)
    with ThreadPoolExecutor() as pool:
        written = pool.map(lambda views: _write(views, source / "images", folder / "images"), kept)
        list(tqdm(written, f"cutting {source.name}"[:40], len(kept), mininterval=0.5, ascii=True))
    views = list(chain.from_iterable(kept))
    result = replace(
        dataset, images=tuple(map(_record, range(1, len(views) + 1), views)), annotations=_renumbered(views)
    )
    write_coco(result, folder / "annotations.json")
    return CutDataset(folder, result, sum(view.tile is not None for view in views))


def _views(image: Image, annotations: Sequence[Annotation], tiling: Tiling) -> list[_View]:
    """All views of an image, the whole first."""
    tiles = tiling.tiles(image.width, image.height)
    if not tiles:
        return [_View(image, None, tuple(annotations))]
    boxes = np.array([each.bbox for each in annotations], np.float64).reshape(-1, 4)
    corners = np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]])
    corners = _clipped(corners, Tile(0, 0, image.width, image.height))
    small = tiling.is_within_a_tile(corners, image.width, image.height)
    ignored = tuple(
        replace(each, iscrowd=1) if is_small else each for each, is_small in zip(annotations, small, strict=True)
    )
    return [_View(image, None, ignored), *(_View(image, tile, _within(tile, annotations, corners)) for tile in tiles)]


def _within(tile: Tile, annotations: Sequence[Annotation], corners: NDArray[np.float64]) -> tuple[Annotation, ...]:
    """The annotations of an image, clipped to a tile and in its pixels; `corners` `(N, 4)` are in the image's."""
    clipped = _clipped(corners, tile)
    sides, whole = clipped[:, 2:] - clipped[:, :2], corners[:, 2:] - corners[:, :2]
    shares = np.divide(sides.prod(1), whole.prod(1), out=np.zeros(len(sides)), where=(sides > 0).all(1))
    found = []
    for row in np.flatnonzero(shares).tolist():
        each, share = annotations[row], float(shares[row])
        x, y = (clipped[row, :2] - (tile.left, tile.top)).tolist()
        width, height = sides[row].tolist()
        crowd = 1 if each.iscrowd or share < LEAST_VISIBLE else 0
        # a mask is not cut: the detectors learn from boxes
        found.append(
            replace(each, bbox=(x, y, width, height), area=each.area * share, iscrowd=crowd, segmentation=None)
        )
    return tuple(found)


def _clipped(corners: NDArray[np.float64], part: Tile) -> NDArray[np.float64]:
    limits = np.array([part.left, part.top]), np.array([part.right, part.bottom])
    return np.hstack([np.clip(corners[:, :2], *limits), np.clip(corners[:, 2:], *limits)])


def _without_most_empty(planned: Sequence[list[_View]]) -> list[list[_View]]:
    """Leave out tiles without an object that are more than those with one."""
    tiles = [view for views in planned for view in views if view.tile is not None]
    empty = [view for view in tiles if not view.has_object]
    count = min(len(empty), len(tiles) - len(empty))
    kept = {id(empty[number * len(empty) // count]) for number in range(count)}
    return [[view for view in views if view.tile is None or view.has_object or id(view) in kept] for views in planned]


def _write(views: Sequence[_View], images: Path, folder: Path) -> None:
    """Write the files of an image's views."""
    image = views[0].source
    path = images / image.file_name
    pixels = _pixels(path, image) if len(views) > 1 else None
    for view in views:
        target = folder / view.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if view.tile is None or pixels is None:
            target.symlink_to(path.resolve())
        else:
            target.write_bytes(cv2.imencode(".png", view.tile.of(pixels))[1].tobytes())


def _pixels(path: Path, image: Image) -> NDArray[np.uint8]:
    """The pixels as training and the service read them; tiles of another size than annotated would be elsewhere."""
    try:
        pixels = decode(path.read_bytes())
    except FileNotFoundError as error:
        raise MissingError("an image of the dataset is missing", where=path) from error
    except DataError as error:
        raise DataError(f"an image of the dataset cannot be decoded: {error.problem}", where=path) from error
    if pixels.shape[:2] != (image.height, image.width):
        raise DataError(
            f"the image is {pixels.shape[1]} x {pixels.shape[0]}",
            where=path,
            expected=f"{image.width} x {image.height}, as the annotations say",
            remedy="prepare the data again",
        )
    return pixels


def _record(number: int, view: _View) -> Image:
    tile = view.tile or Tile(0, 0, view.source.width, view.source.height)
    return Image(number, view.name, tile.right - tile.left, tile.bottom - tile.top)


def _renumbered(views: Sequence[_View]) -> tuple[Annotation, ...]:
    all_of_them = ((image_id, each) for image_id, view in enumerate(views, 1) for each in view.annotations)
    return tuple(replace(each, id=number, image_id=image) for number, (image, each) in enumerate(all_of_them, 1))
