"""Images with labelled boxes, as every writer takes them: annotations, pre-labels, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.coco import Box


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box of a class; with a score it is a model's, without one a person's."""

    label: str
    bbox: Box  # `(x, y, width, height)` in pixels of the upright image
    score: float | None = None
    attributes: Mapping[str, str | float] = field(default_factory=dict)  # what else a tool shall show


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """An image with its boxes; there may be none."""

    name: str  # its path, with slashes
    width: int  # pixels
    height: int
    boxes: tuple[LabelledBox, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of its record, where a format has records
