"""A dataset as a folder: `annotations.json`, and `images/` with exactly the files it names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from pipeline.data.coco import CocoDataset, Image, write_coco
from pipeline.errors import DataError, MissingError, UsageError
from pipeline.serving.decoding import read_header

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp"}
_JPEG_QUALITY = 95  # the loss is invisible


@dataclass(frozen=True)
class Subset:
    """Counts of a written dataset; `rewritten` counts images that were turned upright."""

    folder: Path
    images: int
    annotations: int
    classes: tuple[str, ...]
    rewritten: int


def write_subset(dataset: CocoDataset, images_folder: Path, folder: Path, *, upright: Collection[str] = ()) -> Subset:
    """Write a dataset's folder.

    Image files are hard-linked where the file system can, else copied; only those to be turned are re-encoded.

    Args:
        dataset: The dataset.
        images_folder: The folder of its images.
        folder: The folder to write; must not exist, or be empty.
        upright: File names to turn upright as EXIF says, as found by `validate`.

    Raises:
        UsageError: The folder holds something already.
        MissingError: An image is not there.
        DataError: An image to be turned cannot be decoded.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("the folder for the dataset is not empty", where=folder, remedy="name a new folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    turned = frozenset(upright)

    def place(image: Image) -> bool:
        return _place(images_folder / image.file_name, folder / "images" / image.file_name, image.file_name in turned)

    with ThreadPoolExecutor() as pool:
        placed = pool.map(place, dataset.images)
        bar = tqdm(placed, desc=f"writing {folder.name}"[:40], total=len(dataset.images), mininterval=0.5, ascii=True)
        rewritten = sum(bar)
    write_coco(dataset, folder / "annotations.json")
    return Subset(folder, len(dataset.images), len(dataset.annotations), dataset.classes, rewritten)


def _place(source: Path, target: Path, turn: bool) -> bool:
    if not source.is_file():
        raise MissingError("an image of the dataset is missing", where=source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if turn:
        _write_upright(source, target)
        return True
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:  # another device, or a file system without links
        shutil.copyfile(source, target)
    return False


def _write_upright(source: Path, target: Path) -> None:
    """Re-encode an image upright, in the format of its bytes, without an EXIF orientation."""
    data = source.read_bytes()
    suffix = _SUFFIXES[read_header(data).format]
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # turns as EXIF says
    if pixels is None:
        raise DataError("an image to be turned upright cannot be decoded", where=source)
    encoded, upright = cv2.imencode(suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])  # WebP is lossless
    if not encoded:
        raise DataError("an image turned upright cannot be written", where=target)
    target.write_bytes(upright.tobytes())
