"""Images that must stay together: near duplicates, and images with the same value of a field, such as their video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.data.coco import Image
from pipeline.errors import UsageError, did_you_mean

VIDEO, SCENE = "video", "scene"  # fields that the source gives to frames of videos
_SHOWN = 20  # fields in an error


@dataclass(frozen=True)
class Ties:
    """What ties images to each other, in the order of the images; empty for an image without such a tie.

    The values of the field to group by are JSON, so that `1` and `"1"` differ; a scene's has its video, too.
    """

    duplicates: tuple[str, ...]  # the group of near duplicates of each image
    fields: tuple[str, ...]  # the value of the field to group by of each image
    field: str = ""  # its name

    def groups(self, rows: Sequence[int]) -> list[list[int]]:
        """Images tied to each other, directly or through others of these rows; each image in exactly one group."""
        groups: dict[int, list[int]] = {}
        for row, root in zip(rows, components(rows, (self.duplicates, self.fields)), strict=True):
            groups.setdefault(root, []).append(row)
        return list(groups.values())

    def key(self, images: Sequence[Image], group: Sequence[int]) -> str:
        """The identity of a group of rows: its smallest field value, or without any its smallest file name.

        So a new frame of a video does not change the video's key, nor does a new near duplicate, unless its name comes
        before those of all others.
        """
        values = [self.fields[row] for row in group if self.fields[row]]
        return f"{self.field}\0{min(values)}" if values else min(images[row].file_name for row in group)


def read_ties(images: Sequence[Image], groups: Mapping[str, str], group_by: str) -> Ties:
    """Find what ties images to each other.

    `groups` has the key of its group by file name, for images that have near duplicates. `group_by` is a key of
    `Image.extra`; empty for none, and a `UsageError` if no image has it. Images without it, or where it is null, an
    empty text or NaN, are groups of their own. Scenes are counted in each video: both have to agree.
    """
    fields = tuple(_label(image, group_by) for image in images)
    if group_by and images and not any(fields):
        known = sorted({key for image in images for key in image.extra if _label(image, key)})
        there = f"there are: {', '.join(known[:_SHOWN])}" if known else "leave group_by empty: images have no fields"
        remedy = f"{did_you_mean(group_by, known, cutoff=0.6)} {there}".strip()
        raise UsageError(f"no image has a field '{group_by}' to group by", remedy=remedy)
    return Ties(tuple(groups.get(image.file_name, "") for image in images), fields, group_by)


def has_field(images: Sequence[Image], field: str) -> bool:
    """Whether any image has a value there."""
    return any(_label(image, field) for image in images)


def components(rows: Sequence[int], labelings: Sequence[Sequence[str]]) -> list[int]:
    """For each row the position of the first that it shares a label with, directly or through others."""
    first: dict[tuple[int, str], int] = {}
    ties = [
        (item, first.setdefault((kind, labels[row]), item))
        for kind, labels in enumerate(labelings)
        for item, row in enumerate(rows)
        if labels[row]
    ]
    graph = coo_array((np.ones(len(ties)), np.array(ties, np.intp).reshape(-1, 2).T), (len(rows), len(rows)))
    _, component, position = np.unique(connected_components(graph)[1], return_index=True, return_inverse=True)
    return [int(each) for each in component[position]]


def _label(image: Image, field: str) -> str:
    value, video = image.extra.get(field), image.extra.get(VIDEO)
    if _is_absent(value):
        return ""
    label: Any = [video, value] if field == SCENE and not _is_absent(video) else value
    return json.dumps(label, sort_keys=True, ensure_ascii=False, default=str)


def _is_absent(value: Any) -> bool:
    return value is None or value == "" or value != value  # NaN is what tables have where there is nothing
