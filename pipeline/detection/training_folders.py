"""The train and eval sets, as the folders that data_prep writes: `annotations.json` and `images/`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, MissingError

PARITY_IMAGES = 8


def check_sets(train_folder: Path, eval_folder: Path) -> tuple[str, ...]:
    """See that the two sets can be trained on together.

    Returns:
        Their class names by ascending category id.

    Raises:
        MissingError: There is no data set.
        DataError: Their classes differ, or one has no images.
    """
    classes = class_names(train_folder)
    if class_names(eval_folder) != classes:
        raise DataError(
            "the train and eval sets have different classes", where=eval_folder, expected=", ".join(classes)
        )
    for name, part in (("train", train_folder), ("eval", eval_folder)):
        if not count_images(part):
            raise DataError(
                f"the {name} set has no images",
                where=part,
                expected="images to train on, and images to choose the best epoch by",
                remedy=f"give data_prep.{name}_share a value above 0",
            )
    if all(each.get("iscrowd") for each in _annotations(eval_folder)["annotations"]):
        raise DataError(
            "the eval set has no objects",
            where=eval_folder,
            expected="objects to choose the best epoch by",
            remedy="give data_prep.eval_share a larger value, or data_prep.seed another",
        )
    return classes


def _annotations(folder: Path) -> dict[str, Any]:
    path = folder / "annotations.json"
    if not path.is_file():
        raise MissingError("the data set has no annotations.json", where=path, expected="the output of data_prep")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def class_names(folder: Path) -> tuple[str, ...]:
    """Names by ascending category id, the order pycocotools gives mmdet's labels."""
    categories = sorted(_annotations(folder)["categories"], key=lambda category: int(category["id"]))
    return tuple(str(category["name"]) for category in categories)


def count_images(folder: Path) -> int:
    """Images of a data set."""
    return len(_annotations(folder)["images"])


def copy_images(eval_folder: Path, folder: Path) -> None:
    """Copy the fullest eval images: all for the parity check of the export, the first as the test image."""
    content = _annotations(eval_folder)
    boxes: dict[int, list[int]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            boxes[annotation["image_id"]].append(annotation["category_id"])
    order = sorted(content["images"], key=lambda i: (-len(set(boxes[i["id"]])), -len(boxes[i["id"]]), i["file_name"]))
    (folder / "parity_images").mkdir()
    for number, image in enumerate(order[:PARITY_IMAGES]):
        source = eval_folder / "images" / image["file_name"]
        if number == 0:
            shutil.copyfile(source, folder / f"test_image{source.suffix.lower()}")
        shutil.copyfile(source, folder / "parity_images" / f"{number}{source.suffix.lower()}")
