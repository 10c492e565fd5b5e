"""Rules on images that occur twice: files with the same bytes, or images that look the same.

Of such images one is kept: one of the test set before one of the eval set before the rest, then the one with the most
boxes, then the first by name. Duplicates that stay must not be in train and test: `duplicate_groups` says which belong
together. There a chain of images, each similar to the next, is one group. The rule drops only images similar to the one
kept, so that of a slow pan several images are left.

Roboflow names augmented copies `<stem>.rf.<id>.jpg`, with the same stem for all copies of one original. Turned, cropped
or with other colours they have no similar fingerprints, and are in one group by their names alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import Facts, Problem, Result, image_problems, map_annotations
from pipeline.data.coco import Annotation, CocoDataset, Image
from pipeline.data.fingerprints import group_similar
from pipeline.data.groups import components

# 32 hexadecimal digits, or as many bits in fewer letters; a second suffix where the image was converted.
_AUGMENTED = re.compile(r"(?P<original>[^/]+)\.rf\.[0-9A-Za-z]{16,40}(\.\w+){1,2}")


def exact_duplicates(
    dataset: CocoDataset, facts: Facts, action: Action, *, reserved: frozenset[str] = frozenset()
) -> Result:
    """No two files are the same byte for byte; a repair leaves one image with the boxes of all."""
    boxes = dataset.by_image()
    moved: dict[int, int] = {}
    details: dict[int, str] = {}
    for first, *others in _same_files(_by_rank(dataset, reserved), facts):
        for image in others:
            moved[image.id] = first.id
            difference = _difference(boxes.get(image.id, ()), boxes.get(first.id, ()))
            details[image.id] = f"the same bytes as {first.file_name}, with {difference}"
    found = image_problems(dataset.images, action, details)
    if action == "repair" and details:
        dataset = map_annotations(dataset, lambda each: replace(each, image_id=moved.get(each.image_id, each.image_id)))
    return _without(dataset, details, action), found


def near_duplicates(
    dataset: CocoDataset, facts: Facts, action: Action, *, reserved: frozenset[str] = frozenset()
) -> Result:
    """No two images look alike: resized, re-encoded, turned, mirrored, brighter or cropped copies."""
    found: list[Problem] = []
    while True:
        details: dict[int, str] = {}
        for first, *others in _similar(_by_rank(dataset, reserved), facts):
            digest = facts[first.file_name].digest
            for image in others:
                if facts[image.file_name].digest != digest:
                    details[image.id] = f"looks like {first.file_name}"
        found += image_problems(dataset.images, action, details)
        dataset = _without(dataset, details, action)
        if not details or action == "report":  # the search among fewer images may find more, so it is repeated
            return dataset, found


def duplicate_groups(dataset: CocoDataset, facts: Facts) -> dict[str, str]:
    """The group of each file that is not alone: the smallest name in it.

    A group has exact and near duplicates, directly or through others, and augmented copies of one original.
    """
    names = sorted({image.file_name for image in dataset.images})
    similar = {
        image.file_name: str(number)
        for number, group in enumerate(_similar(_by_rank(dataset), facts, whole_chains=True))
        for image in group
    }
    labels = [similar.get(name, "") for name in names], [_original(name) for name in names]
    firsts = components(range(len(names)), labels)
    sizes = Counter(firsts)
    return {name: names[first] for name, first in zip(names, firsts, strict=True) if sizes[first] > 1}


def _original(name: str) -> str:
    """The name of the original of an augmented copy; empty for any other image."""
    found = _AUGMENTED.fullmatch(name.rpartition("/")[2])
    return found["original"] if found else ""


def _by_rank(dataset: CocoDataset, reserved: frozenset[str] = frozenset()) -> list[Image]:
    """The images, those to keep first: a test set must not lose an image to the train set."""
    boxes = Counter(each.image_id for each in dataset.annotations)

    def rank(image: Image) -> tuple[int, int, str, int]:
        subset = str(image.extra.get("subset", ""))
        is_test = image.file_name in reserved if reserved else subset == "test"
        return 0 if is_test else 1 if subset == "eval" else 2, -boxes[image.id], image.file_name, image.id

    return sorted(dataset.images, key=rank)


def _same_files(images: Iterable[Image], facts: Facts) -> list[list[Image]]:
    """Readable images grouped by the bytes of their files."""
    groups: dict[str, list[Image]] = {}
    for image in images:
        fact = facts[image.file_name]
        if fact.digest and not fact.problem:
            groups.setdefault(fact.digest, []).append(image)
    return list(groups.values())


def _similar(images: Iterable[Image], facts: Facts, *, whole_chains: bool = False) -> list[list[Image]]:
    """Readable images grouped by their fingerprints."""
    files = _same_files(images, facts)
    prints = [facts[group[0].file_name].fingerprint for group in files]
    groups: dict[int, list[Image]] = {}
    for group, first in zip(files, group_similar(prints, whole_chains=whole_chains), strict=True):
        groups.setdefault(first, []).extend(group)
    return list(groups.values())


def _difference(one: Sequence[Annotation], other: Sequence[Annotation]) -> str:
    """How the boxes of two equal images differ."""
    here, there = (Counter((each.category_id, each.bbox, each.iscrowd) for each in boxes) for boxes in (one, other))
    return "the same boxes" if here == there else f"other boxes: {here.total()} here, {there.total()} there"


def _without(dataset: CocoDataset, details: dict[int, str], action: Action) -> CocoDataset:
    if action == "report" or not details:
        return dataset
    return dataset.subset(image for image in dataset.images if image.id not in details)
