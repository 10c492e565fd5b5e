"""A small data set whose figures can be told by heart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.data.coco import Annotation, Category, CocoDataset, Image
from pipeline.data.split.dataset_split import Split


@dataclass(frozen=True)
class Drawn:
    """A data set, its split, and the folder with its pictures."""

    dataset: CocoDataset
    parts: Split
    folder: Path


@pytest.fixture
def two_classes(tmp_path: Path) -> Drawn:
    """Five pictures of grey: two cats and three dogs, a small, three medium and a large box, and a crowd."""
    folder = tmp_path / "drawn"
    folder.mkdir()
    sizes = [(200, 100), (200, 100), (200, 100), (100, 200), (200, 100)]
    images = tuple(Image(10 + i, f"{i}.png", *size) for i, size in enumerate(sizes))
    for image in images:
        cv2.imwrite(str(folder / image.file_name), np.full((image.height, image.width, 3), 90, np.uint8))
    boxes = [
        (10, 2, (0.0, 0.0, 20.0, 10.0)),  # train: a small dog and a medium cat
        (10, 1, (100.0, 20.0, 40.0, 40.0)),
        (11, 2, (10.0, 10.0, 160.0, 80.0)),  # train: a large dog
        (12, 2, (50.0, 25.0, 80.0, 40.0)),  # eval: a medium dog
        (13, 1, (30.0, 60.0, 40.0, 80.0)),  # test: a medium cat
    ]
    annotations = [Annotation(i, image, kind, box, box[2] * box[3]) for i, (image, kind, box) in enumerate(boxes, 1)]
    annotations.append(Annotation(6, 13, 2, (0.0, 0.0, 99.0, 99.0), 9801.0, iscrowd=1))
    dataset = CocoDataset(images, tuple(annotations), (Category(1, "cat"), Category(2, "dog")))
    parts = Split(*(dataset.subset(part) for part in (images[:2], images[2:3], images[3:])))
    return Drawn(dataset, parts, folder)
