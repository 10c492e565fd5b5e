"""Marks that readers and sources put on an image without boxes: extra fields of its COCO record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

UNANNOTATED_FIELD = "unannotated"  # nobody annotated the image
UNANNOTATED: Mapping[str, Any] = {UNANNOTATED_FIELD: True}
UNUSABLE_FIELD = "unusable_shapes"  # the image lost shapes that cannot be used as boxes
UNUSABLE: Mapping[str, Any] = {UNUSABLE_FIELD: True}
