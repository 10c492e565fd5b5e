"""What a source gave: image files in one folder, annotation files in another, and what was left behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.data.tables import Table

NEITHER = "neither an image nor an annotation"
UNLABELLED = "it is not labelled"

_SHOWN = 10  # reasons
_NOTED = 3


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in the source that was not taken, and why."""

    item: str
    reason: str


@dataclass(frozen=True, repr=False)
class Raw:
    """What was taken from a source.

    Attributes:
        kind: `sample`, `folder`, `archive`, `file`, `video`, `database` or `api`.
        url: Where it came from, as it may be shown: without anything secret.
        sha256: Of the source, where it is one file; empty where it is not.
        images: How many image files were written.
        bytes: Their size together.
        skipped: What was not taken.
        renamed: Name in the source to name in the folder, of images that had to be converted.
        fields: What the source says of its images, by name in the folder: the clip and frame of a video, and the like.
        unannotated: How many images were not taken because nobody annotated them.
    """

    kind: str
    url: str
    sha256: str = ""
    images: int = 0
    bytes: int = 0
    skipped: tuple[Skipped, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unannotated: int = 0

    @property
    def left_behind(self) -> Table:
        """What was not taken: how many by reason, each with the first of them."""
        counts = Counter(each.reason for each in self.skipped)
        first = {each.reason: each.item for each in reversed(self.skipped)}
        rows = tuple((reason, count, first[reason]) for reason, count in counts.most_common(_SHOWN))
        return Table(f"{len(self.skipped)} skipped", ("reason", "count", "such as"), rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """The commonest reasons in `skipped`, a sentence each, less two.

        Files that are neither images nor annotations are of no interest; tasks that nobody labelled are told of by
        `unannotated`.
        """
        counts = Counter(each.reason for each in self.skipped if each.reason not in {NEITHER, UNLABELLED})
        return tuple(
            f"{count} item{'s' * (count > 1)} of the source: {reason}" for reason, count in counts.most_common(_NOTED)
        )

    def __str__(self) -> str:
        converted = f", {len(self.renamed)} of them converted" if self.renamed else ""
        taken = f"{self.images} images, {self.bytes / 1e6:.1f} MB{converted}, from {self.kind} {self.url}"
        return f"{taken}\n{self.left_behind}" if self.skipped else taken

    __repr__ = __str__
