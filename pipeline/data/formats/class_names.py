"""Files that only say what classes are called: they may come apart from the annotations they belong to."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.data.formats.csv_boxes import class_descriptions
from pipeline.data.formats.yolo_data import data_files, name_lists
from pipeline.data.formats.yolo_lines import looks_like_labels
from pipeline.data.subset_names import subset_named

logger = logging.getLogger(__name__)

DESCRIBED = ("yolo", "csv")  # the formats that take names from such files


def descriptions(files: AnnotationFiles) -> tuple[str, ...]:
    """`data.yaml`, `classes.txt`, `obj.names`, `class-descriptions.csv` and the like."""
    return (*data_files(files), *name_lists(files), *class_descriptions(files))


def only_describe(folder: Path) -> bool:
    """Whether a folder has such files, and beside them at most lists of images such as `train.txt`."""
    files = AnnotationFiles.of(folder)
    found = descriptions(files)
    return bool(found) and all(name in found or _is_image_list(files, name) for name in files.names)


def lay_over(own: Path, given: Path, folder: Path) -> tuple[str, ...]:
    """Put a source's annotation files into a folder, by links, with descriptions from elsewhere instead of its own.

    Args:
        own: The source's annotation files.
        given: The descriptions.
        folder: Where they go together; new.

    Returns:
        The names in the folder of those that were given.
    """
    files, over = AnnotationFiles.of(own), AnnotationFiles.of(given).names
    described = descriptions(files)
    for name in files.names:
        if name not in described and name not in over:
            _link(own / name, folder / name)
    for name in over:
        _link(given / name, folder / name)
    if described:
        logger.info("left out, as annotations_url says what classes are called: %s", ", ".join(described))
    return over


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())


def _is_image_list(files: AnnotationFiles, name: str) -> bool:
    path = PurePosixPath(name)
    is_named_so = path.suffix.lower() == ".txt" and bool(subset_named(path.stem))
    return is_named_so and not looks_like_labels(files.head(name).decode("utf-8-sig", "replace"))
