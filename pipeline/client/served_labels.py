"""A service's answer for an image, as the writers of labels take it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.client.http_client import ServedImage
from pipeline.data.writing.labelled import LabelledBox, LabelledImage

_DIGITS = 6  # more than the service gives: only the noise of the subtraction is rounded away


def labelled_image(name: str, answer: ServedImage, extra: Mapping[str, Any] = {}) -> LabelledImage:
    """The image with its detections as boxes; `extra` are further fields of its record."""
    boxes = []
    for found in answer.detections:
        x1, y1, x2, y2 = found.box
        bbox = x1, y1, round(x2 - x1, _DIGITS), round(y2 - y1, _DIGITS)
        boxes.append(LabelledBox(found.label, bbox, found.score))
    return LabelledImage(name, answer.width, answer.height, tuple(boxes), extra)
