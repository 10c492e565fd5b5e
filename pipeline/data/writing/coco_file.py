"""A COCO instances file with scores, written while the images come.

CVAT and FiftyOne read it, with the scores and attributes; Label Studio does without these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.data.writing.labelled import LabelledImage
from pipeline.files import atomic_path

_DIGITS = 6  # of an area in square pixels


class CocoWriter:
    """Adds images and their boxes to a COCO file; see `coco_file`."""

    def __init__(self, stream: IO[str], classes: Sequence[str]) -> None:
        self._stream = stream
        self._ids = {name: index + 1 for index, name in enumerate(classes)}
        self._images: list[dict[str, Any]] = []
        self._annotations = 0

    def add(self, image: LabelledImage) -> None:
        """Add an image, also one without boxes."""
        image_id = len(self._images) + 1
        own = {"id": image_id, "file_name": image.name, "width": image.width, "height": image.height}
        self._images.append(own | dict(image.extra))
        for box in image.boxes:
            x, y, width, height = box.bbox
            self._stream.write(",\n" if self._annotations else '{"annotations": [\n')
            self._annotations += 1
            annotation = {
                "id": self._annotations,
                "image_id": image_id,
                "category_id": self._ids.setdefault(box.label, len(self._ids) + 1),
                "bbox": [x, y, width, height],
                "area": round(width * height, _DIGITS),
                "iscrowd": 0,
                "segmentation": [],  # which CVAT asks for
            }
            annotation |= {} if box.score is None else {"score": box.score}
            annotation |= {"attributes": dict(box.attributes)} if box.attributes else {}
            self._stream.write(json.dumps(annotation))

    def finish(self) -> None:
        """Write the images and the categories."""
        self._stream.write("" if self._annotations else '{"annotations": [')
        categories = [{"id": id_, "name": name} for name, id_ in self._ids.items()]
        for name, rows in (("images", self._images), ("categories", categories)):
            lines = ",\n".join(json.dumps(row) for row in rows)
            self._stream.write(f'],\n"{name}": [\n{lines}\n')
        self._stream.write("]}\n")


@contextmanager
def coco_file(path: Path, classes: Sequence[str]) -> Iterator[CocoWriter]:
    """Write a COCO file, which appears when the block has ended without an error.

    The categories are the given classes in their order, with ids from 1, and any other that a box has, such as after
    another model took a service's place. The annotations come first, so that they need not be kept in memory.
    """
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as stream:
        writer = CocoWriter(stream, classes)
        yield writer
        writer.finish()
