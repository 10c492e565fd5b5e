"""Label Studio's tasks in JSON, with the boxes as predictions, and the labelling setup that they belong to.

Reference: https://labelstud.io/guide/predictions. Coordinates are percents of the image's sides. The file names no
image by content: a task has the URL at which Label Studio finds the image, a prefix and the image's name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pipeline.data.writing.labelled import LabelledBox, LabelledImage
from pipeline.files import atomic_path, write_atomically

LOCAL_FILES = "/data/local-files/?d="
"""The prefix of files below the folder that Label Studio serves as LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""
SETUP_SUFFIX = ".setup.xml"
"""What the name of the labelling setup ends in, beside that of the tasks."""

_IMAGE, _LABEL = "image", "label"  # names in the setup


class LabelStudioWriter:
    """Adds a task for each image; see `label_studio_file`."""

    def __init__(self, stream: IO[str], classes: Sequence[str], image_prefix: str) -> None:
        self._stream = stream
        self._prefix = image_prefix
        self._labels = dict.fromkeys(classes)
        self._tasks = 0

    def add(self, image: LabelledImage) -> None:
        """Add an image, also one without boxes."""
        self._stream.write(",\n" if self._tasks else "[\n")
        self._tasks += 1
        self._labels |= dict.fromkeys(box.label for box in image.boxes)
        data = {_IMAGE: self._prefix + quote(image.name, errors="surrogateescape"), **image.extra}
        regions = [_region(f"{self._tasks}-{i}", box, image) for i, box in enumerate(image.boxes, 1)]
        scores = [box.score for box in image.boxes if box.score is not None]
        prediction: dict[str, Any] = {"result": regions}
        prediction |= {"score": sum(scores) / len(scores)} if scores else {}
        self._stream.write(json.dumps({"data": data, "predictions": [prediction] if regions else []}))

    def finish(self) -> None:
        """End the list."""
        self._stream.write("\n]\n" if self._tasks else "[]\n")

    def setup(self) -> str:
        """The labelling setup, for a project's settings."""
        view = Element("View")
        SubElement(view, "Image", {"name": _IMAGE, "value": f"${_IMAGE}", "zoom": "true"})
        labels = SubElement(view, "RectangleLabels", {"name": _LABEL, "toName": _IMAGE})
        for name in self._labels:
            SubElement(labels, "Label", {"value": name})
        indent(view)
        return tostring(view, "unicode") + "\n"


def _region(id_: str, box: LabelledBox, image: LabelledImage) -> dict[str, Any]:
    x, y, width, height = box.bbox
    place = {"x": x / image.width, "y": y / image.height, "width": width / image.width, "height": height / image.height}
    percents = {key: 100 * value for key, value in place.items()}
    region: dict[str, Any] = {
        "id": id_,
        "from_name": _LABEL,
        "to_name": _IMAGE,
        "type": "rectanglelabels",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": {**percents, "rotation": 0, "rectanglelabels": [box.label]},
    }
    region |= {} if box.score is None else {"score": box.score}
    notes = [f"{name}: {value}" for name, value in box.attributes.items()]
    return region | ({"meta": {"text": notes}} if notes else {})


@contextmanager
def label_studio_file(
    path: Path, classes: Sequence[str], image_prefix: str = LOCAL_FILES
) -> Iterator[LabelStudioWriter]:
    """Write the tasks, and beside them the setup, which appear when the block has ended without an error.

    The setup has the given classes in their order, and any other that a box has.
    """
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8") as stream:
        writer = LabelStudioWriter(stream, classes, image_prefix)
        yield writer
        writer.finish()
        write_atomically(setup_of(path), writer.setup())


def setup_of(path: Path) -> Path:
    """The labelling setup beside the tasks."""
    return path.with_name(path.stem + SETUP_SUFFIX)
