"""Rules on how records hang together: each image and object once, each object of an image and a category there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import PurePosixPath

from pipeline.data.checks.findings import (
    DID,
    Action,
    Facts,
    Finding,
    Result,
    annotation_finding,
    drop_images,
    image_item,
    judge_annotations,
    with_annotations,
)
from pipeline.data.coco import Annotation, CocoDataset, Image


def duplicate_image_ids(dataset: CocoDataset, _: Facts, __: Action) -> Result:
    """One image per id: the first keeps it, and the objects, which name it by id, are taken for the first's."""
    findings: list[Finding] = []
    first: dict[int, Image] = {}
    for image in dataset.images:
        if first.setdefault(image.id, image) is not image:
            detail = f"the id is that of {first[image.id].file_name}"
            findings.append(
                Finding("duplicate-image-id", "error", image_item(image), "dropped", detail, image.file_name)
            )
    return (replace(dataset, images=tuple(first.values())) if findings else dataset), findings


def duplicate_image_files(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """One image per file: a repair moves the objects to the first."""
    findings: list[Finding] = []
    first: dict[str, Image] = {}
    moved: dict[int, int] = {}
    for image in dataset.images:
        into = first.setdefault(_file(image), image)
        if into is not image:
            moved[image.id] = into.id
            detail = f"the file of {image_item(into)}" + ("; its boxes moved there" if action == "repair" else "")
            finding = Finding("duplicate-image-file", "error", image_item(image), DID[action], detail, image.file_name)
            findings.append(finding)
    if not moved:
        return dataset, findings
    if action == "drop":
        return dataset.subset(first.values()), findings

    def renumbered(each: Annotation) -> Annotation:
        return replace(each, image_id=moved[each.image_id]) if each.image_id in moved else each

    dataset = with_annotations(dataset, map(renumbered, dataset.annotations))
    return replace(dataset, images=tuple(first.values())), findings


def duplicate_annotation_ids(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """One annotation per id: the first keeps it, and a repair gives the others new ones."""
    findings: list[Finding] = []
    kept: list[Annotation] = []
    names = {image.id: image.file_name for image in dataset.images}
    fresh = _fresh_ids(dataset)
    seen: set[int] = set()
    for each in dataset.annotations:
        if each.id in seen:
            new = next(fresh)
            detail = "the id is another's" + (f": became {new}" if action == "repair" else "")
            file_name = names.get(each.image_id, "")
            findings.append(
                annotation_finding("duplicate-annotation-id", "error", each, DID[action], detail, file_name)
            )
            if action == "drop":
                continue
            each = replace(each, id=new)
        seen.add(each.id)
        kept.append(each)
    return with_annotations(dataset, kept, changed=bool(findings)), findings


def annotation_ids_below_one(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Annotation ids are above 0: pycocotools takes an object of id 0 for never found."""
    fresh = _fresh_ids(dataset)
    return judge_annotations(
        dataset,
        "annotation-id-below-one",
        "error",
        action,
        lambda each: "the id is below 1" if each.id < 1 else "",
        lambda each: replace(each, id=next(fresh)),
    )


def unknown_images(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Objects belong to an image that there is."""
    known = {image.id for image in dataset.images}

    def problem(each: Annotation) -> str:
        return "" if each.image_id in known else f"there is no image {each.image_id}"

    return judge_annotations(dataset, "unknown-image", "error", action, problem)


def unknown_categories(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Objects belong to a category that there is."""
    known = {category.id for category in dataset.categories}

    def problem(each: Annotation) -> str:
        return "" if each.category_id in known else f"there is no category {each.category_id}"

    return judge_annotations(dataset, "unknown-category", "error", action, problem)


def images_without_box(dataset: CocoDataset, _: Facts, action: Action) -> Result:
    """Every image has an annotation; one without is learnt as background."""
    problems = {image.id: "no annotation is in it" for image in dataset.background_images}
    if action == "drop":
        return drop_images(dataset, "image-without-box", "info", problems)
    findings = [
        Finding("image-without-box", "info", image_item(image), "reported", problems[image.id], image.file_name)
        for image in dataset.images
        if image.id in problems
    ]
    return dataset, findings


def _file(image: Image) -> str:
    """The same for names of the same file: a//b and ./a/b are a/b."""
    name = image.file_name
    return PurePosixPath(name).as_posix() if "//" in name or "./" in name else name


def _fresh_ids(dataset: CocoDataset) -> count[int]:
    return count(max(0, max((each.id for each in dataset.annotations), default=0)) + 1)
