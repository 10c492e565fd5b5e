"""Geometry of boxes `(x, y, width, height)` and outlines in pixels; the origin is the image's top left corner."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.data.coco import Box

Point = tuple[float, float]


def clip(box: Box, width: float, height: float) -> Box:
    """The part of a box within an image of that size; without such a part a side is 0 or less."""
    x, y, across, down = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + across, float(width)) - left, min(y + down, float(height)) - top


def normalise(box: Box) -> Box:
    """The box between the same corners with sides of 0 or more."""
    x, y, across, down = box
    return min(x, x + across), min(y, y + down), abs(across), abs(down)


def between_corners(left: float, top: float, right: float, bottom: float, *, first: int = 0) -> Box:
    """The box between two opposite corners, in either order; with `first=1` they are pixels counted from 1, included.

    Numbers that are not finite stay, for validation to report.
    """
    if right < left - first:  # a pixel less than the left one is a width of 0
        left, right = right, left
    if bottom < top - first:
        top, bottom = bottom, top
    return left - first, top - first, right - left + first, bottom - top + first


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes with sides above 0, from 0 to 1."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    if across <= 0 or down <= 0:
        return 0.0
    both = across * down
    return both / (one[2] * one[3] + other[2] * other[3] - both)


def shown(box: Box) -> str:
    """A box in words, to a tenth of a pixel."""
    x, y, across, down = (f"{value:.1f}".removesuffix(".0") for value in box)
    return f"{across} x {down} at ({x}, {y})"


def scale(box: Box, across: float, down: float) -> Box:
    """A box in an image resized by these factors."""
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def turn_upright(box: Box, orientation: int, width: int, height: int) -> Box:
    """A box drawn on an image as stored, moved to the upright image of that width and height.

    The orientation is one that swaps width and height, 5 to 8 (EXIF 2.32, 4.6.4 A).
    """
    x, y, across, down = box
    left = y if orientation in {5, 8} else width - y - down
    top = x if orientation in {5, 6} else height - x - across
    return left, top, down, across


def hull(points: Sequence[Point]) -> Box:
    """The smallest upright box around points; all NaN where a coordinate is not finite, for validation to report."""
    across, down = [x for x, _ in points], [y for _, y in points]
    if not points or not all(map(math.isfinite, across + down)):
        return math.nan, math.nan, math.nan, math.nan
    return min(across), min(down), max(across) - min(across), max(down) - min(down)


def polygon_area(points: Sequence[Point]) -> float:
    """The area of a polygon that does not cross itself, by the shoelace formula."""
    following = [*points[1:], *points[:1]]
    return abs(sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))) / 2


def rotated_box(box: Box, degrees: float) -> list[Point]:
    """The corners of a box that is turned clockwise around its centre."""
    x, y, width, height = box
    cos, sin = math.cos(math.radians(degrees)) / 2, math.sin(math.radians(degrees)) / 2
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    return [(x + width / 2 + u * cos - v * sin, y + height / 2 + u * sin + v * cos) for u, v in corners]


def ellipse_hull(centre: Point, radii: Point, degrees: float) -> Box:
    """The smallest upright box around an ellipse that is turned clockwise around its centre."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across = math.hypot(radii[0] * cos, radii[1] * sin)
    down = math.hypot(radii[0] * sin, radii[1] * cos)
    return centre[0] - across, centre[1] - down, 2 * across, 2 * down
