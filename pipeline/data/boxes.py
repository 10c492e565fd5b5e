"""Geometry of boxes `(x, y, width, height)` in pixels, origin at the top left of the image."""

from __future__ import annotations

from pipeline.data.coco import Box


def clip(box: Box, width: float, height: float) -> Box:
    """The part of a box within an image of that size; a side of 0 or less where there is none."""
    x, y, across, down = box
    left, top = max(x, 0.0), max(y, 0.0)
    return left, top, min(x + across, float(width)) - left, min(y + down, float(height)) - top


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
