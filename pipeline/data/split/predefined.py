"""The subsets that images have before any are dealt out: from the user's test list, and from the data's own split."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.checks.findings import Finding, image_item
from pipeline.data.coco import Image
from pipeline.data.groups import Ties

logger = logging.getLogger(__name__)

SUBSETS = ("train", "eval", "test")
TRAIN, EVAL, TEST = range(3)  # the later wins where images that belong together are in two
FREE, LEFT_OUT = -1, -2

STRADDLES = "straddles-the-split"
_SHOWN = 5  # values of a field in a warning

Owners = npt.NDArray[np.int64]  # (images,): a subset, FREE or LEFT_OUT
_Say = Callable[[int, str], None]


@dataclass(frozen=True)
class Placed:
    """Images that have their subset, and those that do not; what is tied to an image with a subset has that one too.

    Attributes:
        owner: The subset of each image, FREE or LEFT_OUT, `(images,)`.
        listed: Rows of the images on the test list.
        groups: Rows of images that belong together, of all others that are not left out.
        brought: The subsets that the data's own split has.
        findings: What was left out, and what straddles.
    """

    owner: Owners
    listed: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    brought: frozenset[int]
    findings: tuple[Finding, ...]


def place(images: Sequence[Image], ties: Ties, *, test_names: Collection[str], honour: bool) -> Placed:
    """Give images the subset that is theirs before any dealing.

    In this order:
      1. Images on the test list are the test set, and with a list nothing else is: what is tied to one of them,
         directly, is left out. That another image's own field says `test` then says nothing.
      2. Where the data's own split is honoured, an image with a field `subset` of `train`, `eval` or `test` goes there.
         It is no split, and ignored, if all it has is train, or all images are in the same subset.
      3. Of near duplicates in two subsets those in the weaker one are left out: test before eval before train.
         Images that agree in the field to group by stay where the data's makers put them, which is reported.
      4. An image without a subset goes with those it is tied to: to the strongest of their subsets; if it has near
         duplicates or a group in another, it is left out.

    Args:
        images: What to place.
        ties: What ties them to each other.
        test_names: File names on the test list; empty for none.
        honour: Whether the data's own split counts.
    """
    names = frozenset(test_names)
    listed = np.array([image.file_name in names for image in images], bool)
    owner, brought = _own(images, listed, has_list=bool(names), honour=honour)
    findings: list[Finding] = []

    def leave_out(row: int, why: str) -> None:
        owner[row] = LEFT_OUT
        findings.append(_dropped(images[row], why))

    if names:
        _clear_list(images, ties, owner, listed, leave_out)
    _separate_duplicates(images, ties, owner, leave_out)
    _join(ties, owner, leave_out)
    groups = ties.groups(np.flatnonzero((owner != LEFT_OUT) & ~listed).tolist())
    findings.sort(key=lambda finding: finding.file_name)
    findings += _straddling(images, ties, owner)
    on_list = tuple(np.flatnonzero(listed).tolist())
    return Placed(owner, on_list, tuple(map(tuple, groups)), brought, tuple(findings))


def _own(
    images: Sequence[Image], listed: npt.NDArray[np.bool_], *, has_list: bool, honour: bool
) -> tuple[Owners, frozenset[int]]:
    said = [_subset(image) if honour else FREE for image in images]
    if honour:
        _warn_of_others(images)
    owner = np.where(listed, FREE, np.array(said, np.int64))
    if has_list:
        owner[owner == TEST] = FREE
    brought = frozenset(owner[owner >= 0].tolist())
    free = int((owner[~listed] == FREE).sum())
    if brought and (brought == {TRAIN} or (len(brought) == 1 and not free)):
        logger.info("the data put all images into %s: that is no split, so they are shared out", _names(brought))
        owner[:], brought = FREE, frozenset()
    elif brought:
        counts = Counter(SUBSETS[i] for i in owner[owner >= 0].tolist())
        logger.info("the data's own split: %s; %d images without", dict(sorted(counts.items())), free)
    owner[listed] = TEST
    return owner, brought


def _subset(image: Image) -> int:
    said: Any = image.extra.get("subset")
    return SUBSETS.index(said) if isinstance(said, str) and said in SUBSETS else FREE


def _warn_of_others(images: Sequence[Image]) -> None:
    others = sorted(
        {str(image.extra["subset"]) for image in images if image.extra.get("subset") and _subset(image) < 0}
    )
    if others:
        logger.warning("the field 'subset' is not train, eval or test but %s: no split", ", ".join(others[:_SHOWN]))


def _clear_list(
    images: Sequence[Image], ties: Ties, owner: Owners, listed: npt.NDArray[np.bool_], leave_out: _Say
) -> None:
    for what, labels in (("near duplicate of", ties.duplicates), (f"same {ties.field} as", ties.fields)):
        for rows in _by_label(labels, owner):
            on_list = [row for row in rows if listed[row]]
            for row in rows if on_list else ():
                if not listed[row]:
                    leave_out(row, f"{what} {_first(images, on_list)}, which is on the test list")


def _separate_duplicates(images: Sequence[Image], ties: Ties, owner: Owners, leave_out: _Say) -> None:
    for rows in _by_label(ties.duplicates, owner):
        strongest = max(owner[rows])
        stronger = [row for row in rows if owner[row] == strongest]
        for row in rows:
            if FREE < owner[row] < strongest:
                where = f"which is in {SUBSETS[strongest]}, while this is in {SUBSETS[owner[row]]}"
                leave_out(row, f"near duplicate of {_first(images, stronger)}, {where}")


def _join(ties: Ties, owner: Owners, leave_out: _Say) -> None:
    if not (owner >= 0).any():
        return
    before = owner.copy()
    for rows in ties.groups(np.flatnonzero(owner != LEFT_OUT).tolist()):
        strongest = max(owner[rows])
        free = [row for row in rows if owner[row] == FREE]
        owner[free] = strongest
    # Ties through other images without a subset may lead to two subsets; then those at the border have to go.
    for labels in (ties.duplicates, ties.fields):
        for rows in _by_label(labels, owner):
            held = {int(before[row]) for row in rows} - {FREE}
            for row in rows:
                if held and before[row] == FREE and owner[row] not in held:
                    leave_out(row, f"tied to images of {_names(held)} and, by others, to some of {SUBSETS[owner[row]]}")


def _straddling(images: Sequence[Image], ties: Ties, owner: Owners) -> list[Finding]:
    findings = []
    for rows in _by_label(ties.fields, owner):
        counts = Counter(int(owner[row]) for row in rows if owner[row] >= 0)
        if len(counts) > 1:
            detail = " and ".join(f"{count} images in {SUBSETS[part]}" for part, count in sorted(counts.items()))
            weakest = _first(images, [row for row in rows if owner[row] == min(counts)])
            item = f"{ties.field} {ties.fields[rows[0]]}"
            findings.append(
                Finding(STRADDLES, "warning", item, "reported", f"{detail}, by the data's own split", weakest)
            )
    return sorted(findings, key=lambda finding: finding.item)


def _by_label(labels: Sequence[str], owner: Owners) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for row in np.flatnonzero(owner != LEFT_OUT).tolist():
        if labels[row]:
            groups.setdefault(labels[row], []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def _dropped(image: Image, why: str) -> Finding:
    return Finding(STRADDLES, "warning", image_item(image), "dropped", why, image.file_name)


def _first(images: Sequence[Image], rows: Sequence[int]) -> str:
    return min(images[row].file_name for row in rows)


def _names(subsets: Collection[int]) -> str:
    return " and ".join(SUBSETS[i] for i in sorted(subsets))
