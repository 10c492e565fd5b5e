"""The train and eval sets, folders with `annotations.json` and `images/`: checks, warnings, and images for parity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pipeline.data.pretrained import COCO, coco_weights
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.errors import DataError, MissingError

PARITY_IMAGES = 8

# Measured from scratch with YOLOX-nano, see docs/finetuning.md. On photographs 640 samples (80 steps of 8) give a mAP
# of 0. On the embedded sample, which is easy, 157 images give a mAP of 0.2 after 1,570 samples (10 epochs), an mAP50 of
# 0.73 after 3,140 (20 epochs), and above 0.9 after 5,024 (32 epochs).
FEWEST_SAMPLES = 4000  # images times epochs
FEWEST_IMAGES = 100  # whatever the epochs: below the least that sufficed in the measurements


def check_sets(train_folder: Path, eval_folder: Path) -> tuple[str, ...]:
    """Check that the two sets can be used together.

    Returns:
        The class names by ascending category id.

    Raises:
        MissingError: A data set is missing.
        DataError: The classes differ, a set has no images, or the eval set has no objects.
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
                expected="at least one image: training learns from the train set, the eval set decides the best epoch",
                remedy=f"split the data with a {name}_share above 0",
            )
    if all(each.get("iscrowd") for each in _annotations(eval_folder)["annotations"]):
        raise DataError(
            "the eval set has no objects",
            where=eval_folder,
            expected="objects, which decide the best epoch",
            remedy="split the data with a larger eval_share, or with another seed",
        )
    return classes


def scratch_warnings(options: TrainingOptions, images: int) -> tuple[str, ...]:
    """Warn of a training from random weights that is too short to find anything.

    Args:
        options: The user's options.
        images: Number of images of the train set.

    Returns:
        Sentences: the problem, and the published weights to start from; none where training is long enough.
    """
    if images >= FEWEST_IMAGES and images * options.epochs >= FEWEST_SAMPLES:
        return ()
    weights = coco_weights(options.variant)
    return (
        f"training from scratch on {images} images for {options.epochs} epochs will find little: "
        "use pretrained weights",
        f"weights_url: {COCO} takes YOLOX-{weights.variant} by {weights.source} "
        f"(mAP {weights.mAP:.3f} on COCO, {weights.licence}): {weights.url}",
    )


def _annotations(folder: Path) -> dict[str, Any]:
    path = folder / "annotations.json"
    if not path.is_file():
        raise MissingError(
            "the data set has no annotations.json", where=path, expected="a data set that the data preparation wrote"
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def class_names(folder: Path) -> tuple[str, ...]:
    """Names by ascending category id: the order that pycocotools gives mmdet's labels."""
    categories = sorted(_annotations(folder)["categories"], key=lambda category: int(category["id"]))
    return tuple(str(category["name"]) for category in categories)


def count_images(folder: Path) -> int:
    """Number of images of a data set."""
    return len(_annotations(folder)["images"])


def copy_images(eval_folder: Path, folder: Path) -> None:
    """Copy the eval images with the most classes and objects: all for the parity check, the first as the test image."""
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
