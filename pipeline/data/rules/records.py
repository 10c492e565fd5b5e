"""Rules on how records hang together: each once, each of something there is, each image a picture."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

from pipeline.data.coco import Annotation, CocoDataset
from pipeline.data.rules.findings import Facts, Finding, Result, annotation_item, drop_annotations, image_item


def duplicate_categories(dataset: CocoDataset, _: Facts) -> Result:
    """One category per id and per name: of two with one name, the objects move to the first."""
    rule, findings = "duplicate category", []
    kept, moved, ids = [], {}, set()
    by_name: dict[str, int] = {}
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
    kept, moved, ids = [], {}, set()
    by_name: dict[str, int] = {}
    for image in dataset.images:
        if image.id in ids:
            findings.append(Finding(rule, image_item(image), "dropped", "the id is another image's"))
        elif image.file_name in by_name:
            moved[image.id] = by_name[image.file_name]
            findings.append(Finding(rule, image_item(image), "fixed", f"became image {moved[image.id]} of that file"))
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
            findings.append(Finding(rule, annotation_item(each), "fixed", f"not unique, or not above 0: became {new}"))
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

    return drop_annotations(dataset, "unknown reference", problem)


def unreadable_images(dataset: CocoDataset, facts: Facts) -> Result:
    """Every image has a file that can be decoded."""
    groups = dataset.by_image()
    findings = [
        Finding(
            "unreadable image",
            image_item(image),
            "dropped",
            f"{facts[image.file_name].problem}; {len(groups.get(image.id, ()))} boxes went with it",
        )
        for image in dataset.images
        if facts[image.file_name].problem
    ]
    return dataset.subset(image for image in dataset.images if not facts[image.file_name].problem), findings
