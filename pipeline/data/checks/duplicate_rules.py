"""Rules on pictures that are there twice: the same bytes, or the same to the eye.

Of such pictures one stands for the others: one of the test set before one of the eval set before the rest, then the one
with the most boxes, then the first by name.
Duplicates that stay must not straddle train and test: `duplicate_groups` says which belong together. There a chain of
pictures, each like the next, is one group; the rule finds and drops only what is like the one that stands for it, so
that of a slow pan more than one picture is left.

Augmented copies are named by Roboflow `<stem>.rf.<id>.jpg`, the same stem for all copies of one source picture: turned,
cropped or with other colours they look alike to no one, and are in one group by their names alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.data.checks.findings import DID, Action, Facts, Finding, Result, image_item
from pipeline.data.coco import Annotation, CocoDataset, Image
from pipeline.data.fingerprints import group_alike
from pipeline.data.groups import components

EXACT, NEAR = "exact-duplicate-image", "near-duplicate-image"

# 32 digits of hexadecimal, or as many bits in fewer letters; a suffix more where the picture was converted.
_AUGMENTED = re.compile(r"(?P<source>[^/]+)\.rf\.[0-9A-Za-z]{16,40}(\.\w+){1,2}")


def exact_duplicates(
    dataset: CocoDataset, facts: Facts, action: Action, *, reserved: frozenset[str] = frozenset()
) -> Result:
    """Images whose files are the same byte for byte; repair: one image, with the boxes of all."""
    boxes = dataset.by_image()
    moved: dict[int, int] = {}
    details: dict[int, str] = {}
    for first, *others in _same_files(_by_rank(dataset, reserved), facts):
        for image in others:
            moved[image.id] = first.id
            told = _difference(boxes.get(image.id, ()), boxes.get(first.id, ()))
            details[image.id] = f"the same bytes as {first.file_name}, with {told}"
    findings = _findings(dataset, EXACT, action, details)
    if action == "repair" and details:
        annotations = (replace(each, image_id=moved.get(each.image_id, each.image_id)) for each in dataset.annotations)
        dataset = replace(dataset, annotations=tuple(annotations))
    return _without(dataset, details, action), findings


def near_duplicates(
    dataset: CocoDataset, facts: Facts, action: Action, *, reserved: frozenset[str] = frozenset()
) -> Result:
    """Images that look alike, though their bytes differ: resized, re-encoded, turned, mirrored, brighter, cropped."""
    findings: list[Finding] = []
    while True:
        details: dict[int, str] = {}
        for first, *others in _alike(_by_rank(dataset, reserved), facts):
            digest = facts[first.file_name].digest
            for image in others:
                if facts[image.file_name].digest != digest:
                    details[image.id] = f"looks like {first.file_name}"
        findings += _findings(dataset, NEAR, action, details)
        dataset = _without(dataset, details, action)
        if not details or action == "report":  # dropped are they until none is left, as with fewer more can be found
            return dataset, findings


def duplicate_groups(dataset: CocoDataset, facts: Facts) -> dict[str, str]:
    """The group of each file that is not alone: the smallest name in it.

    In one group are exact and near duplicates, directly or through others, and augmented copies of one source picture.
    """
    names = sorted({image.file_name for image in dataset.images})
    alike = {
        image.file_name: str(number)
        for number, group in enumerate(_alike(_by_rank(dataset), facts, whole_chains=True))
        for image in group
    }
    labels = [alike.get(name, "") for name in names], [_source_picture(name) for name in names]
    firsts = components(range(len(names)), labels)
    sizes = Counter(firsts)
    return {name: names[first] for name, first in zip(names, firsts, strict=True) if sizes[first] > 1}


def _source_picture(name: str) -> str:
    """What the picture was called of which this is an augmented copy; empty if it does not say so."""
    found = _AUGMENTED.fullmatch(name.rpartition("/")[2])
    return found["source"] if found else ""


def _by_rank(dataset: CocoDataset, reserved: frozenset[str] = frozenset()) -> list[Image]:
    """The images, those first that stand for others: a test set must not lose a picture to what is learnt from."""
    boxes = Counter(each.image_id for each in dataset.annotations)

    def rank(image: Image) -> tuple[int, int, str, int]:
        subset = str(image.extra.get("subset", ""))
        is_test = image.file_name in reserved if reserved else subset == "test"
        return 0 if is_test else 1 if subset == "eval" else 2, -boxes[image.id], image.file_name, image.id

    return sorted(dataset.images, key=rank)


def _same_files(images: Iterable[Image], facts: Facts) -> list[list[Image]]:
    """Images grouped by the bytes of their files; those without a picture are left out."""
    groups: dict[str, list[Image]] = {}
    for image in images:
        fact = facts[image.file_name]
        if fact.digest and not fact.problem:
            groups.setdefault(fact.digest, []).append(image)
    return list(groups.values())


def _alike(images: Iterable[Image], facts: Facts, *, whole_chains: bool = False) -> list[list[Image]]:
    """Images grouped by what they look like, those of one file among them."""
    files = _same_files(images, facts)
    firsts = group_alike([facts[group[0].file_name].look for group in files], whole_chains=whole_chains)
    groups: dict[int, list[Image]] = {}
    for group, first in zip(files, firsts, strict=True):
        groups.setdefault(first, []).extend(group)
    return list(groups.values())


def _difference(one: Sequence[Annotation], other: Sequence[Annotation]) -> str:
    """How the boxes of two images with one picture differ."""
    here, there = (Counter((each.category_id, each.bbox, each.iscrowd) for each in boxes) for boxes in (one, other))
    return "the same boxes" if here == there else f"other boxes: {here.total()} here, {there.total()} there"


def _findings(dataset: CocoDataset, rule: str, action: Action, details: dict[int, str]) -> list[Finding]:
    return [
        Finding(rule, "warning", image_item(image), DID[action], details[image.id], image.file_name)
        for image in dataset.images
        if image.id in details
    ]


def _without(dataset: CocoDataset, details: dict[int, str], action: Action) -> CocoDataset:
    if action == "report" or not details:
        return dataset
    return dataset.subset(image for image in dataset.images if image.id not in details)
