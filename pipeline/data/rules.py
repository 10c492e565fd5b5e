"""The rules a data set is held to: small pure functions from a data set to a sounder one and what was found.

Every rule leaves a data set that it finds nothing more to change in, and none undoes the work of one before it: applied
again, all of them change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count

from pipeline.data.boxes import clip, scale, turn_upright
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.findings import Finding
from pipeline.data.inspection import ImageFacts

Facts = Mapping[str, ImageFacts]
Result = tuple[CocoDataset, list[Finding]]
Rule = Callable[[CocoDataset, Facts], Result]

_SLACK = 0.01  # pixels; COCO's own files round coordinates to two decimals


def duplicate_categories(dataset: CocoDataset, _: Facts) -> Result:
    """One category per id and per name: of two with one name, the objects move to the first."""
    rule, findings = "duplicate category", []
    kept, by_name, moved, ids = [], {}, {}, set()
    for category in dataset.categories:
        item = f"category {category.id} ({category.name})"
        if category.id in ids:
            findings.append(Finding(rule, item, "dropped", "the id is another category's"))
        elif category.name in by_name:
            moved[category.id] = by_name[category.name]
            findings.append(Finding(rule, item, "fixed", f"merged into category {by_name[category.name]} of that name"))
        else:
            by_name[category.name] = category.id
            kept.append(category)
        ids.add(category.id)
    annotations = (
        replace(each, category_id=moved.get(each.category_id, each.category_id)) for each in dataset.annotations
    )
    return replace(dataset, categories=tuple(kept), annotations=tuple(annotations)), findings


def duplicate_images(dataset: CocoDataset, _: Facts) -> Result:
    """One image per id and per file: of two with one file, the objects move to the first."""
    rule, findings = "duplicate image", []
    kept, by_name, moved, ids = [], {}, {}, set()
    for image in dataset.images:
        if image.id in ids:
            findings.append(Finding(rule, _name(image), "dropped", "the id is another image's"))
        elif image.file_name in by_name:
            moved[image.id] = by_name[image.file_name]
            findings.append(Finding(rule, _name(image), "fixed", f"merged into image {moved[image.id]} of that file"))
        else:
            by_name[image.file_name] = image.id
            kept.append(image)
        ids.add(image.id)
    annotations = (replace(each, image_id=moved.get(each.image_id, each.image_id)) for each in dataset.annotations)
    return replace(dataset, images=tuple(kept), annotations=tuple(annotations)), findings


def duplicate_annotation_ids(dataset: CocoDataset, _: Facts) -> Result:
    """Ids unique and above 0: pycocotools takes an object of id 0 for never found."""
    rule, findings = "annotation id", []
    taken = {each.id for each in dataset.annotations}
    fresh = count(max(taken, default=0) + 1 if max(taken, default=0) > 0 else 1)
    seen: set[int] = set()
    annotations = []
    for each in dataset.annotations:
        if each.id in seen or each.id < 1:
            new = next(fresh)
            findings.append(Finding(rule, _item(each), "fixed", f"not unique, or not above 0: became {new}"))
            each = replace(each, id=new)
        seen.add(each.id)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def unknown_references(dataset: CocoDataset, _: Facts) -> Result:
    """Objects belong to an image and a category that there are."""
    images = {image.id for image in dataset.images}
    categories = {category.id for category in dataset.categories}

    def problem(each: Annotation) -> str:
        if each.image_id not in images:
            return f"there is no image {each.image_id}"
        return "" if each.category_id in categories else f"there is no category {each.category_id}"

    return _drop(dataset, "unknown reference", problem)


def unreadable_images(dataset: CocoDataset, facts: Facts) -> Result:
    """Every image has a file that can be decoded."""
    groups = dataset.by_image()
    findings = [
        Finding(
            "unreadable image",
            _name(image),
            "dropped",
            f"{facts[image.file_name].problem}; {len(groups.get(image.id, ()))} boxes went with it",
        )
        for image in dataset.images
        if facts[image.file_name].problem
    ]
    return dataset.subset(image for image in dataset.images if not facts[image.file_name].problem), findings


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
        findings.append(Finding(rule, _name(image), "fixed", detail))
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
            findings.append(Finding(rule, _name(image), "fixed", detail + ("scaled" if factors else "left")))
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

    return _drop(dataset, "unsound box", problem)


def boxes_outside(dataset: CocoDataset, _: Facts) -> Result:
    """Boxes lie within their image: they are clipped to it."""
    rule, findings, annotations = "box outside image", [], []
    sizes = {image.id: (image.width, image.height) for image in dataset.images}
    for each in dataset.annotations:
        clipped = clip(each.bbox, *sizes[each.image_id])
        if min(clipped[2:]) <= 0:
            findings.append(Finding(rule, _item(each), "dropped", f"nothing of {each.bbox} is in the image"))
            continue
        if max(abs(new - old) for new, old in zip(clipped, each.bbox, strict=True)) > _SLACK:
            findings.append(Finding(rule, _item(each), "fixed", f"{each.bbox} clipped to {clipped}"))
            each = replace(each, bbox=clipped)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def duplicate_boxes(dataset: CocoDataset, _: Facts) -> Result:
    """No box twice for one category; the same box for two is kept, and said."""
    rule, findings, annotations = "duplicate box", [], []
    seen: dict[tuple[int, Box, int], set[int]] = {}
    for each in dataset.annotations:
        categories = seen.setdefault((each.image_id, each.bbox, each.iscrowd), set())
        if each.category_id in categories:
            findings.append(Finding(rule, _item(each), "dropped", f"{each.bbox} is there already"))
            continue
        if categories:
            findings.append(Finding(rule, _item(each), "kept", f"{each.bbox} is there for another category too"))
        categories.add(each.category_id)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def wrong_areas(dataset: CocoDataset, _: Facts) -> Result:
    """An object's area is above 0 and at most its box's: evaluation sorts objects into sizes by it."""
    rule, findings, annotations = "wrong area", [], []
    for each in dataset.annotations:
        box_area = each.bbox[2] * each.bbox[3]
        if not 0 < each.area <= box_area * 1.001 + 1:  # masks may reach over the box by a part of a pixel
            findings.append(Finding(rule, _item(each), "fixed", f"{each.area:g} became the box's {box_area:g}"))
            each = replace(each, area=box_area)
        annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def _drop(dataset: CocoDataset, rule: str, problem: Callable[[Annotation], str]) -> Result:
    findings, annotations = [], []
    for each in dataset.annotations:
        detail = problem(each)
        if detail:
            findings.append(Finding(rule, _item(each), "dropped", detail))
        else:
            annotations.append(each)
    return replace(dataset, annotations=tuple(annotations)), findings


def _name(image: Image) -> str:
    return f"image {image.id} ({image.file_name})"


def _item(annotation: Annotation) -> str:
    return f"annotation {annotation.id} in image {annotation.image_id}"


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


RULES: tuple[Rule, ...] = (
    duplicate_categories,
    duplicate_images,
    duplicate_annotation_ids,
    unknown_references,
    unreadable_images,
    exif_orientation,
    declared_size,
    unsound_boxes,
    boxes_outside,
    duplicate_boxes,
    wrong_areas,
)
