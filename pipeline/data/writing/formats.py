"""The formats that images with boxes can be written in."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from pipeline.data.writing.coco_file import coco_file
from pipeline.data.writing.cvat_file import cvat_file
from pipeline.data.writing.label_studio_file import LOCAL_FILES, label_studio_file
from pipeline.data.writing.labelled import LabelledImage
from pipeline.data.writing.yolo_folder import yolo_folder


class LabelWriter(Protocol):
    """Writes images, one after the other."""

    def add(self, image: LabelledImage) -> None:
        """Add an image, also one without boxes."""


def label_writer(
    format: str,  # noqa: A002 - the field's word
    path: Path,
    classes: Sequence[str],
    *,
    image_prefix: str = LOCAL_FILES,
) -> AbstractContextManager[LabelWriter]:
    """A writer of one of `FORMATS`. What it writes appears at `path` when the block has ended without an error.

    Args:
        format: One of `FORMATS`.
        path: A file; with `yolo` a new or empty folder.
        classes: In their order; classes of boxes that are not among them follow.
        image_prefix: Of the URL at which Label Studio finds an image; the image's name follows.
    """
    if format == "cvat":
        return cvat_file(path, classes)
    if format == "label-studio":
        return label_studio_file(path, classes, image_prefix)
    return yolo_folder(path, classes) if format == "yolo" else coco_file(path, classes)
