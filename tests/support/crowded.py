"""A made-up data set of many boxes."""

from __future__ import annotations

import numpy as np

from pipeline.data.coco import Annotation, Category, CocoDataset, Image


def crowded(boxes: int, images: int, classes: int = 80, files: int = 10_000) -> CocoDataset:
    """Boxes at random places of images that are named like those of `make_sample`, in turns if it has fewer files."""
    rng = np.random.default_rng(0)
    places = np.hstack([rng.uniform(0, 300, (boxes, 2)), rng.uniform(4, 180, (boxes, 2))]).round(2).tolist()
    owners, kinds = np.sort(rng.integers(images, size=boxes)).tolist(), rng.integers(classes, size=boxes).tolist()
    annotations = tuple(
        Annotation(i, owner, kind, tuple(place), place[2] * place[3])
        for i, (owner, kind, place) in enumerate(zip(owners, kinds, places, strict=True), 1)
    )
    listed = tuple(Image(i, f"shapes_{i % files + 1:06d}.jpg", 640, 480) for i in range(images))
    return CocoDataset(listed, annotations, tuple(Category(i, f"kind {i}") for i in range(classes)))
