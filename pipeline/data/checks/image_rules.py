"""Rules on image files: each a picture that training and the service take, upright, and of the declared size."""

from __future__ import annotations

from dataclasses import replace

from pipeline.data.boxes import normalise, scale, turn_upright
from pipeline.data.checks.findings import Action, Facts, Finding, Result, drop_images, image_item, with_annotations
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.image_facts import ImageFacts, Kind

_UNSCALED = (1.0, 1.0)
_SAME_SHAPE = 0.02  # by which share a picture's shape may change when it is resized to whole pixels


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


def resized_images(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """The declared size is the file's; where the picture was resized after annotation, its boxes follow.

    Where no size is declared, boxes are taken to be drawn on the file's picture. Other sizes are the business of
    `unrelated_sizes`.
    """
    rule, findings, images = "wrong-image-size", [], []
    problems: dict[int, str] = {}
    scales: dict[int, tuple[float, float]] = {}
    for image in dataset.images:
        fact = facts[image.file_name]
        factors = _resized(image, fact)
        if _of_another_size(image, fact) and factors:
            problems[image.id] = _sizes(image, fact)
            scales[image.id] = factors
            boxes = "left, as no size was declared" if factors == _UNSCALED else "scaled, masks left out"
            detail = f"{problems[image.id]}; boxes {boxes}"
            findings.append(Finding(rule, "error", image_item(image), "repaired", detail, image.file_name))
            image = replace(image, width=fact.width, height=fact.height)
        images.append(image)
    if action == "drop":
        return drop_images(dataset, rule, "error", problems)
    if not problems:
        return dataset, findings
    annotations = (
        _scaled(each, *scales[each.image_id]) if scales.get(each.image_id, _UNSCALED) != _UNSCALED else each
        for each in dataset.annotations
    )
    return replace(with_annotations(dataset, annotations), images=tuple(images)), findings


def unrelated_sizes(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """No declared size is another than the file's and no scaling of it: where boxes belong cannot be known then.

    So it is with width and height exchanged: either only the numbers were, or the picture was turned, either way
    round. A repair takes the boxes to be drawn on the file's picture, on the user's word, and still drops an image with
    a box that does not fit in there.
    """
    rule = "unrelated-image-size"
    problems = {
        image.id: f"{_sizes(image, facts[image.file_name])}, which is no scaling of it"
        for image in dataset.images
        if _of_another_size(image, facts[image.file_name]) and not _resized(image, facts[image.file_name])
    }
    if not problems or action == "drop":
        return drop_images(dataset, rule, "error", problems)
    real = {image.id: facts[image.file_name] for image in dataset.images if image.id in problems}
    misfits = {each.image_id for each in dataset.annotations if not _fits(each.bbox, real.get(each.image_id))}
    dropped = {key: f"{problem}; a box does not fit in it" for key, problem in problems.items() if key in misfits}
    left, findings = drop_images(dataset, rule, "error", dropped)
    images = []
    for image in left.images:
        if image.id in real:
            detail = f"{problems[image.id]}; boxes left, as all fit in it"
            findings.append(Finding(rule, "error", image_item(image), "repaired", detail, image.file_name))
            image = replace(image, width=real[image.id].width, height=real[image.id].height)
        images.append(image)
    return replace(left, images=tuple(images)), findings


def _sideways(image: Image, fact: ImageFacts) -> bool:
    return (image.width, image.height) == fact.stored_size != (fact.width, fact.height)


def _turned(box: Box, fact: ImageFacts) -> Box:
    return turn_upright(box, fact.orientation, fact.width, fact.height)


def _of_another_size(image: Image, fact: ImageFacts) -> bool:
    return (image.width, image.height) != (fact.width, fact.height)


def _sizes(image: Image, fact: ImageFacts) -> str:
    return f"declared {image.width}x{image.height}, the file has {fact.width}x{fact.height}"


def _resized(image: Image, fact: ImageFacts) -> tuple[float, float] | None:
    """The factors from the declared to the real size; None where neither is the other resized.

    Sides are whole pixels, so that the shapes of both may differ by up to a pixel of either, but not by more than a
    fiftieth on account of a declared size of few pixels.
    """
    if min(image.width, image.height) < 1:
        return _UNSCALED
    across, down = fact.width / image.width, fact.height / image.height
    apart = abs(image.width * fact.height - image.height * fact.width)
    of_declared = min(max(fact.width, fact.height), _SAME_SHAPE * image.width * fact.height)
    return (across, down) if apart <= max(image.width, image.height, of_declared) else None


def _fits(box: Box, fact: ImageFacts | None) -> bool:
    """Whether a box lies within a picture, to a pixel; None: it is not asked."""
    if fact is None:
        return True
    x, y, across, down = normalise(box)
    return min(x, y) >= -1 and x + across <= fact.width + 1 and y + down <= fact.height + 1


def _scaled(annotation: Annotation, across: float, down: float) -> Annotation:
    box = scale(annotation.bbox, across, down)
    return replace(annotation, bbox=box, area=annotation.area * across * down, segmentation=None)
