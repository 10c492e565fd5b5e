"""Geometry of boxes `(x, y, width, height)` in pixels, origin at the top left of the image."""

from __future__ import annotations

from pipeline.data.coco import Box


def clip(box: Box, width: float, height: float) -> Box:
    """The part of a box within an image of that size; a side of 0 or less where there is none."""
    x, y, across, down = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + across, float(width)) - left, min(y + down, float(height)) - top


def normalise(box: Box) -> Box:
    """The box between the same corners with sides of 0 or more: tools that take any two corners give negative ones."""
    x, y, across, down = box
    return min(x, x + across), min(y, y + down), abs(across), abs(down)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes with sides above 0, 0 to 1."""
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
    """A box drawn on a picture as stored, on the picture shown the way EXIF says.

    Args:
        box: On the stored picture.
        orientation: 5 to 8, those that swap width and height (EXIF 2.32, 4.6.4 A).
        width: Pixels across of the upright picture.
        height: Pixels down of the upright picture.
    """
    x, y, across, down = box
    left = y if orientation in {5, 8} else width - y - down
    top = x if orientation in {5, 6} else height - x - across
    return left, top, down, across
