"""Rules on boxes and masks: finite, with an area, within their image, readable, and each object boxed once.

Detection needs no masks, but existing ones must not break the tools that read them. Polygons are
`[[x, y, x, y, ...], ...]` in pixels, run lengths `{"size": [height, width], "counts": ...}` down the columns, where
the counts are a list or pycocotools' text. Many tools write an empty list for a box alone.

Reference: https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/mask.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.boxes import clip, normalise, overlap, shown
from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import Bools, Floats, Result, Subject, first_positions, settle, settle_boxes
from pipeline.data.coco import Annotation, Box

_SLACK = 0.01  # pixels; COCO's own files round coordinates to two decimals
_FARTHEST = 1e9  # pixels; larger coordinates are mistakes
_OUTLINE_SLACK = 1.0  # pixels that an outline may leave the image by: some tools count centres of pixels, some corners
_OUTLINE_FARTHEST = 1e5  # pixels; pycocotools walks along an outline, and its memory grows with the length
_COVERING = 0.98  # share of its image from which on a box covers it
_OVERLAP = 0.9  # intersection over union above which two boxes of a category are one object's
_WINDOW = 64  # boxes that start closely after another, up to which each pair is compared

Integers = npt.NDArray[np.int64]


def boxes_not_finite(subject: Subject, action: Action) -> Result:
    """Find boxes with coordinates that are infinite, NaN or larger than any image."""
    wrong = ~(np.abs(subject.boxes) < _FARTHEST).all(axis=1)
    return settle_boxes(subject, action, wrong, lambda each: f"the box is {each.bbox}")


def negative_sides(subject: Subject, action: Action) -> Result:
    """Find boxes with a negative width or height; a repair swaps the corners."""
    return settle_boxes(
        subject,
        action,
        (subject.boxes[:, 2:] < 0).any(axis=1),
        lambda each: f"the corners are swapped: {shown(each.bbox)}",
        lambda each: _with_box(each, normalise(each.bbox)),
    )


def boxes_without_area(subject: Subject, action: Action) -> Result:
    """Find boxes with a width or height of 0."""
    wrong = ~(subject.boxes[:, 2:].prod(axis=1) > 0)
    return settle_boxes(subject, action, wrong, lambda each: f"the box has no area: {shown(each.bbox)}")


def boxes_outside(subject: Subject, action: Action) -> Result:
    """Find boxes that lie entirely outside their image."""
    inside = _sides_inside(subject)
    wrong = (inside <= 0).any(axis=1) | ~(inside.prod(axis=1) > 0)
    return settle_boxes(subject, action, wrong, lambda each: f"nothing of {shown(each.bbox)} is in the image")


def boxes_partly_outside(subject: Subject, action: Action) -> Result:
    """Find boxes that cross the edge of their image; a repair clips them."""
    sizes = subject.image_sizes
    low, high = subject.boxes[:, :2], subject.boxes[:, :2] + subject.boxes[:, 2:]
    return settle_boxes(
        subject,
        action,
        ((low < -_SLACK) | (high > subject.sizes + _SLACK)).any(axis=1),
        lambda each: "{} in {}x{}".format(shown(each.bbox), *sizes[each.image_id]),
        lambda each: _with_box(each, clip(each.bbox, *sizes[each.image_id])),
    )


def tiny_boxes(subject: Subject, action: Action) -> Result:
    """Find objects with a side below the shortest allowed; crowd regions may have any size."""
    wrong = subject.objects & (subject.boxes[:, 2:] < subject.min_box_side).any(axis=1)
    return settle_boxes(
        subject, action, wrong, lambda each: f"{shown(each.bbox)}: a side is below {subject.min_box_side:g}"
    )


def covering_boxes(subject: Subject, action: Action) -> Result:
    """Find objects that cover nearly all of their image, such as image labels written as boxes."""
    covered = _sides_inside(subject).prod(axis=1) / subject.sizes.prod(axis=1)
    wrong = subject.objects & (covered >= _COVERING)
    details = {row: f"covers {covered[row]:.1%} of the image" for row in np.flatnonzero(wrong).tolist()}
    return settle(subject, "annotations", details, action)


def duplicate_boxes(subject: Subject, action: Action) -> Result:
    """Find boxes that repeat another box of their category."""
    annotations = subject.dataset.annotations
    keys = [(each.image_id, each.category_id, each.bbox, each.iscrowd) for each in annotations]
    details = {
        row: f"{shown(annotations[row].bbox)} is there already, as {_named(annotations[first])}"
        for row, first in first_positions(keys).items()
    }
    return settle(subject, "annotations", details, action)


def boxes_of_two_categories(subject: Subject, action: Action) -> Result:
    """Find boxes that repeat a box of another category; a crowd region may belong to several."""
    annotations = subject.dataset.annotations
    names = {category.id: category.name for category in subject.dataset.categories}
    details = {}
    keys = [(each.image_id, each.bbox) if not each.iscrowd else row for row, each in enumerate(annotations)]
    for row, first in first_positions(keys).items():
        each, other = annotations[row], annotations[first]
        if each.category_id != other.category_id:
            mine, others = names[each.category_id], names[other.category_id]
            details[row] = f"{shown(each.bbox)} is '{mine}' here and '{others}' as {_named(other)}"
    return settle(subject, "annotations", details, action)


def overlapping_boxes(subject: Subject, action: Action) -> Result:
    """Find boxes of one category that overlap almost wholly, such as an object boxed twice.

    The first of such boxes counts as the object, and later ones are compared with it. `duplicate_boxes` handles equal
    boxes.
    """
    annotations, rows = subject.dataset.annotations, np.flatnonzero(subject.objects)
    objects = [annotations[row] for row in rows.tolist()]
    numbers: dict[tuple[int, int], int] = {}  # of groups: ids may have more than 64 bits
    groups = [numbers.setdefault((each.image_id, each.category_id), len(numbers)) for each in objects]
    details = {}
    for later, earlier in _first_overlapped(subject.boxes[rows], np.array(groups, np.int64)).items():
        each, other = objects[later], objects[earlier]
        if each.bbox != other.bbox:
            shared = overlap(each.bbox, other.bbox)
            details[int(rows[later])] = f"{shown(each.bbox)} overlaps {_named(other)} by {shared:.0%}"
    return settle(subject, "annotations", details, action)


def _named(other: Annotation) -> str:
    """How a finding names the annotation that one is compared with."""
    return f"annotation {other.id}" + (f" ({other.source})" if other.source else "")


def _first_overlapped(boxes: Floats, group: Integers) -> dict[int, int]:
    """The earlier box of its group that a box overlaps too much, by position; a box of which this holds is no other's.

    Two boxes that overlap by more than t have left edges closer than w(1-t), where w is the width of the left one: in
    the order of left edges, each box is compared with the few that follow so closely. In a group where very many do,
    boxes are instead taken one by one, each with all that it overlaps.
    """
    order = np.lexsort((boxes[:, 0], group))
    left, kind = boxes[order, 0], group[order]
    last = left + boxes[order, 2] * (1 - _OVERLAP) + 1e-9 * (np.abs(left) + boxes[order, 2])  # for rounding
    pairs = np.zeros((0, 2), np.int64)
    one = np.arange(len(order))
    for step in range(1, _WINDOW):
        one = one[one < len(order) - step]
        one = one[(kind[one + step] == kind[one]) & (left[one + step] <= last[one])]
        both = np.sort(np.stack([order[one], order[one + step]], axis=1), axis=1)
        pairs = np.concatenate([pairs, both[_overlap_too_much(boxes[both[:, 0]], boxes[both[:, 1]])]])
        if not len(one):
            break
    crowded = np.unique(kind[one])
    pairs = pairs[~np.isin(group[pairs[:, 0]], crowded)]
    found: dict[int, int] = {}
    for earlier, later in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist():
        if earlier not in found:
            found.setdefault(later, earlier)
    for number in crowded:
        rows = np.flatnonzero(group == number)
        while len(rows):
            first, rows = int(rows[0]), rows[1:]
            near = _overlap_too_much(boxes[first], boxes[rows])
            found |= dict.fromkeys(rows[near].tolist(), first)
            rows = rows[~near]
    return found


def _overlap_too_much(one: Floats, other: Floats) -> Bools:
    """Which pairs of boxes `(N, 4)` overlap by more than the limit, as `overlap` measures it."""
    ends = np.minimum(one[..., :2] + one[..., 2:], other[:, :2] + other[:, 2:])
    shared = np.maximum(ends - np.maximum(one[..., :2], other[:, :2]), 0).prod(axis=1)
    too_much: Bools = shared / (one[..., 2:].prod(axis=-1) + other[:, 2:].prod(axis=1) - shared) > _OVERLAP
    return too_much


def wrong_areas(subject: Subject, action: Action) -> Result:
    """Find areas that are not above 0 or exceed the box's; evaluation sorts objects into sizes by their area."""
    areas = np.array([each.area for each in subject.dataset.annotations], np.float64)
    boxes = subject.boxes[:, 2:].prod(axis=1)
    return settle_boxes(
        subject,
        action,
        ~((areas > 0) & (areas <= boxes * 1.001 + 1)),  # a mask may be larger than the box by a part of a pixel
        lambda each: f"the area is {each.area:g}, the box's {each.bbox[2] * each.bbox[3]:g}",
        lambda each: replace(each, area=each.bbox[2] * each.bbox[3]),
    )


