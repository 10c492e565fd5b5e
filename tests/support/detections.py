"""Detections as COCO's results have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def found(image_id: int, category_id: int, box: Sequence[float] = (8, 8, 32, 32), score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": category_id, "bbox": list(box), "score": score}
