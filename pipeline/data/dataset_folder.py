"""A dataset as a folder: `annotations.json`, and `images/` with exactly the files it names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
from tqdm import tqdm

from pipeline.data.coco import CocoDataset, Image, write_coco
from pipeline.data.figures import read_pixels
from pipeline.errors import MissingError, UsageError
from pipeline.serving.decoding import read_header


def write_subset(dataset: CocoDataset, images_folder: Path, folder: Path, *, upright: Collection[str] = ()) -> None:
    """Write a dataset's folder.

    Image files are hard-linked where the file system can, else copied; only those in `upright` are re-encoded, turned
    as EXIF says.

    Raises:
        UsageError: The folder holds something already.
        MissingError: An image is not there.
        DataError: An image to be turned cannot be decoded.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError("the folder for the dataset is not empty", where=folder, remedy="name a new folder")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    turned = frozenset(upright)

    def place(image: Image) -> None:
        source, target = images_folder / image.file_name, folder / "images" / image.file_name
        if not source.is_file():
            raise MissingError("an image of the dataset is missing", where=source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if image.file_name in turned:
            suffix = f".{read_header(source.read_bytes()).format.lower()}"
            # the loss of JPEG is invisible; WebP is lossless
            encoded = cv2.imencode(suffix, read_pixels(source), [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
            target.write_bytes(encoded.tobytes())
            return
        try:
            os.link(source, target, follow_symlinks=True)
        except OSError:  # another device, or a file system without links
            shutil.copyfile(source, target)

    with ThreadPoolExecutor() as pool:
        placed = pool.map(place, dataset.images)
        list(tqdm(placed, f"writing {folder.name}"[:40], len(dataset.images), mininterval=0.5, ascii=True))
    write_coco(dataset, folder / "annotations.json")
