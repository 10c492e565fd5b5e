"""The train and eval sets, folders with `annotations.json` and `images/`: checks, warnings, and images for parity."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.data.coco import CocoDataset, read_coco
from pipeline.data.pretrained import COCO, coco_weights
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.errors import DataError

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
    parts = {"train": _read(train_folder), "eval": _read(eval_folder)}
    classes, others = (_class_names(part) for part in parts.values())
    if classes != others:
        raise DataError(
            "the train and eval sets have different classes", where=eval_folder, expected=", ".join(classes)
        )
    for name, part in parts.items():
        if not part.images:
            raise DataError(
                f"the {name} set has no images",
                where=train_folder if name == "train" else eval_folder,
                expected="at least one image: training learns from the train set, the eval set decides the best epoch",
                remedy=f"split the data with a {name}_share above 0",
            )
    if all(each.iscrowd for each in parts["eval"].annotations):
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


def count_images(folder: Path) -> int:
    """Number of images of a data set."""
    return len(_read(folder).images)


def copy_images(eval_folder: Path, folder: Path) -> None:
    """Copy the eval images with the most classes and objects: all for the parity check, the first as the test image."""
    dataset = _read(eval_folder)
    classes: dict[int, list[int]] = {image.id: [] for image in dataset.images}
    for annotation in dataset.annotations:
        if not annotation.iscrowd:
            classes[annotation.image_id].append(annotation.category_id)
    order = sorted(
        dataset.images, key=lambda image: (-len(set(classes[image.id])), -len(classes[image.id]), image.file_name)
    )
    (folder / "parity_images").mkdir()
    for number, image in enumerate(order[:PARITY_IMAGES]):
        source = eval_folder / "images" / image.file_name
        if number == 0:
            shutil.copyfile(source, folder / f"test_image{source.suffix.lower()}")
        shutil.copyfile(source, folder / "parity_images" / f"{number}{source.suffix.lower()}")


def _read(folder: Path) -> CocoDataset:
    return read_coco(folder / "annotations.json")


def _class_names(dataset: CocoDataset) -> tuple[str, ...]:
    """Names by ascending category id: the order that pycocotools gives mmdet's labels."""
    return tuple(category.name for category in sorted(dataset.categories, key=lambda category: category.id))
