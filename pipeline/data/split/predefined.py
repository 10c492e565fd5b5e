"""Subsets that images have before the split: from the user's test list, and from the split that comes with the data."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.data.checks.findings import Finding, image_item
from pipeline.data.coco import Image
from pipeline.data.groups import Ties

log = logging.getLogger(__name__)

SUBSETS = ("train", "eval", "test")
TRAIN, EVAL, TEST = range(3)  # where tied images are in two subsets, the later one wins
FREE, EXCLUDED = -1, -2

STRADDLES = "straddles-the-split"

Integers = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PredefinedSubsets:
    """The subsets that images have before the split."""

    subset: Integers  # of each image, or FREE or EXCLUDED
    listed: tuple[int, ...]  # rows of the images on the test list
    groups: tuple[tuple[int, ...], ...]  # rows of tied images, of all others that are not excluded
    present: frozenset[int]  # the subsets that the data's own split has
    findings: tuple[Finding, ...]  # images excluded, and groups in several subsets


def find_predefined(
    images: Sequence[Image], ties: Ties, *, test_names: Collection[str], honour: bool
) -> PredefinedSubsets:
    """Find the subsets that images have before the split.

    In this order:
      1. Images on the test list are the test set, and with a list nothing else is: images tied to one of them,
         directly, are excluded. A field `subset` of `test` on other images then does not count.
      2. Where the data's own split is honoured, an image with a field `subset` of `train`, `eval` or `test` goes there.
         It is no split, and ignored, if it only has train, or all images are in the same subset.
      3. Of near duplicates in two subsets those in the weaker one are excluded: test wins over eval, eval over train.
         Images that agree in the field to group by stay where the data's authors put them, which is reported.
      4. An image without a subset joins those it is tied to, in the strongest of their subsets; if it has near
         duplicates or a group in another, it is excluded.
    """
    listed = np.array([image.file_name in test_names for image in images], bool)
    subset, present = _own_subsets(images, listed, honour=honour)
    findings: list[Finding] = []

    def exclude(row: int, why: str) -> None:
        subset[row] = EXCLUDED
        image = images[row]
        findings.append(Finding(STRADDLES, "warning", image_item(image), "dropped", why, image.file_name))

    for what, labels in (("near duplicate of", ties.duplicates), (f"same {ties.field} as", ties.fields)):
        for rows in _by_label(labels, subset):
            on_list = [row for row in rows if listed[row]]
            for row in [row for row in rows if on_list and not listed[row]]:
                exclude(row, f"{what} {first_name(images, on_list)}, which is on the test list")
    for rows in _by_label(ties.duplicates, subset):
        strongest = max(subset[rows])
        stronger = [row for row in rows if subset[row] == strongest]
        for row in [row for row in rows if FREE < subset[row] < strongest]:
            where = f"which is in {SUBSETS[strongest]}, while this is in {SUBSETS[subset[row]]}"
            exclude(row, f"near duplicate of {first_name(images, stronger)}, {where}")
    before = subset.copy()
    for rows in ties.groups(np.flatnonzero(subset != EXCLUDED).tolist()):
        subset[[row for row in rows if subset[row] == FREE]] = max(subset[rows])
    # Chains of images without a subset may lead to two subsets; those next to the other subset are excluded.
    for labels in (ties.duplicates, ties.fields):
        for rows in _by_label(labels, subset):
            held = {int(before[row]) for row in rows} - {FREE}
            for row in [row for row in rows if held and before[row] == FREE and subset[row] not in held]:
                exclude(row, f"tied to images of {_names(held)} and, by others, to some of {SUBSETS[subset[row]]}")
    groups = tuple(map(tuple, ties.groups(np.flatnonzero((subset != EXCLUDED) & ~listed).tolist())))
    findings.sort(key=lambda finding: finding.file_name)
    findings += _straddling(images, ties, subset)
    return PredefinedSubsets(subset, tuple(np.flatnonzero(listed).tolist()), groups, present, tuple(findings))


def _own_subsets(images: Sequence[Image], listed: Bools, *, honour: bool) -> tuple[Integers, frozenset[int]]:
    """The subsets of the data's own split, with the test list in place of its test set."""
    words = [str(image.extra.get("subset") or "") if honour else "" for image in images]
    others = sorted(set(words) - {"", *SUBSETS})
    if others:
        log.warning("the field 'subset' is not train, eval or test but %s: no split", ", ".join(others[:5]))
    subset = np.array([SUBSETS.index(word) if word in SUBSETS else FREE for word in words], np.int64)
    subset[listed | ((subset == TEST) & listed.any())] = FREE
    present = frozenset(subset[subset >= 0].tolist())
    free = int((subset[~listed] == FREE).sum())
    if present == {TRAIN} or (len(present) == 1 and not free):
        log.info("the data has all images in %s: that is no split, so they are split here", _names(present))
        subset[:], present = FREE, frozenset()
    elif present:
        counts = Counter(SUBSETS[i] for i in subset[subset >= 0].tolist())
        log.info("the data's own split: %s; %d images without", dict(sorted(counts.items())), free)
    subset[listed] = TEST
    return subset, present


def _straddling(images: Sequence[Image], ties: Ties, subset: Integers) -> list[Finding]:
    findings = []
    for rows in _by_label(ties.fields, subset):
        counts = Counter(int(subset[row]) for row in rows if subset[row] >= 0)
        if len(counts) > 1:
            shares = " and ".join(f"{count} images in {SUBSETS[part]}" for part, count in sorted(counts.items()))
            weakest = first_name(images, [row for row in rows if subset[row] == min(counts)])
            item, detail = f"{ties.field} {ties.fields[rows[0]]}", f"{shares}, by the data's own split"
            findings.append(Finding(STRADDLES, "warning", item, "reported", detail, weakest))
    return sorted(findings, key=lambda finding: finding.item)


def _by_label(labels: Sequence[str], subset: Integers) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row in np.flatnonzero(subset != EXCLUDED).tolist():
        if labels[row]:
            groups.setdefault(labels[row], []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def first_name(images: Sequence[Image], rows: Sequence[int]) -> str:
    """The name by which a message calls a group of images: the first in the order of names."""
    return min(images[row].file_name for row in rows)


def _names(subsets: Collection[int]) -> str:
    return " and ".join(SUBSETS[i] for i in sorted(subsets))
