"""Label Studio's regions as shapes: rectangles, turned or not, and polygons, in fractions of the image's size."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from pipeline.data.coco import Box
from pipeline.data.sources.api_records import Shape, as_number
from pipeline.data.sources.loaded_source import Skipped

Points = tuple[tuple[float, float], ...]


def declared_size(results: list[dict[str, Any]]) -> tuple[int, int]:
    """The size that Label Studio saw, which boxes refer to; zeros where results differ or do not say."""
    sizes = {(as_number(each.get("original_width")), as_number(each.get("original_height"))) for each in results}
    sizes.discard((None, None))
    if len(sizes) != 1:
        return 0, 0
    width, height = sizes.pop()
    if not width or not height or width < 1 or height < 1 or not math.isfinite(width * height):
        return 0, 0
    return int(width), int(height)


def read_regions(results: list[dict[str, Any]], where: str) -> tuple[tuple[Shape, ...], tuple[Skipped, ...]]:
    """The shapes of the rectangles and polygons among results, and what else there is that has a place."""
    shapes: list[Shape] = []
    left_out: Counter[str] = Counter()
    for result in results:
        name, value = str(result.get("type", "")), result.get("value")
        if not isinstance(value, dict) or not _is_region(value):
            continue  # choices, ratings and texts say something of the whole image
        if name not in {"rectanglelabels", "polygonlabels"}:
            left_out[f"of the type '{name[:40]}', which is not taken"] += 1
            continue
        labels = [each for each in value.get(name) or () if isinstance(each, str) and each]
        points = _rectangle(value) if name == "rectanglelabels" else _polygon(value)
        if not labels or points is None:
            left_out["without a label" if points else "without a place"] += 1
            continue
        size = as_number(result.get("original_width")), as_number(result.get("original_height"))
        shapes += [_shape(label, points, value, name, size) for label in labels]
    return tuple(shapes), tuple(Skipped(f"{where}: {n} regions", reason) for reason, n in sorted(left_out.items()))


def _is_region(value: dict[str, Any]) -> bool:
    return any(key in value for key in ("x", "points", "rle", "vertices"))


def _rectangle(value: dict[str, Any]) -> Points | None:
    numbers = [as_number(value.get(key)) for key in ("x", "y", "width", "height")]
    if None in numbers:
        return None
    x, y, width, height = (number / 100 for number in numbers if number is not None)
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def _polygon(value: dict[str, Any]) -> Points | None:
    points = value.get("points")
    if not isinstance(points, list) or len(points) < 3:
        return None
    numbers = [as_number(each) for point in points if isinstance(point, list) and len(point) == 2 for each in point]
    if None in numbers or len(numbers) != 2 * len(points):
        return None
    flat = [number / 100 for number in numbers if number is not None]
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _shape(
    label: str, points: Points, value: dict[str, Any], name: str, size: tuple[float | None, float | None]
) -> Shape:
    angle = as_number(value.get("rotation")) or 0.0
    if name == "rectanglelabels" and not angle % 360:
        (x, y), (right, _), (_, bottom), _ = points
        return Shape(label, (x, y, right - x, bottom - y), False)
    if name == "rectanglelabels":
        points = rotated(points, angle, (size[0] or 1.0) / (size[1] or 1.0))
    return Shape(label, _hull(points), False, points, _area(points))


def rotated(points: Points, degrees: float, aspect: float) -> Points:
    """Points in fractions of an image's size, turned clockwise about the first one.

    Args:
        points: (x, y) as fractions.
        degrees: The angle; clockwise as one sees it, since y points down.
        aspect: The image's width by its height: an angle is one in pixels, not in fractions.
    """
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    left, top = points[0]
    moved = [((x - left) * aspect, y - top) for x, y in points]
    return tuple((left + (x * cosine - y * sine) / aspect, top + x * sine + y * cosine) for x, y in moved)


def _hull(points: Points) -> Box:
    across, down = [x for x, _ in points], [y for _, y in points]
    return (min(across), min(down), max(across) - min(across), max(down) - min(down))


def _area(points: Points) -> float:
    """Of a polygon (the shoelace formula)."""
    following = points[1:] + points[:1]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2
