"""Rules on single boxes and masks: finite, with an area, within their image, readable.

Detection needs no masks, but existing ones must not break the tools that read them. Polygons are
`[[x, y, x, y, ...], ...]` in pixels, run lengths `{"size": [height, width], "counts": ...}` down the columns, where
the counts are a list or pycocotools' text. Many tools write an empty list for a box alone.

Reference: https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/mask.py
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from pipeline.data.boxes import clip, normalise, shown
from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import Facts, Result, judge_annotations
from pipeline.data.coco import Annotation, Box, CocoDataset

_SLACK = 0.01  # pixels; COCO's own files round coordinates to two decimals
_FARTHEST = 1e9  # pixels; larger coordinates are mistakes
_OUTLINE_SLACK = 1.0  # pixels that an outline may leave the image by: some tools count centres of pixels, some corners
_OUTLINE_FARTHEST = 1e5  # pixels; pycocotools walks along an outline, and its memory grows with the length


def boxes_not_finite(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes with coordinates that are infinite, NaN or larger than any image."""

    def problem(each: Annotation) -> str:
        x, y, width, height = each.bbox
        if (
            -_FARTHEST < x < _FARTHEST
            and -_FARTHEST < y < _FARTHEST
            and -_FARTHEST < width < _FARTHEST
            and -_FARTHEST < height < _FARTHEST
        ):
            return ""
        return f"the box is {each.bbox}"

    return judge_annotations(dataset, action, problem)


