"""Why annotations that can be read are refused all the same: they are empty, or not of the images that are there."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.data.coco import CocoDataset
from pipeline.data.formats.class_names import DESCRIBED
from pipeline.data.side_files import first_of
from pipeline.data.sources.loaded_source import Raw
from pipeline.errors import DataError

_TOLD = 3  # reasons in an error


def check_described(format: str, where: str) -> None:  # noqa: A002 - the word for it
    """See that files which only say what classes are called go with annotations that need it.

    Raises:
        DataError: They do not.
    """
    if format not in DESCRIBED:
        raise DataError(
            f"The files only say what classes are called, and the source's own, {format}, say it too",
            where=where,
            expected=f"annotations, or names of classes for those in the formats {' and '.join(DESCRIBED)}",
            remedy="leave annotations_url empty to take the source's own annotations",
        )


def check_not_empty(dataset: CocoDataset, format: str, where: str) -> None:  # noqa: A002
    """See that there is something to learn from.

    Raises:
        DataError: There is no image, or no box.
    """
    if dataset.images and dataset.annotations:
        return
    found = f"The annotations hold no box in {len(dataset.images)} images" if dataset.images else "There is no image"
    raise DataError(
        f"{found}, read as {format}",
        where=where,
        expected="images with boxes",
        remedy="check which files hold the boxes; where they lie apart from the images, name them in annotations_url",
    )


def absent_images(absent: list[str], known: int, where: str, raw: Raw) -> DataError:
    """That images are named and not there, and why those of them that the source has were not taken."""
    reasons = {each.item: each.reason for each in raw.skipped}
    left = [f"{name} was left out: {reason}" for name, reason in _reasons(absent, reasons)]
    return DataError(
        "\n".join(
            [f"{len(absent)} of the {known} images that the annotations name are absent: {first_of(absent)}", *left]
        ),
        where=where,
        expected="every one of them among the images",
        remedy="check that images and annotations belong together, or set missing_images to drop",
    )


def _reasons(absent: list[str], reasons: Mapping[str, str]) -> list[tuple[str, str]]:
    """Of the first absent images those that the source had, and why they were not taken."""
    found: list[tuple[str, str]] = []
    for name in absent:
        item = next((item for item in reasons if item == name or item.endswith(f"/{name}")), "")
        if item and len(found) < _TOLD:
            found.append((name, reasons[item]))
    return found
