"""CVAT's own XML, "CVAT for images 1.1", to be uploaded as the annotations of a task with these images.

Reference: https://docs.cvat.ai/docs/dataset_management/formats/xml_format/. CVAT finds an image by its name, and takes
scores and attributes where the task's labels have attributes of these names.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from xml.etree.ElementTree import Element, SubElement, tostring

from pipeline.data.writing.labelled import LabelledBox, LabelledImage
from pipeline.files import atomic_path

_DIGITS = 6  # of a pixel
_SCORE = "score"


class CvatWriter:
    """Adds images and their boxes to an XML file; see `cvat_file`."""

    def __init__(self, body: IO[bytes], classes: Sequence[str]) -> None:
        self._body = body
        self._labels = dict.fromkeys(classes)
        self._attributes: dict[str, bool] = {}  # whether the values are numbers
        self._images = 0

    def add(self, image: LabelledImage) -> None:
        """Add an image, also one without boxes."""
        sizes = {"width": str(image.width), "height": str(image.height)}
        node = Element("image", {"id": str(self._images), "name": image.name, **sizes})
        self._images += 1
        for each in image.boxes:
            self._labels.setdefault(each.label)
            self._add_box(node, each)
        self._body.write(tostring(node, "utf-8", xml_declaration=False) + b"\n")

    def _add_box(self, image: Element, box: LabelledBox) -> None:
        x, y, width, height = box.bbox
        corners = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
        places = {key: repr(round(value, _DIGITS)) for key, value in corners.items()}
        source = "manual" if box.score is None else "auto"
        node = SubElement(
            image, "box", {"label": box.label, "source": source, "occluded": "0", **places, "z_order": "0"}
        )
        values = ({} if box.score is None else {_SCORE: box.score}) | dict(box.attributes)
        for name, value in values.items():
            self._attributes.setdefault(name, not isinstance(value, str))
            SubElement(node, "attribute", {"name": name}).text = str(value)

    def finish(self, stream: IO[bytes]) -> None:
        """Write the file: the labels with their attributes, then the images."""
        labels = Element("labels")
        for name in self._labels:
            label = SubElement(labels, "label")
            SubElement(label, "name").text = name
            attributes = SubElement(label, "attributes")
            for attribute, is_number in self._attributes.items():
                _add_texts(
                    SubElement(attributes, "attribute"),
                    name=attribute,
                    mutable="False",
                    input_type="number" if is_number else "text",
                    default_value="0" if is_number else "",
                    values="0;1;0.000001" if is_number else "",  # the least, the greatest, the step
                )
        stream.write(b"<?xml version='1.0' encoding='utf-8'?>\n<annotations>\n<version>1.1</version>\n<meta><task>")
        stream.write(f"<size>{self._images}</size><mode>annotation</mode>".encode())
        stream.write(tostring(labels, "utf-8", xml_declaration=False) + b"</task></meta>\n")
        self._body.seek(0)
        shutil.copyfileobj(self._body, stream)
        stream.write(b"</annotations>\n")


@contextmanager
def cvat_file(path: Path, classes: Sequence[str]) -> Iterator[CvatWriter]:
    """Write an XML file, which appears when the block has ended without an error.

    The labels are the given classes in their order, and any other that a box has. They come before the images, which
    therefore wait in a temporary file.
    """
    with atomic_path(path) as draft, tempfile.TemporaryFile() as body:
        writer = CvatWriter(body, classes)
        yield writer
        with draft.open("wb") as stream:
            writer.finish(stream)


def _add_texts(node: Element, **texts: str) -> None:
    for name, text in texts.items():
        SubElement(node, name).text = text
