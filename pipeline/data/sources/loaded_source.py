"""The result of loading a source: image files in one folder, annotation files in another, and what was skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNLABELLED = "it is not labelled"
_SHOWN = 5  # reasons


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item of the source that was not taken, and why. Bytes of a name that are no UTF-8 are written as escapes."""

    item: str
    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "item", self.item.encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True, repr=False)
class LoadedSource:
    """What was taken from a source."""

    kind: str  # `sample`, `folder`, `archive`, `file`, `video`, `database` or `api`
    url: str  # without secrets
    sha256: str = ""  # the digest of the source if it is one file
    images: int = 0
    bytes: int = 0  # of the image files
    skipped: tuple[Skipped, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)  # by their names in the source: converted images
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by name in the folder: clip and frame, …

    @property
    def unannotated(self) -> int:
        """Number of images that were not taken because nobody annotated them."""
        return sum(each.reason == UNLABELLED for each in self.skipped)

    @property
    def notes(self) -> tuple[str, ...]:
        """The most common reasons in `skipped`, each with the number of items and the first of them."""
        counts = Counter(each.reason for each in self.skipped)
        first = {each.reason: each.item for each in reversed(self.skipped)}
        common = counts.most_common(_SHOWN)
        notes = [f"{count} skipped: {reason}, such as {first[reason]}" for reason, count in common]
        rest = counts.total() - sum(count for _, count in common)
        return tuple([*notes, f"{rest} skipped for {len(counts) - len(common)} other reasons"] if rest else notes)

    def __str__(self) -> str:
        converted = f", {len(self.renamed)} of them converted" if self.renamed else ""
        taken = f"{self.images} images, {self.bytes / 1e6:.1f} MB{converted}, from {self.kind} {self.url}"
        return "\n".join([taken, *self.notes])

    __repr__ = __str__
