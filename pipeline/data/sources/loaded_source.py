"""The result of loading a source: image files in one folder, annotation files in another, and what became of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNLABELLED = "it is not labelled"
_SHOWN = 5  # reasons


@dataclass(frozen=True, slots=True)
class Skipped:
    """An item of the source, and why it was not taken, or how it was converted.

    Bytes of a name that are no UTF-8 are written as escapes.
    """

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
    converted: tuple[Skipped, ...] = ()  # images that were taken, and what their conversion changed or left out
    remarks: tuple[str, ...] = ()  # what else the user should know of how the source was read, a sentence each
    member: str = ""  # the only annotation file to read, as the user named it for the source; empty for all
    place: str = ""  # the folders that lead to the images, as far as they tell images of several folders apart
    renamed: Mapping[str, str] = field(default_factory=dict)  # names in the folder by those in the source, if others
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by name in the folder: clip and frame, …

    @property
    def unannotated(self) -> int:
        """Number of images that were not taken because nobody annotated them."""
        return sum(each.reason == UNLABELLED for each in self.skipped)

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks, and the most common reasons of what was converted and skipped, each with the first item."""
        return (*self.remarks, *_counted("converted", self.converted), *_counted("skipped", self.skipped))

    def __str__(self) -> str:
        renamed = f", {len(self.renamed)} of them under new names" if self.renamed else ""
        taken = f"{self.images} images, {self.bytes / 1e6:.1f} MB{renamed}, from {self.kind} {self.url}"
        return "\n".join([taken, *self.notes])

    __repr__ = __str__


def _counted(what: str, items: tuple[Skipped, ...]) -> list[str]:
    counts = Counter(each.reason for each in items)
    first = {each.reason: each.item for each in reversed(items)}
    common = counts.most_common(_SHOWN)
    notes = [f"{count} {what}: {reason}, such as {first[reason]}" for reason, count in common]
    rest = counts.total() - sum(count for _, count in common)
    return [*notes, f"{rest} {what} for {len(counts) - len(common)} other reasons"] if rest else notes