def _settle_masks(subject: Subject, action: Action, problem: Callable[[Any, int, int], str]) -> Result:
    """Find masks with a problem; a repair removes the mask and keeps the box."""

    def detail(each: Annotation) -> str:
        return "" if each.segmentation is None else problem(each.segmentation, *subject.image_sizes[each.image_id])

    wrong = [bool(detail(each)) for each in subject.dataset.annotations]
    return settle_boxes(subject, action, wrong, detail, lambda each: replace(each, segmentation=None))


def _sides_inside(subject: Subject) -> Floats:
    """Width and height of the part of each box within its image, `(N, 2)`; 0 or less without such a part."""
    low, high = subject.boxes[:, :2], subject.boxes[:, :2] + subject.boxes[:, 2:]
    sides: Floats = np.minimum(high, subject.sizes) - np.maximum(low, 0)
    return sides


def _with_box(annotation: Annotation, box: Box) -> Annotation:
    """The annotation with a new box; its area follows where it was the old box's."""
    own = math.isclose(abs(annotation.area), abs(annotation.bbox[2] * annotation.bbox[3]), rel_tol=1e-6)
    return replace(annotation, bbox=box, area=box[2] * box[3] if own else annotation.area)


def _outside(segmentation: Any, width: int, height: int) -> str:
    for polygon in segmentation if isinstance(segmentation, list) else ():
        for line, side in ((polygon[0::2], width), (polygon[1::2], height)):
            if min(line) < -_OUTLINE_SLACK or max(line) > side + _OUTLINE_SLACK:
                return f"the outline leaves the image of {width}x{height}"
    return ""


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


malformed_segmentations = partial(_settle_masks, problem=_malformed)
segmentations_outside = partial(_settle_masks, problem=_outside)
