"""Rules on image files: each can be decoded, is upright, has the declared size, and is there once.

Of images with the same bytes, or that look the same, one is kept: one of the test set before one of the eval set before
the rest, then the one with the most boxes, then the first by name. Duplicates that stay must not be in train and test:
`duplicate_groups` says which belong together. There a chain of images, each similar to the next, is one group. The rule
drops only images similar to the one kept, so that of a slow pan several images are left.

Roboflow names augmented copies `<stem>.rf.<id>.jpg`, with the same stem for all copies of one original. Turned, cropped
or with other colours they have no similar fingerprints, and are in one group by their names alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from pipeline.data.boxes import normalise, scale, turn_upright
from pipeline.data.checks.findings import Action
from pipeline.data.checks.rules import Result, Subject, merge, settle
from pipeline.data.coco import Annotation, Box, CocoDataset, Image
from pipeline.data.fingerprints import group_similar
from pipeline.data.groups import components
from pipeline.data.images import SIDEWAYS, ImageFacts, Kind

_UNSCALED = (1.0, 1.0)
_SAME_SHAPE = 0.02  # share by which an image's aspect ratio may change when it is resized to whole pixels

# 32 hexadecimal digits, or as many bits in fewer letters; a second suffix where the image was converted.
_AUGMENTED = re.compile(r"(?:.*/)?(?P<original>[^/]+)\.rf\.[0-9A-Za-z]{16,40}(\.\w+){1,2}", re.DOTALL)


def unreadable_images(subject: Subject, action: Action, *, kind: Kind) -> Result:
    """Find images whose file has this kind of problem."""
    facts = (subject.facts[image.file_name] for image in subject.dataset.images)
    return settle(subject, "images", {row: fact.problem for row, fact in enumerate(facts) if fact.kind == kind}, action)


def exif_orientation(subject: Subject, action: Action) -> Result:
    """Find images that are stored rotated; a repair turns the boxes drawn on the stored image with it.

    Where the stored and the upright image have the same size, boxes are taken to be drawn on the upright one, which
    annotation tools show.
    """
    details, turned = dict[int, str](), dict[int, ImageFacts]()
    for row, image in enumerate(subject.dataset.images):
        fact = subject.facts[image.file_name]
        if fact.orientation != 1:
            as_stored = (image.width, image.height) == (fact.height, fact.width) != (fact.width, fact.height)
            sideways = as_stored and fact.orientation in SIDEWAYS
            drawn_on = "stored" if sideways else "upright"
            details[row] = f"orientation {fact.orientation}, boxes drawn on the {drawn_on} image"
            turned |= {image.id: fact} if sideways else {}

    def upright(each: Annotation, fact: ImageFacts) -> Annotation:
        box = turn_upright(each.bbox, fact.orientation, fact.width, fact.height)
        return replace(each, bbox=box, segmentation=None)

    return settle(subject, "images", details, action, lambda: _resized(subject.dataset, turned, upright))


def resized_images(subject: Subject, action: Action) -> Result:
    """Find images of another size than declared; if the image was resized after annotation, a repair scales its boxes.

    Where no size is declared, boxes are taken to be drawn on the file's image. `unrelated_sizes` handles other sizes.
    """
    details, real, scales = {}, {}, {}
    for row, image, fact, factors in _other_sizes(subject):
        if factors:
            details[row], real[image.id], scales[image.id] = _sizes(image, fact), fact, factors

    def scaled(each: Annotation, _: ImageFacts) -> Annotation:
        across, down = scales[each.image_id]
        if (across, down) == _UNSCALED:
            return each
        return replace(each, bbox=scale(each.bbox, across, down), area=each.area * across * down, segmentation=None)

    return settle(subject, "images", details, action, lambda: _resized(subject.dataset, real, scaled))


def unrelated_sizes(subject: Subject, action: Action) -> Result:
    """Find declared sizes that are no scaling of the file's: the positions of the boxes are unknown.

    Exchanged width and height are such a case: either only the numbers were exchanged, or the image was turned, in one
    of two directions. A repair, which the user must choose, takes the boxes to be drawn on the file's image, and drops
    an image with a box that does not fit.
    """
    details, lost, real = dict[int, str](), dict[int, str](), dict[int, ImageFacts]()
    boxes = subject.dataset.by_image()
    for row, image, fact, factors in _other_sizes(subject):
        if not factors:
            real[image.id], detail = fact, f"{_sizes(image, fact)}, which is no scaling of it"
            if action == "drop" or all(_fits(each.bbox, fact) for each in boxes.get(image.id, ())):
                details[row] = detail
            else:
                lost[row] = f"{detail}; a box does not fit in it"
    if action == "drop":
        return settle(subject, "images", details, action)
    left, dropped = settle(subject, "images", lost, "drop")
    _, repaired = settle(subject, "images", details, action, lambda: left)
    return _resized(left, real, lambda each, _: each), dropped + repaired


def _resized(
    dataset: CocoDataset, real: Mapping[int, ImageFacts], change: Callable[[Annotation, ImageFacts], Annotation]
) -> CocoDataset:
    if not real:
        return dataset
    images = (
        replace(image, width=real[image.id].width, height=real[image.id].height) if image.id in real else image
        for image in dataset.images
    )
    annotations = (change(each, real[each.image_id]) if each.image_id in real else each for each in dataset.annotations)
    return replace(dataset, images=tuple(images), annotations=tuple(annotations))


def _other_sizes(subject: Subject) -> Iterator[tuple[int, Image, ImageFacts, tuple[float, float] | None]]:
    """Images of another size than declared: position, image, file, and the factors from the declared to the real size.

    There are no factors where neither is the other resized. Sides are whole pixels, so that the aspect ratios may
    differ by a pixel of either side, but by no more than a fiftieth because of a declared size of few pixels.
    """
    for row, image in enumerate(subject.dataset.images):
        fact = subject.facts[image.file_name]
        if (image.width, image.height) == (fact.width, fact.height):
            continue
        if min(image.width, image.height) < 1:
            yield row, image, fact, _UNSCALED
            continue
        apart = abs(image.width * fact.height - image.height * fact.width)
        of_declared = min(max(fact.width, fact.height), _SAME_SHAPE * image.width * fact.height)
        related = apart <= max(image.width, image.height, of_declared)
        yield row, image, fact, (fact.width / image.width, fact.height / image.height) if related else None


def _sizes(image: Image, fact: ImageFacts) -> str:
    return f"declared {image.width}x{image.height}, the file has {fact.width}x{fact.height}"


def _fits(box: Box, fact: ImageFacts) -> bool:
    x, y, across, down = normalise(box)
    return min(x, y) >= -1 and x + across <= fact.width + 1 and y + down <= fact.height + 1


def exact_duplicates(subject: Subject, action: Action) -> Result:
    """No two files are the same byte for byte; a repair leaves one image with the boxes of all."""
    dataset = subject.dataset
    groups = _same_files(dataset, subject.facts, _by_rank(dataset, subject.reserved))
    firsts = {row: first for first, *others in groups for row in others}
    boxes = dataset.by_image() if firsts else {}

    def detail(image: Image, first: Image) -> str:
        here, there = (
            Counter((each.category_id, each.bbox, each.iscrowd) for each in boxes.get(owner.id, ()))
            for owner in (image, first)
        )
        other = "the same boxes" if here == there else f"other boxes: {here.total()} here, {there.total()} there"
        return f"the same bytes as {first.file_name}, with {other}"

    return merge(subject, "images", firsts, action, detail)


def near_duplicates(subject: Subject, action: Action) -> Result:
    """No two images look alike: resized, re-encoded, turned, mirrored, brighter or cropped copies."""
    images, facts = subject.dataset.images, subject.facts
    rows, details = _by_rank(subject.dataset, subject.reserved), dict[int, str]()
    while True:  # the search among fewer images may find more, so it is repeated
        more = {
            row: f"looks like {images[first].file_name}"
            for first, *others in _similar(subject.dataset, facts, rows)
            for row in others
            if facts[images[row].file_name].digest != facts[images[first].file_name].digest
        }
        details |= more
        if not more or action == "report":
            return settle(subject, "images", details, action)
        rows = [row for row in rows if row not in more]


def duplicate_groups(dataset: CocoDataset, facts: Mapping[str, ImageFacts]) -> dict[str, str]:
    """The group of each file that is not alone: the smallest name in it.

    A group has exact and near duplicates, directly or through others, and augmented copies of one original.
    """
    similar: dict[str, str] = {}
    for number, group in enumerate(_similar(dataset, facts, _by_rank(dataset), whole_chains=True)):
        similar |= {dataset.images[row].file_name: str(number) for row in group}
    names = sorted({image.file_name for image in dataset.images})
    copies = (_AUGMENTED.fullmatch(name) for name in names)
    labels = [similar.get(name, "") for name in names], [copy["original"] if copy else "" for copy in copies]
    firsts = components(range(len(names)), labels)
    sizes = Counter(firsts)
    return {name: names[first] for name, first in zip(names, firsts, strict=True) if sizes[first] > 1}


def _by_rank(dataset: CocoDataset, reserved: Collection[str] = ()) -> list[int]:
    """Positions of the images, those to keep first: a test set must not lose an image to the train set."""
    boxes = Counter(each.image_id for each in dataset.annotations)

    def rank(row: int) -> tuple[int, int, str, int]:
        image = dataset.images[row]
        subset = str(image.extra.get("subset", ""))
        is_test = image.file_name in reserved if reserved else subset == "test"
        return 0 if is_test else 1 if subset == "eval" else 2, -boxes[image.id], image.file_name, image.id

    return sorted(range(len(dataset.images)), key=rank)


def _same_files(dataset: CocoDataset, facts: Mapping[str, ImageFacts], rows: Sequence[int]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row in rows:
        fact = facts[dataset.images[row].file_name]
        if fact.digest and not fact.problem:
            groups.setdefault(fact.digest, []).append(row)
    return list(groups.values())


def _similar(
    dataset: CocoDataset, facts: Mapping[str, ImageFacts], rows: Sequence[int], *, whole_chains: bool = False
) -> list[list[int]]:
    files = _same_files(dataset, facts, rows)
    prints = [facts[dataset.images[group[0]].file_name].fingerprint for group in files]
    groups: dict[int, list[int]] = {}
    for group, first in zip(files, group_similar(prints, whole_chains=whole_chains), strict=True):
        groups.setdefault(first, []).extend(group)
    return list(groups.values())