def negative_sides(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes with a negative width or height; a repair swaps the corners."""

    def problem(each: Annotation) -> str:
        return f"the corners are swapped: {shown(each.bbox)}" if each.bbox[2] < 0 or each.bbox[3] < 0 else ""

    return judge_annotations(dataset, action, problem, lambda each: _with_box(each, normalise(each.bbox)))


def boxes_without_area(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes with a width or height of 0."""

    def problem(each: Annotation) -> str:
        return "" if each.bbox[2] * each.bbox[3] > 0 else f"the box has no area: {shown(each.bbox)}"

    return judge_annotations(dataset, action, problem)


def boxes_outside(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes that lie entirely outside their image."""
    sizes = _sizes(dataset)

    def problem(each: Annotation) -> str:
        x, y, across, down = each.bbox
        width, height = sizes[each.image_id]
        if x >= 0 and y >= 0 and x + across <= width and y + down <= height:
            return ""  # nearly always, and quick
        _, _, across, down = clip(each.bbox, width, height)
        inside = across > 0 and down > 0 and across * down > 0
        return "" if inside else f"nothing of {shown(each.bbox)} is in the image"

    return judge_annotations(dataset, action, problem)


def boxes_partly_outside(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find boxes that cross the edge of their image; a repair clips them."""
    sizes = _sizes(dataset)

    def problem(each: Annotation) -> str:
        x, y, across, down = each.bbox
        width, height = sizes[each.image_id]
        if x >= -_SLACK and y >= -_SLACK and x + across <= width + _SLACK and y + down <= height + _SLACK:
            return ""
        detail = f"{shown(each.bbox)} in {width}x{height}"
        return f"{detail}, clipped to {shown(clip(each.bbox, width, height))}" if action == "repair" else detail

    def repair(each: Annotation) -> Annotation:
        return _with_box(each, clip(each.bbox, *sizes[each.image_id]))

    return judge_annotations(dataset, action, problem, repair)


def tiny_boxes(dataset: CocoDataset, _: Facts, action: Action, *, shortest: float) -> Result:
    """Find objects with a side below `shortest` pixels; crowd regions may have any size."""

    def problem(each: Annotation) -> str:
        if each.iscrowd or (each.bbox[2] >= shortest and each.bbox[3] >= shortest):
            return ""
        return f"{shown(each.bbox)}: a side is below {shortest:g}"

    return judge_annotations(dataset, action, problem)


def covering_boxes(dataset: CocoDataset, _: Facts, action: Action, *, share: float) -> Result:
    """Find objects that cover at least this share of their image, such as image labels written as boxes."""
    sizes = _sizes(dataset)
    least = share * min((width * height for width, height in sizes.values()), default=0)

    def problem(each: Annotation) -> str:
        if each.iscrowd or each.bbox[2] * each.bbox[3] < least:
            return ""
        width, height = sizes[each.image_id]
        _, _, across, down = clip(each.bbox, width, height)
        covered = across * down / (width * height)
        return f"covers {covered:.1%} of the image" if covered >= share else ""

    return judge_annotations(dataset, action, problem)


def wrong_areas(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find areas that are not above 0 or exceed the box's; evaluation sorts objects into sizes by their area."""

    def problem(each: Annotation) -> str:
        box = each.bbox[2] * each.bbox[3]
        # a mask may be larger than the box by a part of a pixel
        return "" if 0 < each.area <= box * 1.001 + 1 else f"the area is {each.area:g}, the box's {box:g}"

    return judge_annotations(dataset, action, problem, lambda each: replace(each, area=each.bbox[2] * each.bbox[3]))


def malformed_segmentations(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find masks that cannot be read; a repair removes the mask and keeps the box."""
    sizes = _sizes(dataset)

    def problem(each: Annotation) -> str:
        return _malformed(each.segmentation, *sizes[each.image_id]) if each.segmentation is not None else ""

    return judge_annotations(dataset, action, problem, _without_mask)


def segmentations_outside(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Find outlines that leave their image; a repair removes the mask and keeps the box."""
    sizes = _sizes(dataset)

    def problem(each: Annotation) -> str:
        if not isinstance(each.segmentation, list):
            return ""
        width, height = sizes[each.image_id]
        outside = any(_outside(polygon, width, height) for polygon in each.segmentation)
        return f"the outline leaves the image of {width}x{height}" if outside else ""

    return judge_annotations(dataset, action, problem, _without_mask)


def _sizes(dataset: CocoDataset) -> dict[int, tuple[int, int]]:
    return {image.id: (image.width, image.height) for image in dataset.images}


def _with_box(annotation: Annotation, box: Box) -> Annotation:
    """The annotation with a new box; its area follows where it was the old box's."""
    own = math.isclose(abs(annotation.area), abs(annotation.bbox[2] * annotation.bbox[3]), rel_tol=1e-6)
    return replace(annotation, bbox=box, area=box[2] * box[3] if own else annotation.area)


def _without_mask(annotation: Annotation) -> Annotation:
    return replace(annotation, segmentation=None)


def _outside(polygon: list[float], width: int, height: int) -> bool:
    across, down = polygon[0::2], polygon[1::2]
    far_right, far_down = width + _OUTLINE_SLACK, height + _OUTLINE_SLACK
    return min(*across, *down) < -_OUTLINE_SLACK or max(across) > far_right or max(down) > far_down


def _malformed(segmentation: Any, width: int, height: int) -> str:
    """The problem of a segmentation in an image of that size; empty for a valid one."""
    if isinstance(segmentation, list):
        return next(filter(None, map(_malformed_polygon, segmentation)), "")
    if not isinstance(segmentation, dict):
        return "the mask is neither polygons nor run lengths"
    if segmentation.get("size") != [height, width]:
        return f"the run lengths are not of the image's size, {height} x {width}: {segmentation.get('size')!s:.40}"
    counts = segmentation.get("counts")
    lengths = _decoded(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or any(each.__class__ is not int or each < 0 for each in lengths):
        return "the run lengths cannot be read"
    covered = sum(lengths)
    return "" if covered == width * height else f"the run lengths cover {covered} of {width * height} pixels"


def _malformed_polygon(polygon: Any) -> str:
    if not isinstance(polygon, list) or not set(map(type, polygon)) <= {int, float}:
        return "an outline is not a list of numbers"
    if len(polygon) < 6 or len(polygon) % 2:
        return f"an outline has {len(polygon)} numbers, not an even number of 6 or more"
    if not all(-_OUTLINE_FARTHEST <= value <= _OUTLINE_FARTHEST for value in polygon):  # NaN is in no range
        return "an outline has numbers that are no coordinates"
    return ""


def _decoded(text: str) -> list[int] | None:
    """The run lengths that pycocotools' text encodes; None where the text is malformed.

    Each is in groups of 5 bits, low ones first, in characters from '0' on. Bit 32 means that another group follows, bit
    16 in the last group that the number is negative. From the fourth on a number is the difference to the one two back.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return None if shift else lengths
