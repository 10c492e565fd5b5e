"""A dataset's boxes as arrays, so that figures need no loops over boxes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from pipeline.data.coco import CocoDataset

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

# COCO's bounds of small and medium objects: the sides of squares of that area, in pixels
SMALL, MEDIUM = 32.0, 96.0


@dataclass(frozen=True, eq=False)
class BoxColumns:
    """The N boxes of a validated dataset, without crowd regions."""

    boxes: Floats  # (N, 4): x, y, width, height in pixels
    areas: Floats  # (N,): of the mask, or of the box without one
    classes: Integers  # (N,): positions in `dataset.categories`
    images: Integers  # (N,): positions in `dataset.images`
    sizes: Floats  # (images, 2): width and height of every image

    @classmethod
    def of(cls, dataset: CocoDataset) -> BoxColumns:
        """Collect the boxes in the order of the annotations."""
        image = {each.id: i for i, each in enumerate(dataset.images)}
        column = {each.id: i for i, each in enumerate(dataset.categories)}
        kept = [each for each in dataset.annotations if not each.iscrowd]
        return cls(
            np.fromiter(chain.from_iterable(each.bbox for each in kept), np.float64).reshape(-1, 4),
            np.array([each.area for each in kept], np.float64),
            np.array([column[each.category_id] for each in kept], np.int64),
            np.array([image[each.image_id] for each in kept], np.int64),
            np.array([(each.width, each.height) for each in dataset.images], np.float64).reshape(-1, 2),
        )

    def per_class(self, classes: int) -> Integers:
        """Boxes of each class, `(classes,)`."""
        return np.bincount(self.classes, minlength=classes)

    def per_image(self) -> Integers:
        """Boxes on each image, `(images,)`."""
        return np.bincount(self.images, minlength=len(self.sizes))

    def shown(self, classes: int) -> Integers:
        """Which image shows which class: distinct `(K, 2)` pairs of positions, ordered by image and class."""
        pairs = np.unique(self.images * max(1, classes) + self.classes)
        return np.stack(np.divmod(pairs, max(1, classes)), axis=1)

    def size_class(self) -> Integers:
        """0 for small, 1 for medium, 2 for large objects in COCO's sense, `(N,)`."""
        return np.digitize(self.areas, [SMALL**2, MEDIUM**2])
