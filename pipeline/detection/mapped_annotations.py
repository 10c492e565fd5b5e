"""Annotations of a data set as arrays in files, which all processes of a machine map into memory and so share.

mmdet parses the JSON in every process, and holds a pickled table of dictionaries there: 9 GB for a million images, and
as much again for each further GPU. Here one process writes some 25 bytes a box and 40 an image, and the pages of the
files are in memory once, however many processes read them. The samples are those that mmdet builds, without the masks,
which no detector here learns from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.dataset import force_full_init

from pipeline.data.coco import CocoDataset
from pipeline.detection import mmcv_ops

mmcv_ops.install()  # importing mmdet needs it

from mmdet.datasets import BaseDetDataset  # noqa: E402
from mmdet.registry import DATASETS  # noqa: E402


@dataclass(frozen=True)
class AnnotationTable:
    """`N` images and `M` boxes of a data set, mapped from the files that `write_table` wrote.

    The boxes of an image are those that mmdet would train on: not without area, not below a pixel, not outside.
    """

    folder: Path
    ids: npt.NDArray[np.int64]  # `(N,)`, of the images
    sizes: npt.NDArray[np.int32]  # `(N, 2)`, declared height and width in pixels
    names: npt.NDArray[np.uint8]  # UTF-8 of all file names, one after the other
    name_ends: npt.NDArray[np.int64]  # `(N,)`, where each ends
    box_ends: npt.NDArray[np.int64]  # `(N,)`, where the boxes of each image end
    boxes: npt.NDArray[np.float32]  # `(M, 4)`, x1, y1, x2, y2 in pixels
    labels: npt.NDArray[np.int32]  # `(M,)`, index of the class, in the order of the category ids
    crowds: npt.NDArray[np.bool_]  # `(M,)`, which boxes are regions that are not judged

    @classmethod
    def open(cls, folder: Path) -> AnnotationTable:
        """Map the files of a folder; nothing is read before it is used."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        return cls(folder, **arrays)

    def __len__(self) -> int:
        return len(self.ids)

    def __reduce__(self) -> tuple[Callable[[Path], AnnotationTable], tuple[Path]]:
        """Send another process the folder: numpy would send it the content."""
        return AnnotationTable.open, (self.folder,)

    def name(self, row: int) -> str:
        """The file name of an image, relative to the images folder."""
        start = self.name_ends[row - 1] if row else 0
        return os.fsdecode(self.names[start : self.name_ends[row]].tobytes())

    def instances(self, row: int) -> list[dict[str, Any]]:
        """The boxes of an image as mmdet's transforms expect them."""
        part = slice(self.box_ends[row - 1] if row else 0, self.box_ends[row])
        rows = zip(self.boxes[part].tolist(), self.labels[part].tolist(), self.crowds[part].tolist(), strict=True)
        return [{"ignore_flag": int(crowd), "bbox": box, "bbox_label": label} for box, label, crowd in rows]


ARRAYS = ("ids", "sizes", "names", "name_ends", "box_ends", "boxes", "labels", "crowds")


def write_table(dataset: CocoDataset, folder: Path) -> Path:
    """Write a data set's annotations for `AnnotationTable.open` into a new folder, and return it."""
    folder.mkdir(parents=True)
    names = [os.fsencode(image.file_name) for image in dataset.images]
    sizes = np.array([(image.height, image.width) for image in dataset.images], np.int32).reshape(-1, 2)
    row_of = {image.id: row for row, image in enumerate(dataset.images)}
    label_of = {each: label for label, each in enumerate(sorted(category.id for category in dataset.categories))}
    known = [each for each in dataset.annotations if each.image_id in row_of and each.category_id in label_of]
    rows = np.fromiter((row_of[each.image_id] for each in known), np.int64, len(known))
    labels = np.fromiter((label_of[each.category_id] for each in known), np.int32, len(known))
    crowds = np.fromiter((bool(each.iscrowd) for each in known), np.bool_, len(known))
    areas = np.fromiter((each.area for each in known), np.float64, len(known))
    boxes = np.fromiter(chain.from_iterable(each.bbox for each in known), np.float64, 4 * len(known)).reshape(-1, 4)
    sides = boxes[:, 2:].copy()
    boxes[:, 2:] += boxes[:, :2]
    # what `CocoDataset.parse_data_info` of mmdet 3.3 keeps
    inside = np.minimum(boxes[:, 2:], sizes[rows, ::-1]) - np.maximum(boxes[:, :2], 0)
    order = np.flatnonzero((areas > 0) & (sides >= 1).all(1) & (inside > 0).all(1))
    order = order[np.argsort(rows[order], kind="stable")]  # of an image, in the order of the file
    arrays: dict[str, npt.NDArray[Any]] = {
        "ids": np.fromiter(row_of, np.int64, len(row_of)),
        "sizes": sizes,
        "names": np.frombuffer(b"".join(names), np.uint8),
        "name_ends": np.cumsum([len(name) for name in names], dtype=np.int64),
        "box_ends": np.cumsum(np.bincount(rows[order], minlength=len(names)), dtype=np.int64),
        "boxes": boxes[order].astype(np.float32),  # mmdet's own precision, rounded once too
        "labels": labels[order],
        "crowds": crowds[order],
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return folder


@DATASETS.register_module()
class MappedDataset(BaseDetDataset):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's `CocoDataset` for a table: `ann_file` is the folder that `write_table` wrote."""

    def full_init(self) -> None:
        """Map the table; mmdet would fill a list of its own."""
        self._table = AnnotationTable.open(Path(self.ann_file))
        self._fully_initialized = True

    @force_full_init  # type: ignore[untyped-decorator]
    def __len__(self) -> int:
        """Number of images."""
        return len(self._table)

    @force_full_init  # type: ignore[untyped-decorator]
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Describe the image of an index, in mmdet's words."""
        height, width = self._table.sizes[idx].tolist()
        return {
            "img_path": os.path.join(self.data_prefix["img"], self._table.name(idx)),  # noqa: PTH118  mmdet's path
            "img_id": int(self._table.ids[idx]),
            "seg_map_path": None,
            "height": height,
            "width": width,
            "instances": self._table.instances(idx),
            "sample_idx": idx,
        }
