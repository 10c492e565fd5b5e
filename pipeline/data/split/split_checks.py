"""Problems of a split: a subset that is empty, of another size than asked for, or without a class."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.data.checks.findings import Finding
from pipeline.data.coco import CocoDataset, Image
from pipeline.data.groups import VIDEO, Ties, read_ties
from pipeline.data.split.predefined import SUBSETS, TRAIN, Integers, first_name
from pipeline.data.split.subset_assignment import Shares, SplitGroups, objects
from pipeline.errors import DataError

log = logging.getLogger(__name__)

_OFF = 0.1  # share of its size that a subset may miss without a finding
_LARGE = 0.5  # share of the images in one group from which on a warning is due


def check_empty(counts: Integers, shares: Shares, images: Sequence[Image], groups: SplitGroups, mode: str) -> None:
    """Raise a `DataError` where a subset has a share and no image."""
    total = int(groups.weights.sum())
    for name, size, share in zip(SUBSETS, counts, shares, strict=True):
        if share > 0 and size == 0:
            remedy = "take more images, or give it a larger share"
            if mode == "stable":
                remedy += "; the balanced mode gives every subset its share"
            elif (groups.subset >= 0).any():
                remedy += "; or set source_split to ignore, not to honour the data's own split"
            elif total > len(groups.rows):
                remedy = f"{_largest(images, groups)}: let fewer images belong together, or drop near duplicates"
            raise DataError(f"the {name} set would be empty: {share:.0%} of {total} images", remedy=remedy)


def sizes_missed(
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


def clips_divided(images: Sequence[Image], ties: Ties, parts: Sequence[CocoDataset]) -> list[Finding]:
    """One finding on clips with frames in more than one subset."""
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


def absent_classes(parts: Sequence[CocoDataset]) -> list[Finding]:
    """Classes that no image of a subset shows."""
    shown = np.array([images_per_class(part) for part in parts])  # (subsets, classes)
    findings = []
    for column, name in enumerate(parts[TRAIN].classes):
        total = int(shown[:, column].sum())
        absent = [SUBSETS[i] for i, part in enumerate(parts) if part.images and not shown[i, column]]
        if absent:
            images = f"{total} image{'s' * (total != 1)}"
            detail = f"in {images}, none of them in {' or '.join(absent)}" if total else "no image shows it"
            findings.append(Finding("class-absent-from-subset", "warning", f"class '{name}'", "reported", detail))
    return findings


def images_per_class(dataset: CocoDataset) -> Integers:
    """How many images show each class, `(classes,)`."""
    rows, columns = objects(dataset, dataset.images)
    width = max(1, len(dataset.categories))
    return np.bincount(np.unique(rows * width + columns) % width, minlength=len(dataset.categories))
