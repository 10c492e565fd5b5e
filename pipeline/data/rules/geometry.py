"""Rules on where things are: pictures upright and of the declared size, boxes sound and within them."""

from __future__ import annotations

import math
from dataclasses import replace

from pipeline.data.boxes import clip, scale, turn_upright
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.rules.findings import Facts, Finding, Result, annotation_item, drop_annotations, image_item
from pipeline.data.rules.inspection import ImageFacts

_SLACK = 0.01  # pixels; COCO's own files round coordinates to two decimals


def exif_orientation(dataset: CocoDataset, facts: Facts) -> Result:
    """Pictures are upright as stored; boxes drawn on the stored picture turn with it.

    Where stored and upright picture have the same size, boxes are taken to be drawn on the upright one, as it is what
    annotation tools show.
    """
    rule, findings, turned = "EXIF orientation", [], {}
    for image in dataset.images:
        fact = facts[image.file_name]
        if fact.orientation == 1:
            continue
        declared = (image.width, image.height)
        sideways = declared == fact.stored_size != (fact.width, fact.height)
        detail = f"orientation {fact.orientation}: written upright, boxes {'turned with it' if sideways else 'left'}"
        findings.append(Finding(rule, image_item(image), "fixed", detail))
        if sideways:
            turned[image.id] = fact
    images = (
        replace(image, width=turned[image.id].width, height=turned[image.id].height) if image.id in turned else image
        for image in dataset.images
    )
    annotations = (
        replace(each, bbox=_turned(each.bbox, turned[each.image_id]), segmentation=None)
        if each.image_id in turned
        else each
        for each in dataset.annotations
    )
    return replace(dataset, images=tuple(images), annotations=tuple(annotations)), findings


def declared_size(dataset: CocoDataset, facts: Facts) -> Result:
    """The declared size is the file's; where the picture was resized after annotation, its boxes follow."""
    rule, findings, scales, images = "declared size", [], {}, []
    for image in dataset.images:
        fact = facts[image.file_name]
        if (image.width, image.height) != (fact.width, fact.height):
            factors = _resized(image, fact)
            if factors:
                scales[image.id] = factors
            detail = f"{image.width}x{image.height}, the file has {fact.width}x{fact.height}; boxes "
            findings.append(Finding(rule, image_item(image), "fixed", detail + ("scaled" if factors else "left")))
            image = replace(image, width=fact.width, height=fact.height)
        images.append(image)
    annotations = (
        _scaled(each, *scales[each.image_id]) if each.image_id in scales else each for each in dataset.annotations
    )
    return replace(dataset, images=tuple(images), annotations=tuple(annotations)), findings


def unsound_boxes(dataset: CocoDataset, _: Facts) -> Result:
    """Boxes are of finite numbers, and wider and higher than nothing."""

    def problem(each: Annotation) -> str:
        if not all(map(math.isfinite, each.bbox)):
            return f"the box is not finite: {each.bbox}"
        return "" if min(each.bbox[2:]) > 0 else f"the box has no area: {each.bbox}"

    return drop_annotations(dataset, "unsound box", problem)


def boxes_outside(dataset: CocoDataset, _: Facts) -> Result:
    """Boxes lie within their image: they are clipped to it."""
    rule, findings, annotations = "box outside image", [], []
    sizes = {image.id: (image.width, image.height) for image in dataset.images}
    for each in dataset.annotations:
        clipped = clip(each.bbox, *sizes[each.image_id])
        if min(clipped[2:]) <= 0:
            findings.append(Finding(rule, annotation_item(each), "dropped", f"nothing of {each.bbox} is in the image"))
            continue
        if max(abs(new - old) for new, old in zip(clipped, each.bbox, strict=True)) > _SLACK:
            findings.append(Finding(rule, annotation_item(each), "fixed", f"{each.bbox} clipped to {clipped}"))
            each = replace(each, bbox=clipped)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def duplicate_boxes(dataset: CocoDataset, _: Facts) -> Result:
    """No box twice for one category; the same object's for two is kept, and said; a region may be ignored for many."""
    rule, findings, annotations = "duplicate box", [], []
    seen: dict[tuple[int, Box, int], set[int]] = {}
    for each in dataset.annotations:
        categories = seen.setdefault((each.image_id, each.bbox, each.iscrowd), set())
        if each.category_id in categories:
            findings.append(Finding(rule, annotation_item(each), "dropped", f"{each.bbox} is there already"))
            continue
        if categories and not each.iscrowd:
            findings.append(Finding(rule, annotation_item(each), "kept", f"{each.bbox} has another category too"))
        categories.add(each.category_id)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def wrong_areas(dataset: CocoDataset, _: Facts) -> Result:
    """An object's area is above 0 and at most its box's: evaluation sorts objects into sizes by it."""
    rule, findings, annotations = "wrong area", [], []
    for each in dataset.annotations:
        box_area = each.bbox[2] * each.bbox[3]
        if not 0 < each.area <= box_area * 1.001 + 1:  # masks may reach over the box by a part of a pixel
            findings.append(
                Finding(rule, annotation_item(each), "fixed", f"{each.area:g} became the box's {box_area:g}")
            )
            each = replace(each, area=box_area)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def _turned(box: Box, fact: ImageFacts) -> Box:
    return turn_upright(box, fact.orientation, fact.width, fact.height)


def _resized(image: Image, fact: ImageFacts) -> tuple[float, float] | None:
    """The factors from the declared to the real size, where one is the other resized to within a pixel."""
    if min(image.width, image.height) < 1:
        return None
    across, down = fact.width / image.width, fact.height / image.height
    return (across, down) if abs(image.height * across - fact.height) <= 1 else None


def _scaled(annotation: Annotation, across: float, down: float) -> Annotation:
    box = scale(annotation.bbox, across, down)
    return replace(annotation, bbox=box, area=annotation.area * across * down, segmentation=None)
