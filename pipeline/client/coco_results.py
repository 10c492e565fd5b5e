"""Predictions as a COCO dataset, written while they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pipeline.client.http_client import ServedImage
from pipeline.files import atomic_path

_DIGITS = 6  # more than the service gives: only the noise of the subtraction is rounded away


class CocoWriter:
    """Adds images and their detections to a COCO file; see `coco_file`."""

    def __init__(self, stream: IO[str], classes: Sequence[str]) -> None:
        self._stream = stream
        self._ids = {name: index + 1 for index, name in enumerate(classes)}
        self._images: list[dict[str, Any]] = []
        self._annotations = 0

    def add(self, file_name: str, answer: ServedImage, extra: Mapping[str, Any] = {}) -> None:
        """Add an image, also one without detections; `extra` are further fields of its record."""
        image_id = len(self._images) + 1
        own = {"id": image_id, "file_name": file_name, "width": answer.width, "height": answer.height}
        self._images.append(own | dict(extra))
        for found in answer.detections:
            x1, y1, x2, y2 = found.box
            width, height = round(x2 - x1, _DIGITS), round(y2 - y1, _DIGITS)
            self._stream.write(",\n" if self._annotations else '{"annotations": [\n')
            self._annotations += 1
            annotation = {
                "id": self._annotations,
                "image_id": image_id,
                "category_id": self._ids.setdefault(found.label, len(self._ids) + 1),
                "bbox": [x1, y1, width, height],
                "area": round(width * height, _DIGITS),
                "iscrowd": 0,
                "score": found.score,
            }
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

    The categories are all of the service's classes in its order, with ids from 1, and any other that it answers, such
    as after another model took its place. The annotations come first, so that they need not be kept in memory.
    """
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as stream:
        writer = CocoWriter(stream, classes)
        yield writer
        writer.finish()
