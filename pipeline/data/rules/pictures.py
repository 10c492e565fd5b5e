"""Rules on image files: each a picture that training and the service take, upright, and of the declared size."""

from __future__ import annotations

from dataclasses import replace

from pipeline.data.boxes import scale, turn_upright
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.rules.findings import (
    Action,
    Facts,
    Finding,
    Result,
    drop_images,
    image_item,
    with_annotations,
)
from pipeline.data.rules.inspection import ImageFacts, Kind


def unreadable_images(dataset: CocoDataset, facts: Facts, _: Action, *, rule: str, kind: Kind) -> Result:
    """No image's file is of this kind of unreadable."""
    broken = ((image, facts[image.file_name]) for image in dataset.images if facts[image.file_name].problem)
    problems = {image.id: fact.problem for image, fact in broken if (fact.kind or "undecodable") == kind}
    return drop_images(dataset, rule, "error", problems)


def exif_orientation(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """Pictures are upright as stored; boxes drawn on the stored picture turn with it.

    Where stored and upright picture have the same size, boxes are taken to be drawn on the upright one, as it is what
    annotation tools show.
    """
    rule, tilted = "exif-orientation", [each for each in dataset.images if facts[each.file_name].orientation != 1]
    if action == "drop":
        problems = {image.id: f"orientation {facts[image.file_name].orientation}" for image in tilted}
        return drop_images(dataset, rule, "warning", problems)
    turned = {image.id: facts[image.file_name] for image in tilted if _sideways(image, facts[image.file_name])}
    findings = []
    for image in tilted:
        boxes = "turned with it, masks left out" if image.id in turned else "left"
        detail = f"orientation {facts[image.file_name].orientation}: written upright, boxes {boxes}"
        findings.append(Finding(rule, "warning", image_item(image), "repaired", detail, image.file_name))
    if not turned:
        return dataset, findings
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
    return replace(with_annotations(dataset, annotations), images=tuple(images)), findings


def declared_size(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """The declared size is the file's; where the picture was resized after annotation, its boxes follow."""
    rule, findings, images = "wrong-image-size", [], []
    problems: dict[int, str] = {}
    scales: dict[int, tuple[float, float]] = {}
    for image in dataset.images:
        fact = facts[image.file_name]
        if (image.width, image.height) != (fact.width, fact.height):
            problems[image.id] = f"declared {image.width}x{image.height}, the file has {fact.width}x{fact.height}"
            factors = _resized(image, fact)
            scales |= {image.id: factors} if factors else {}
            detail = f"{problems[image.id]}; boxes {'scaled, masks left out' if factors else 'left'}"
            findings.append(Finding(rule, "error", image_item(image), "repaired", detail, image.file_name))
            image = replace(image, width=fact.width, height=fact.height)
        images.append(image)
    if action == "drop":
        return drop_images(dataset, rule, "error", problems)
    if not problems:
        return dataset, findings
    annotations = (
        _scaled(each, *scales[each.image_id]) if each.image_id in scales else each for each in dataset.annotations
    )
    return replace(with_annotations(dataset, annotations, changed=bool(scales)), images=tuple(images)), findings


def _sideways(image: Image, fact: ImageFacts) -> bool:
    return (image.width, image.height) == fact.stored_size != (fact.width, fact.height)


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
