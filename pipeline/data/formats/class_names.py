"""Files that only name the classes, such as `data.yaml`: they may come apart from their annotations."""

from __future__ import annotations

import logging
from pathlib import Path, PurePosixPath

from pipeline.data.formats.annotation_files import AnnotationFiles
from pipeline.data.formats.csv_boxes import class_descriptions
from pipeline.data.formats.yolo_data import data_files, looks_like_labels, name_lists
from pipeline.data.subset_names import subset_named

log = logging.getLogger(__name__)

DESCRIBED = ("yolo", "csv")  # the formats that take class names from such files


def descriptions(files: AnnotationFiles) -> tuple[str, ...]:
    """`data.yaml`, `classes.txt`, `obj.names`, `class-descriptions.csv` and the like."""
    return (*data_files(files), *name_lists(files), *class_descriptions(files))


def only_describe(folder: Path) -> bool:
    """Whether a folder has such files and nothing else, except lists of images such as `train.txt`."""
    files = AnnotationFiles.of(folder)
    found = descriptions(files)
    return bool(found) and all(name in found or _is_image_list(files, name) for name in files.names)


def lay_over(own: Path, given: Path, folder: Path) -> tuple[str, ...]:
    """Link a source's annotation files into a folder, with class names from elsewhere in place of its own.

    Args:
        own: The source's annotation files.
        given: The files with the class names.
        folder: The new folder.

    Returns:
        The names in the folder of the given files.
    """
    files, over = AnnotationFiles.of(own), AnnotationFiles.of(given).names
    described = descriptions(files)
    sources = {name: own / name for name in files.names if name not in described}
    for name, source in (sources | {name: given / name for name in over}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(source.resolve())
    if described:
        log.info("skipped, as annotations_url names the classes: %s", ", ".join(described))
    return over


def _is_image_list(files: AnnotationFiles, name: str) -> bool:
    path = PurePosixPath(name)
    is_named_so = path.suffix.lower() == ".txt" and bool(subset_named(path.stem))
    return is_named_so and not looks_like_labels(files.head(name))
