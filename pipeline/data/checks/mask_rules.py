"""Rules on segmentations: detection needs none, but what is there must not break the tools that read it.

Polygons are `[[x, y, x, y, ...], ...]` in pixels, run lengths `{"size": [height, width], "counts": ...}` down the
columns, the counts a list or pycocotools' text. An empty list, as many tools write for a box alone, is none.

Reference: https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/mask.py
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pipeline.data.checks.findings import Action, Facts, Result, judge_annotations
from pipeline.data.coco import Annotation, CocoDataset

_OUTSIDE = 1.0  # pixels that an outline may leave the image by: some tools count pixels' centres, some their corners
_FARTHEST = 1e5  # pixels; pycocotools walks along an outline, and its memory grows with the length


def malformed_segmentations(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Segmentations can be read: a repair leaves the box and takes the mask away."""
    sizes = {image.id: (image.width, image.height) for image in dataset.images}

    def problem(each: Annotation) -> str:
        return _malformed(each.segmentation, *sizes[each.image_id]) if each.segmentation is not None else ""

    return judge_annotations(dataset, "malformed-segmentation", "error", action, problem, _without_mask)


def segmentations_outside(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Outlines lie within their image: a repair leaves the box and takes the mask away."""
    sizes = {image.id: (image.width, image.height) for image in dataset.images}

    def problem(each: Annotation) -> str:
        if not isinstance(each.segmentation, list):
            return ""
        width, height = sizes[each.image_id]
        outside = any(_outside(polygon, width, height) for polygon in each.segmentation)
        return f"the outline leaves the image of {width}x{height}" if outside else ""

    return judge_annotations(dataset, "segmentation-outside-image", "warning", action, problem, _without_mask)


def _without_mask(annotation: Annotation) -> Annotation:
    return replace(annotation, segmentation=None)


def _outside(polygon: list[float], width: int, height: int) -> bool:
    across, down = polygon[0::2], polygon[1::2]
    return (
        min(across) < -_OUTSIDE
        or min(down) < -_OUTSIDE
        or max(across) > width + _OUTSIDE
        or max(down) > height + _OUTSIDE
    )


def _malformed(segmentation: Any, width: int, height: int) -> str:
    """What is wrong with a segmentation in an image of that size; empty where nothing is."""
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
    if not all(-_FARTHEST <= value <= _FARTHEST for value in polygon):  # NaN is in no range
        return "an outline has numbers that are no coordinates"
    return ""


def _decoded(text: str) -> list[int] | None:
    """The run lengths that pycocotools' text stands for; None where it stands for none.

    Each is in groups of 5 bits, low ones first, in characters from '0' on, whose bit 32 says that another follows and
    whose bit 16, in the last, that the number is negative; from the fourth on it is the difference to the one two back.
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
