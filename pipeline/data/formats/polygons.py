"""From the outline of an object to its box: points are `(x, y)` in pixels, origin at the top left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.data.coco import Box

Point = tuple[float, float]

_NOWHERE = (math.nan, math.nan, math.nan, math.nan)


def hull(points: Sequence[Point]) -> Box:
    """The smallest upright box around points; all NaN where any of them is, for validation to report."""
    if not points or not all(math.isfinite(value) for point in points for value in point):
        return _NOWHERE
    across, down = [x for x, _ in points], [y for _, y in points]
    left, top = min(across), min(down)
    return left, top, max(across) - left, max(down) - top


def polygon_area(points: Sequence[Point]) -> float:
    """The area within a polygon that does not cross itself, by the shoelace formula."""
    following = [*points[1:], *points[:1]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2


def rotated_box(box: Box, degrees: float) -> list[Point]:
    """The corners of a box turned clockwise, as seen, around its centre."""
    x, y, width, height = box
    middle = x + width / 2, y + height / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    return [(middle[0] + (u * cos - v * sin) / 2, middle[1] + (u * sin + v * cos) / 2) for u, v in corners]


def ellipse_hull(centre: Point, radii: Point, degrees: float) -> Box:
    """The smallest upright box around an ellipse turned clockwise around its centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across = math.hypot(radii[0] * cos, radii[1] * sin)
    down = math.hypot(radii[0] * sin, radii[1] * cos)
    return centre[0] - across, centre[1] - down, 2 * across, 2 * down


def flat(points: Sequence[Point]) -> list[float]:
    """A polygon the way COCO writes one: `[x1, y1, x2, y2, …]`."""
    return [value for point in points for value in point]
