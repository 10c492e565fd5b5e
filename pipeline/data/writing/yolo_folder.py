"""A folder of YOLO's labels with `data.yaml`, laid out as Ultralytics and CVAT have it.

`labels/train` has a text file for each image, and `images/train`, which is empty, is where the images belong. Lines
have no score: where there is a sixth value, CVAT takes it for the number of a track, and Ultralytics refuses it.

Reference: https://docs.ultralytics.com/datasets/detect/#ultralytics-yolo-format
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import yaml

from pipeline.data.writing.labelled import LabelledImage
from pipeline.errors import DataError, UsageError

IMAGES = "images/train"
_LABELS = "labels/train"


class YoloWriter:
    """Adds the labels of images; see `yolo_folder`."""

    def __init__(self, folder: Path, classes: Sequence[str]) -> None:
        self._folder = folder
        self._index = {name: i for i, name in enumerate(classes)}
        self._taken: dict[PurePosixPath, str] = {}  # names of images by the file of their labels
        (folder / IMAGES).mkdir(parents=True)
        (folder / _LABELS).mkdir(parents=True)

    def add(self, image: LabelledImage) -> None:
        """Add an image, also one without boxes.

        Raises:
            DataError: Another image has the same name but for its suffix, and so the same file of labels.
        """
        path = self._folder / _take_place(image.name, self._taken)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for box in image.boxes:
            x, y, width, height = box.bbox
            values = (x + width / 2) / image.width, (y + height / 2) / image.height
            sides = width / image.width, height / image.height
            index = self._index.setdefault(box.label, len(self._index))
            lines.append(f"{index} {' '.join(f'{value:.9f}' for value in (*values, *sides))}\n")
        path.write_text("".join(lines), "utf-8")

    def finish(self) -> None:
        """Write `data.yaml`."""
        content = {"path": ".", "train": IMAGES, "names": {i: name for name, i in self._index.items()}}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self._folder / "data.yaml").write_text(text, "utf-8")


@contextmanager
def yolo_folder(path: Path, classes: Sequence[str]) -> Iterator[YoloWriter]:
    """Write the folder, which is new or empty, and appears when the block has ended without an error.

    The classes are the given ones in their order, and any other that a box has.
    """
    check_empty(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as scratch:
        writer = YoloWriter(draft := Path(scratch, "labels"), classes)
        yield writer
        writer.finish()
        draft.replace(path)  # an empty folder goes


def check_names(names: Iterable[str]) -> None:
    """Raise a `DataError` where two images would have the same file of labels."""
    taken: dict[PurePosixPath, str] = {}
    for name in names:
        _take_place(name, taken)


def _take_place(name: str, taken: dict[PurePosixPath, str]) -> PurePosixPath:
    """The file for the labels of an image, within the folder, which no other image may have."""
    path = _LABELS / PurePosixPath(name).with_suffix(".txt")
    if other := taken.get(path):
        raise DataError(
            f"two images would have the same file of labels: {other} and {name}",
            where=path,
            expected="names that differ in more than their suffixes",
            remedy="rename one of them, or choose another format",
        )
    taken[path] = name
    return path


def check_empty(path: Path) -> None:
    """Raise a `UsageError` where a folder cannot be written, for there is something already."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        problem = "is not empty" if path.is_dir() else "is a file"
        raise UsageError(f"the folder for the labels {problem}", where=path, remedy="name a new folder")
