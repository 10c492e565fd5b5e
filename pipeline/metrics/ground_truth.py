"""A test set: its images, objects and categories."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.coco import Annotation, CocoDataset, Image, read_coco
from pipeline.errors import DataError


@dataclass(frozen=True)
class GroundTruth:
    """A test set; detections of a category do not count in its regions with `iscrowd`."""

    folder: Path  # with `annotations.json` and `images/`
    images: tuple[Image, ...]
    annotations: tuple[Annotation, ...]
    categories: dict[int, str]  # name by id, in the order of the ids

    def path_of(self, file_name: str) -> Path:
        """Where an image lies."""
        return self.folder / "images" / file_name

    def only(self, image_ids: Set[int]) -> GroundTruth:
        """The test set with some of its images; all categories stay."""
        return replace(
            self,
            images=tuple(image for image in self.images if image.id in image_ids),
            annotations=tuple(each for each in self.annotations if each.image_id in image_ids),
        )


def read_ground_truth(annotations: Path) -> GroundTruth:
    """Read a test set from its COCO instances file; the images lie in `images/` beside it.

    Raises:
        MissingError: There is no such file.
        DataError: It is no COCO instances file, it has no image or no category, or its records do not fit together.
    """
    return ground_truth_of(read_coco(annotations), annotations)


def ground_truth_of(dataset: CocoDataset, annotations: Path) -> GroundTruth:
    """The test set that was read from a COCO instances file.

    Raises:
        DataError: It has no image or no category, or its records do not fit together.
    """
    if not dataset.images or not dataset.categories:
        raise DataError("the test set is empty", where=annotations, expected="at least one image and one category")
    images = {image.id for image in dataset.images}
    categories = {category.id: category.name for category in sorted(dataset.categories, key=lambda each: each.id)}
    for each in dataset.annotations:
        if each.image_id not in images or each.category_id not in categories:
            raise DataError(
                f"annotation {each.id} is of image {each.image_id}, category {each.category_id}",
                where=annotations,
                expected="an image and a category of the same file",
            )
    return GroundTruth(annotations.parent, dataset.images, dataset.annotations, categories)


def read_sets(folders: Mapping[str, Path]) -> dict[str, GroundTruth]:
    """Read the sets in some folders, each with its `annotations.json`."""
    return {name: read_ground_truth(folder / "annotations.json") for name, folder in folders.items()}
