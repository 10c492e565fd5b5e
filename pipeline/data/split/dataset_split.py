"""The split of a dataset into train, evaluation and test set. Groups stay together; the seed decides between equals."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter

import numpy as np

from pipeline.data.checks.findings import Finding, Findings
from pipeline.data.coco import CocoDataset, Image
from pipeline.data.conversion import draw_order
from pipeline.data.groups import SCENE, VIDEO, Ties, has_field, read_ties
from pipeline.data.split.division import ROUNDING, check_division
from pipeline.data.split.predefined import SUBSETS, TRAIN, Integers, find_predefined, first_name
from pipeline.data.split.subset_assignment import Shares, SplitGroups, assign, make_groups, objects
from pipeline.data.tables import Exclusion, Table, exclude
from pipeline.errors import DataError, UsageError

log = logging.getLogger(__name__)

NO_GROUPING = "none"
_OWN_SPLIT = "set source_split to ignore, not to honour the data's own split"
_OFF = 0.1  # share of its size that a subset may miss without a finding
_ALIKE = "they look like, or belong to, images of another set"
_LARGE = 0.5  # share of the images in one group from which on a warning is due


@dataclass(frozen=True)
class Split:
    """Three datasets that share no image, and what was found on the way.

    They and the images and boxes that `exclusions` counts are the original dataset. Findings are images excluded, and
    groups that straddle the data's own split (`straddles-the-split`); subsets of another size than asked for
    (`subset-size`); classes that a subset lacks (`class-absent-from-subset`); clips in more than one subset, where
    there are too few to keep them whole (`split-within-a-clip`).
    """

    train: CocoDataset
    eval: CocoDataset
    test: CocoDataset
    findings: Findings = field(default_factory=Findings)
    exclusions: tuple[Exclusion, ...] = ()

    @property
    def subsets(self) -> dict[str, CocoDataset]:
        """The three datasets by name."""
        return {"train": self.train, "eval": self.eval, "test": self.test}

    @property
    def shares(self) -> Table:
        """Images and boxes per class and subset, with the percentage of the class."""
        names, parts = (*self.train.classes, "all"), tuple(self.subsets.values())
        classes = np.stack([_per_class(part) for part in parts], axis=1)
        boxes = classes[..., 1].sum(axis=0).tolist()
        totals = [(len(part.images), count) for part, count in zip(parts, boxes, strict=True)]
        counts = np.concatenate([classes, [totals]])  # classes, subsets, images and boxes
        percent = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
        pairs = (zip(counts[i].ravel().tolist(), percent[i].ravel().tolist(), strict=True) for i in range(len(names)))
        rows = tuple((name, *chain.from_iterable(row)) for name, row in zip(names, pairs, strict=True))
        columns = ("class", *(f"{name} {what}" for name in SUBSETS for what in ("images", "%", "boxes", "%")))
        return Table("Images and boxes per class, crowd regions not counted", columns, rows)


def split(
    dataset: CocoDataset,
    *,
    mode: str = "balanced",
    train_share: float = 0.7,
    eval_share: float = 0.15,
    test_names: Collection[str] = (),
    seed: int = 0,
    groups: Mapping[str, str] = {},
    group_by: str = "",
    source_split: str = "honour",
    max_empty_share: float = 1.0,
) -> Split:
    """Split a dataset into three, each image in at most one.

    In `balanced` mode sizes are exact and the classes are stratified (`stratify`); another image may move many. In
    `stable` mode an image's subset follows from a hash of its own name, or that of its group, and the seed
    (`hashed_subset`): other images move none, but sizes hold in expectation only. A group moves if it gets a member
    that comes before all others by name, or is joined to another; images move if the data's own split gains or loses a
    subset, or if there are now enough videos to keep them whole.

    Groups are not divided. Images from the test list or the data's own split keep their subset (`find_predefined`). An
    eval or test set that the data's own split lacks is taken from its train set, in the ratio of their shares. The
    other images then bring, in balanced mode, each subset as near to its share of all as they can; in stable mode they
    go by the shares as they are.

    Images without an annotation are background. They are split like images of a class; finally the train set keeps
    only as many as `max_empty_share` allows, which moves no image to another subset.

    The notebook describes most arguments. The order of the dataset's images makes no difference. `test_names` are the
    test set, as far as the dataset has them; train and eval then share the others in the ratio of their shares.
    `groups` are those of near duplicates by file name, as `validate` finds them. Without `group_by`, images of a
    `video` stay together where they have one, or if a subset would then be empty, those of a `scene`, or else none.

    Raises:
        UsageError: The shares are no shares, a word is none of those allowed, or no image has the field.
        DataError: A subset with a share would be empty.
    """
    check_division(mode, train_share, eval_share, source_split=source_split, max_empty_share=max_empty_share)
    shares = _shares(train_share, eval_share)
    names = frozenset(test_names)
    images = sorted(dataset.images, key=lambda image: (draw_order(image.file_name, seed), image.id))
    reserved = sum(image.file_name in names for image in images)
    if names:
        shares = _without_test(shares, reserved, len(images) - reserved)
    fields: tuple[str, ...] = ("" if group_by == NO_GROUPING else group_by,)
    if not group_by and has_field(images, VIDEO):  # the first that leaves no subset empty is taken
        fields = (VIDEO, SCENE, "") if has_field(images, SCENE) else (VIDEO, "")
    for each in fields:
        ties = read_ties(images, groups, each)
        predefined = find_predefined(images, ties, test_names=names, honour=source_split == "honour")
        tied = make_groups(dataset, images, ties, predefined, shares)
        subset, asked = assign(tied, shares, mode=mode, seed=seed)
        chosen: tuple[list[Image], ...] = ([], [], [images[row] for row in predefined.listed])
        for rows, part in zip(tied.rows, subset.tolist(), strict=True):
            chosen[part].extend(images[row] for row in rows)
        parts = [dataset.subset(part) for part in chosen]
        counts = np.array([len(part.images) for part in parts])
        if counts[shares > 0].all():
            break
    _check_empty(counts, shares, images, tied, mode)
    findings = [*predefined.findings, *_sizes_missed(subset, asked, images, tied, mode), *_absent_classes(parts)]
    if len(fields) > 1:
        how = f"those of one {each} stay together; group_by={NO_GROUPING} splits them"
        log.info("images have a video: %s", how if each else "there are too few videos, so each may be divided")
        findings += _clips_divided(images, ties, parts)
    for rule, found in groupby(findings, attrgetter("rule")):
        first, *more = found
        log.warning("%s: %s: %s%s", rule, first.item, first.detail, f"; and {len(more)} more" if more else "")
    exclusions = _in_no_part(dataset, parts)
    remedy = _OWN_SPLIT if predefined.present else "give it a larger share"
    if names and not parts[1].annotations:
        remedy = "take images with boxes off the test list"
    train, too_many = _with_less_background(parts[0], max_empty_share, seed, remedy)
    return Split(train, parts[1], parts[2], findings=Findings(tuple(findings)), exclusions=(*exclusions, *too_many))


def _in_no_part(dataset: CocoDataset, parts: Sequence[CocoDataset]) -> tuple[Exclusion, ...]:
    images = len(dataset.images) - sum(len(part.images) for part in parts)
    boxes = len(dataset.annotations) - sum(len(part.annotations) for part in parts)
    of_images = exclude({_ALIKE: images}, len(dataset.images))
    return of_images + exclude({_ALIKE: boxes}, len(dataset.annotations), what="boxes")


def _shares(train_share: float, eval_share: float) -> Shares:
    shares = np.array([train_share, eval_share, 1 - train_share - eval_share])
    shares[np.abs(shares) < ROUNDING] = 0
    return shares


def _without_test(shares: Shares, reserved: int, others: int) -> Shares:
    if not reserved:
        raise DataError(
            "no image of the test list is in the dataset", remedy="list images that validation keeps, or none"
        )
    rest = shares[:2].sum()
    if rest == 0 and others:
        raise UsageError(
            f"{others} images are not on the test list, and train and eval have no share",
            remedy="give train_share or eval_share a value above 0",
        )
    return np.array([*shares[:2] / (rest or 1), 0.0])


def _with_less_background(
    train: CocoDataset, max_share: float, seed: int, remedy: str
) -> tuple[CocoDataset, tuple[Exclusion, ...]]:
    empty = train.background_images
    others = len(train.images) - len(empty)
    most = len(empty) if max_share == 1 else math.floor(others * max_share / (1 - max_share) + 1e-9)
    if train.images and not others and not most:
        raise DataError("the train set would be empty: no image in it has a box", remedy=remedy)
    dropped = {image.id for image in sorted(empty, key=lambda image: draw_order(image.file_name, seed))[most:]}
    exclusions = exclude({"background above max_empty_share": len(dropped)}, len(train.images), subset=SUBSETS[TRAIN])
    return train.subset(image for image in train.images if image.id not in dropped), exclusions


def _check_empty(counts: Integers, shares: Shares, images: Sequence[Image], groups: SplitGroups, mode: str) -> None:
    total = int(groups.weights.sum())
    for name, size, share in zip(SUBSETS, counts, shares, strict=True):
        if share > 0 and size == 0:
            remedy = "give it a larger share" if name != SUBSETS[-1] else "give train and eval smaller shares"
            if total < (shares > 0).sum():
                remedy = "take more images, or give fewer sets a share"
            elif len(groups.rows) < (shares > 0).sum():
                remedy = f"{_largest(images, groups)}: let fewer images belong together, or drop near duplicates"
            elif mode == "stable":
                remedy += ", or take the balanced mode, which gives every set its share"
            elif (groups.subset >= 0).any():
                remedy += f", or {_OWN_SPLIT}"
            raise DataError(f"the {name} set would be empty: {share:.0%} of {total} images", remedy=remedy)


def _sizes_missed(
    subset: Integers, asked: Shares, images: Sequence[Image], groups: SplitGroups, mode: str
) -> list[Finding]:
    """Subsets whose size rounding, or in stable mode chance with single images, does not explain."""
    total = int(groups.weights.sum())
    found = []
    counts = np.bincount(subset, groups.weights, len(SUBSETS)).astype(np.int64)
    for name, count, wanted in zip(SUBSETS, counts.tolist(), asked.tolist(), strict=True):
        chance = 3 * math.sqrt(wanted * (1 - wanted / max(1, total))) if mode == "stable" else _OFF * wanted
        if abs(count - wanted) > max(1.0, chance):
            why = f": {_largest(images, groups)}" if total > len(groups.rows) else ""
            detail = f"{count} of {total} images where {wanted:.0f} were asked for{why}"
            found.append(Finding("subset-size", "warning", f"{name} set", "reported", detail))
    if len(groups.rows) > 1 and int(groups.weights.max()) > _LARGE * total:  # its subset shows little else
        log.warning("%s, of %d images", _largest(images, groups), total)
    return found


def _largest(images: Sequence[Image], groups: SplitGroups) -> str:
    rows = groups.rows[int(groups.weights.argmax())]
    return f"the largest group, that of {first_name(images, rows)}, has {len(rows)} images and is not divided"


def _clips_divided(images: Sequence[Image], ties: Ties, parts: Sequence[CocoDataset]) -> list[Finding]:
    clips = read_ties(images, {}, VIDEO).fields
    clip_of = {image.id: clip for image, clip, tie in zip(images, clips, ties.fields, strict=True) if clip and not tie}
    subsets_of = Counter(
        clip for part in parts for clip in {clip_of[image.id] for image in part.images if image.id in clip_of}
    )
    divided = sorted(clip for clip, count in subsets_of.items() if count > 1)
    if not divided:
        return []
    more = f" and {len(divided) - 1} more" if len(divided) > 1 else ""
    detail = (
        "frames of one clip are in more than one subset, so that test images resemble train images: "
        "undivided, the clips would leave a subset empty; take more clips"
    )
    return [Finding("split-within-a-clip", "warning", f"video {divided[0]}{more}", "reported", detail)]


def _absent_classes(parts: Sequence[CocoDataset]) -> list[Finding]:
    shown = np.stack([_per_class(part)[:, 0] for part in parts])  # (subsets, classes)
    findings = []
    for column, name in enumerate(parts[TRAIN].classes):
        total = int(shown[:, column].sum())
        absent = [SUBSETS[i] for i, part in enumerate(parts) if part.images and not shown[i, column]]
        if absent:
            images = f"{total} image{'s' * (total != 1)}"
            detail = f"in {images}, none of them in {' or '.join(absent)}" if total else "no image shows it"
            findings.append(Finding("class-absent-from-subset", "warning", f"class '{name}'", "reported", detail))
    return findings


def _per_class(dataset: CocoDataset) -> Integers:
    """How many images show each class, and how many boxes it has, `(classes, 2)`."""
    rows, columns = objects(dataset, dataset.images)
    classes = len(dataset.categories)
    images = np.unique(rows * max(1, classes) + columns) % max(1, classes)
    return np.stack([np.bincount(each, minlength=classes) for each in (images, columns)], axis=1)
