"""The test set's annotations, read once and checked for what evaluation relies on."""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, MissingError

ANNOTATIONS_FILE = "annotations.json"
IMAGES_FOLDER = "images"


@dataclass(frozen=True)
class TestImage:
    """One image of the test set: its COCO id, its file name below `images/`, and its size in pixels."""

    __test__ = False  # pytest would collect a class of this name

    id: int
    file_name: str
    width: int
    height: int


@dataclass(frozen=True)
class GroundTruth:
    """What a COCO annotation file says.

    Attributes:
        path: The file.
        images: The images, in the file's order.
        categories: Name by category id, in the order of the ids.
        annotations: COCO annotations: `bbox` is [x, y, width, height] in pixels, and `iscrowd` is 1 for a region where
            what is found of the category is neither right nor wrong, else 0.
    """

    path: Path
    images: tuple[TestImage, ...]
    categories: dict[int, str]
    annotations: tuple[dict[str, Any], ...]

    def only(self, image_ids: Set[int]) -> GroundTruth:
        """What it says of some of its images; all categories stay."""
        return replace(
            self,
            images=tuple(image for image in self.images if image.id in image_ids),
            annotations=tuple(one for one in self.annotations if one["image_id"] in image_ids),
        )


def read_ground_truth(path: str | Path) -> GroundTruth:
    """Read a COCO annotation file, or the one of a data set folder.

    Args:
        path: `annotations.json`, or the folder that holds it.

    Raises:
        MissingError: There is no such file.
        DataError: It is not a COCO instances file with at least one image and one category.
    """
    file = Path(path)
    file = file / ANNOTATIONS_FILE if file.is_dir() else file
    try:
        document = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as error:
        raise MissingError("The test set has no annotations", where=file, remedy="run data_prep") from error
    except ValueError as error:
        raise DataError(f"The annotations are not JSON: {error}", where=file, remedy="run data_prep again") from error
    try:
        truth = _parse(file, document)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"The annotations are not in COCO format: {type(error).__name__}: {error}",
            where=file,
            expected="images, annotations and categories as in COCO's instances files",
        ) from error
    if not truth.images or not truth.categories:
        raise DataError("The test set is empty", where=file, expected="at least one image and one category")
    return truth


def _parse(file: Path, document: dict[str, Any]) -> GroundTruth:
    images = tuple(
        TestImage(int(image["id"]), str(image["file_name"]), int(image["width"]), int(image["height"]))
        for image in document["images"]
    )
    categories = {int(category["id"]): str(category["name"]) for category in document["categories"]}
    known = {image.id for image in images}
    for annotation in document["annotations"]:
        if annotation["image_id"] not in known or annotation["category_id"] not in categories:
            raise ValueError(f"annotation {annotation.get('id')} is of an unknown image or category")
        if len(annotation["bbox"]) != 4:
            raise ValueError(f"annotation {annotation.get('id')} has no box of four numbers")
    annotations = tuple(_with_crowd(annotation) for annotation in document["annotations"])
    return GroundTruth(file, images, dict(sorted(categories.items())), annotations)


def _with_crowd(annotation: dict[str, Any]) -> dict[str, Any]:
    """Say by `iscrowd` alone what is not to be judged: COCO's evaluation takes no notice of other tools' `ignore`."""
    own = {key: value for key, value in annotation.items() if key != "ignore"}
    return own | {"iscrowd": int(bool(annotation.get("iscrowd") or annotation.get("ignore")))}
