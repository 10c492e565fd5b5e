"""Rules on image files: each can be decoded by training and the service, is upright, and has the declared size."""

from __future__ import annotations

from dataclasses import replace

from pipeline.data.boxes import normalise, scale, turn_upright
from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import (
    Facts,
    Problem,
    Result,
    drop_images,
    image_problem,
    image_problems,
    map_annotations,
)
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.images import ImageFacts, Kind

_UNSCALED = (1.0, 1.0)
_SAME_SHAPE = 0.02  # share by which an image's aspect ratio may change when it is resized to whole pixels


def unreadable_images(dataset: CocoDataset, facts: Facts, _: Action, *, kind: Kind) -> Result:
    """Find images whose file has this kind of problem."""
    broken = ((image, facts[image.file_name]) for image in dataset.images if facts[image.file_name].problem)
    return drop_images(
        dataset, {image.id: fact.problem for image, fact in broken if (fact.kind or "undecodable") == kind}
    )


def exif_orientation(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """Find images that are stored rotated; a repair turns the boxes drawn on the stored image with it.

    Where the stored and the upright image have the same size, boxes are taken to be drawn on the upright one, which
    annotation tools show.
    """
    tilted = [each for each in dataset.images if facts[each.file_name].orientation != 1]
    if action == "drop":
        return drop_images(dataset, {each.id: f"orientation {facts[each.file_name].orientation}" for each in tilted})
    turned = {image.id: facts[image.file_name] for image in tilted if _sideways(image, facts[image.file_name])}
    found = []
    for image in tilted:
        boxes = "turned with it, masks left out" if image.id in turned else "left"
        detail = f"orientation {facts[image.file_name].orientation}: written upright, boxes {boxes}"
        found.append(image_problem(image, "repair", detail))
    if not turned:
        return dataset, found

    def upright(each: Annotation) -> Annotation:
        fact = turned.get(each.image_id)
        if not fact:
            return each
        box = turn_upright(each.bbox, fact.orientation, fact.width, fact.height)
        return replace(each, bbox=box, segmentation=None)

    return _with_sizes(map_annotations(dataset, upright), turned), found


def resized_images(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """Find images of another size than declared; if the image was resized after annotation, a repair scales its boxes.

    Where no size is declared, boxes are taken to be drawn on the file's image. `unrelated_sizes` handles other sizes.
    """
    real: dict[int, ImageFacts] = {}
    scales: dict[int, tuple[float, float]] = {}
    problems: dict[int, str] = {}
    found: list[Problem] = []
    for image in dataset.images:
        fact = facts[image.file_name]
        factors = _factors(image, fact)
        if _has_other_size(image, fact) and factors:
            real[image.id], scales[image.id], problems[image.id] = fact, factors, _sizes(image, fact)
            boxes = "left, as no size was declared" if factors == _UNSCALED else "scaled, masks left out"
            found.append(image_problem(image, "repair", f"{problems[image.id]}; boxes {boxes}"))
    if action == "drop":
        return drop_images(dataset, problems)
    if not problems:
        return dataset, found

    def scaled(each: Annotation) -> Annotation:
        across, down = scales.get(each.image_id, _UNSCALED)
        if (across, down) == _UNSCALED:
            return each
        box = scale(each.bbox, across, down)
        return replace(each, bbox=box, area=each.area * across * down, segmentation=None)

    return _with_sizes(map_annotations(dataset, scaled), real), found


def unrelated_sizes(dataset: CocoDataset, facts: Facts, action: Action) -> Result:
    """Find declared sizes that are no scaling of the file's: the positions of the boxes are unknown.

    Exchanged width and height are such a case: either only the numbers were exchanged, or the image was turned, in one
    of two directions. A repair, which the user must choose, takes the boxes to be drawn on the file's image, and drops
    an image with a box that does not fit.
    """
    problems = {
        image.id: f"{_sizes(image, facts[image.file_name])}, which is no scaling of it"
        for image in dataset.images
        if _has_other_size(image, facts[image.file_name]) and not _factors(image, facts[image.file_name])
    }
    if not problems or action == "drop":
        return drop_images(dataset, problems)
    real = {image.id: facts[image.file_name] for image in dataset.images if image.id in problems}
    misfits = {
        each.image_id
        for each in dataset.annotations
        if each.image_id in real and not _fits(each.bbox, real[each.image_id])
    }
    left, found = drop_images(dataset, {key: f"{problems[key]}; a box does not fit in it" for key in misfits})
    details = {key: f"{problem}; boxes left, as all fit in it" for key, problem in problems.items()}
    found += image_problems(left.images, "repair", details)
    return _with_sizes(left, real), found


def _with_sizes(dataset: CocoDataset, real: dict[int, ImageFacts]) -> CocoDataset:
    """The dataset with the real sizes of some images, by id."""
    images = (
        replace(image, width=real[image.id].width, height=real[image.id].height) if image.id in real else image
        for image in dataset.images
    )
    return replace(dataset, images=tuple(images))


def _sideways(image: Image, fact: ImageFacts) -> bool:
    return (image.width, image.height) == fact.stored_size != (fact.width, fact.height)


def _has_other_size(image: Image, fact: ImageFacts) -> bool:
    return (image.width, image.height) != (fact.width, fact.height)


def _sizes(image: Image, fact: ImageFacts) -> str:
    return f"declared {image.width}x{image.height}, the file has {fact.width}x{fact.height}"


def _factors(image: Image, fact: ImageFacts) -> tuple[float, float] | None:
    """The factors from the declared to the real size; None where neither is the other resized.

    Sides are whole pixels, so that the aspect ratios may differ by a pixel of either side, but by no more than a
    fiftieth because of a declared size of few pixels.
    """
    if min(image.width, image.height) < 1:
        return _UNSCALED
    across, down = fact.width / image.width, fact.height / image.height
    apart = abs(image.width * fact.height - image.height * fact.width)
    of_declared = min(max(fact.width, fact.height), _SAME_SHAPE * image.width * fact.height)
    return (across, down) if apart <= max(image.width, image.height, of_declared) else None


def _fits(box: Box, fact: ImageFacts) -> bool:
    """Whether a box lies within an image, to a pixel."""
    x, y, across, down = normalise(box)
    return min(x, y) >= -1 and x + across <= fact.width + 1 and y + down <= fact.height + 1
