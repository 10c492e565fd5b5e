"""Train, evaluation and test set: exact in size, balanced in classes, the same for the same seed.

The classes are balanced by iterative stratification (Sechidis, Tsoumakas, Vlahavas: On the Stratification of
Multi-Label Data, ECML PKDD 2011), over which classes an image shows: the rarest class is dealt out first, each image to
the subset that still lacks most of that class. Unlike there, a subset that has its number of images takes no more.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.coco import CocoDataset, Image
from pipeline.data.conversion import draw_order
from pipeline.data.tables import Cell, Table
from pipeline.errors import DataError, UsageError

_NAMES = ("train", "eval", "test")


@dataclass(frozen=True)
class Split:
    """Three data sets that share no image and together are the one they came from."""

    train: CocoDataset
    eval: CocoDataset
    test: CocoDataset

    @property
    def shares(self) -> Table:
        """Images and boxes per class and subset, with the percentage of the class that went there."""
        subsets = (self.train, self.eval, self.test)
        columns = ("class", *(f"{name} {what}" for name in _NAMES for what in ("images", "%", "boxes", "%")))
        images = np.array([_presence(subset, subset.images).sum(axis=0) for subset in subsets])
        boxes = np.array([_boxes_per_class(subset) for subset in subsets])
        rows = [_share_row(name, images[:, i], boxes[:, i]) for i, name in enumerate(self.train.classes)]
        total = np.array([len(subset.images) for subset in subsets])
        rows.append(_share_row("all", total, boxes.sum(axis=1)))
        return Table("Images and boxes per class, crowd regions not counted", columns, tuple(rows))


def split(
    dataset: CocoDataset,
    *,
    train_share: float = 0.7,
    eval_share: float = 0.15,
    test_names: Collection[str] = (),
    seed: int = 0,
) -> Split:
    """Divide a data set into three, each image in exactly one.

    Args:
        dataset: What to divide; the order of its images makes no difference.
        train_share: Share of the images to train on, 0 to 1.
        eval_share: Share of the images to choose the best weights by; the rest is the test set.
        test_names: File names that are the test set, as far as the data set has them; the other images are then
            shared between train and eval in the ratio of their shares.
        seed: What decides between equally good places.

    Raises:
        UsageError: The shares are no shares.
        DataError: A subset with a share would be empty.
    """
    shares = np.array([train_share, eval_share, 1 - train_share - eval_share])
    shares[np.abs(shares) < 1e-9] = 0
    if not (shares >= 0).all():
        raise UsageError(
            f"train_share {train_share:g} and eval_share {eval_share:g} are no shares",
            expected="0 or more, together at most 1",
        )
    names = frozenset(test_names)
    reserved = [image for image in dataset.images if image.file_name in names]
    images = [image for image in dataset.images if image.file_name not in names]
    if names:
        shares = _without_test(shares, len(reserved), len(images))
    images = sorted(images, key=lambda image: draw_order(image.file_name, seed))
    sizes = _sizes(len(images), shares)
    _check_sizes(sizes, shares, len(images))
    owner = _assign(_presence(dataset, images), sizes)
    parts = [[image for image, i in zip(images, owner, strict=True) if i == part] for part in range(3)]
    parts[2] += reserved
    return Split(*(dataset.subset(part) for part in parts))


def _without_test(shares: npt.NDArray[np.float64], reserved: int, others: int) -> npt.NDArray[np.float64]:
    if not reserved:
        raise DataError("No image of the test list is in the data set", remedy="set keep_empty, or leave the list out")
    rest = shares[:2].sum()
    if rest == 0 and others:
        raise UsageError(
            f"{others} images are not on the test list, and train and eval have no share",
            remedy="give train_share or eval_share a value above 0",
        )
    return np.array([*(shares[:2] / rest if rest else (0.0, 0.0)), 0.0])


def _sizes(count: int, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Whole numbers that add up to `count`: rounded down, the remainder to the largest fractions."""
    exact = count * shares
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    missing = count - int(sizes.sum())
    sizes[np.argsort(sizes - exact, kind="stable")[:missing]] += 1
    return sizes


def _check_sizes(sizes: npt.NDArray[np.int64], shares: npt.NDArray[np.float64], count: int) -> None:
    for name, size, share in zip(_NAMES, sizes, shares, strict=True):
        if share > 0 and size == 0:
            raise DataError(
                f"The {name} set would be empty: {share:.0%} of {count} images",
                remedy="take more images, or give it a larger share",
            )


def _presence(dataset: CocoDataset, images: Collection[Image]) -> npt.NDArray[np.int64]:
    """Which image shows which class, `(images, classes)` of 0 and 1; crowd regions do not count."""
    row = {image.id: i for i, image in enumerate(images)}
    column = {category.id: i for i, category in enumerate(dataset.categories)}
    shown = np.zeros((len(images), len(dataset.categories)), np.int64)
    for each in dataset.annotations:
        if not each.iscrowd and each.image_id in row and each.category_id in column:
            shown[row[each.image_id], column[each.category_id]] = 1
    return shown


def _assign(shown: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which subset each image goes to, `(images,)`; `sizes` are filled to the last place."""
    share = sizes / max(1, sizes.sum())
    wanted = np.outer(share, shown.sum(axis=0)).astype(np.float64)  # (subsets, classes) images still lacking
    places = sizes.copy()
    owner = np.full(len(shown), -1, np.int64)
    remaining = shown.sum(axis=0)
    while remaining.any():
        rarest = int(np.where(remaining > 0, remaining, np.iinfo(np.int64).max).argmin())
        for image in np.flatnonzero((owner < 0) & (shown[:, rarest] == 1)):
            part = _neediest(wanted[:, rarest], places)
            owner[image] = part
            places[part] -= 1
            wanted[part] -= shown[image]
            remaining -= shown[image]
    for image in np.flatnonzero(owner < 0):  # nothing to see in these: they fill the places left
        owner[image] = part = int((places / np.maximum(1, sizes)).argmax())
        places[part] -= 1
    return owner


def _neediest(wanted: npt.NDArray[np.float64], places: npt.NDArray[np.int64]) -> int:
    """The subset with room that lacks most of a class; between equals, the one with most room."""
    return max(np.flatnonzero(places > 0).tolist(), key=lambda part: (wanted[part], places[part]))


def _boxes_per_class(dataset: CocoDataset) -> npt.NDArray[np.int64]:
    column = {category.id: i for i, category in enumerate(dataset.categories)}
    columns = [column[each.category_id] for each in dataset.annotations if not each.iscrowd]
    return np.bincount(np.array(columns, np.int64), minlength=len(column))


def _share_row(name: str, images: npt.NDArray[np.int64], boxes: npt.NDArray[np.int64]) -> tuple[Cell, ...]:
    row: list[Cell] = [name]
    for part in range(3):
        for counts in (images, boxes):
            row += [int(counts[part]), 100 * float(counts[part] / max(1, counts.sum()))]
    return tuple(row)
