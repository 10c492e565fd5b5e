"""Rules on single boxes: finite, wider and higher than nothing, within their image, of a size that makes sense."""

from __future__ import annotations

import math
from dataclasses import replace

from pipeline.data.boxes import clip, normalise, shown
from pipeline.data.checks.findings import Action, Facts, Result, judge_annotations
from pipeline.data.coco import Annotation, Box, CocoDataset

_SLACK = 0.01  # pixels; COCO's own files round coordinates to two decimals
_FARTHEST = 1e9  # pixels; beyond it no coordinate is meant


def boxes_not_finite(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Boxes are of finite numbers, and none of a size that no image has."""

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

    return judge_annotations(dataset, "box-not-finite", "error", action, problem)


def negative_sides(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Width and height are not negative: a repair takes the same two corners the other way round."""

    def problem(each: Annotation) -> str:
        return f"the corners are swapped: {shown(each.bbox)}" if each.bbox[2] < 0 or each.bbox[3] < 0 else ""

    def repair(each: Annotation) -> Annotation:
        return _with_box(each, normalise(each.bbox))

    return judge_annotations(dataset, "negative-box-side", "error", action, problem, repair)


def boxes_without_area(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Boxes are wider and higher than nothing."""

    def problem(each: Annotation) -> str:
        return "" if each.bbox[2] * each.bbox[3] > 0 else f"the box has no area: {shown(each.bbox)}"

    return judge_annotations(dataset, "box-without-area", "error", action, problem)


def boxes_outside(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Something of each box is in its image."""
    sizes = _sizes(dataset)

    def problem(each: Annotation) -> str:
        x, y, across, down = each.bbox
        width, height = sizes[each.image_id]
        if x >= 0 and y >= 0 and x + across <= width and y + down <= height:
            return ""  # nearly always, and soon said
        _, _, across, down = clip(each.bbox, width, height)
        inside = across > 0 and down > 0 and across * down > 0
        return "" if inside else f"nothing of {shown(each.bbox)} is in the image"

    return judge_annotations(dataset, "box-outside-image", "error", action, problem)


def boxes_partly_outside(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Boxes lie within their image: a repair clips them to it."""
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

    return judge_annotations(dataset, "box-partly-outside", "warning", action, problem, repair)


def tiny_boxes(dataset: CocoDataset, _: Facts, action: Action, *, shortest: float) -> Result:
    """An object's shorter side has `shortest` pixels; regions not judged may be any size."""

    def problem(each: Annotation) -> str:
        if each.iscrowd or (each.bbox[2] >= shortest and each.bbox[3] >= shortest):
            return ""
        return f"{shown(each.bbox)}: a side is below {shortest:g}"

    return judge_annotations(dataset, "tiny-box", "warning", action, problem)


def covering_boxes(dataset: CocoDataset, _: Facts, action: Action, *, share: float) -> Result:
    """No object takes up this share of its image, as whole-image labels put in as boxes do."""
    sizes = _sizes(dataset)

    least = share * min((width * height for width, height in sizes.values()), default=0)

    def problem(each: Annotation) -> str:
        if each.iscrowd or each.bbox[2] * each.bbox[3] < least:
            return ""
        width, height = sizes[each.image_id]
        _, _, across, down = clip(each.bbox, width, height)
        covered = across * down / (width * height)
        return f"covers {covered:.1%} of the image" if covered >= share else ""

    return judge_annotations(dataset, "covering-box", "warning", action, problem)


def wrong_areas(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """An object's area is above 0 and at most its box's: evaluation sorts objects into sizes by it."""

    def problem(each: Annotation) -> str:
        box = each.bbox[2] * each.bbox[3]
        # masks may reach over the box by a part of a pixel
        return "" if 0 < each.area <= box * 1.001 + 1 else f"the area is {each.area:g}, the box's {box:g}"

    def repair(each: Annotation) -> Annotation:
        return replace(each, area=each.bbox[2] * each.bbox[3])

    return judge_annotations(dataset, "wrong-area", "warning", action, problem, repair)


def _sizes(dataset: CocoDataset) -> dict[int, tuple[int, int]]:
    return {image.id: (image.width, image.height) for image in dataset.images}


def _with_box(annotation: Annotation, box: Box) -> Annotation:
    """With a new box, whose area becomes the annotation's where it was the old box's too."""
    own = math.isclose(abs(annotation.area), abs(annotation.bbox[2] * annotation.bbox[3]), rel_tol=1e-6)
    return replace(annotation, bbox=box, area=box[2] * box[3] if own else annotation.area)
