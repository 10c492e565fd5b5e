"""Images excluded between a source and the three sets: how many of how many, and why.

Every exclusion is recorded, so that counts add up: loaded images minus exclusions are the images of the three sets.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.tables import Table

log = logging.getLogger(__name__)

FILE_NAME = "exclusions.json"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Images excluded for one reason; `str` gives a sentence.

    Attributes:
        count: Number of excluded images.
        of: Number of images before.
        reason: The reason, as it follows a colon.
        subset: The set that lost them; empty before the split.
    """

    count: int
    of: int
    reason: str
    subset: str = ""

    def __str__(self) -> str:
        place = f" from {self.subset}" if self.subset else ""
        return f"{self.count} of {self.of} images excluded{place}: {self.reason}"


def exclude(counts: Mapping[str, int], of: int, *, subset: str = "") -> tuple[Exclusion, ...]:
    """Record and log an exclusion for each reason with a count above 0."""
    found = tuple(Exclusion(count, of, reason, subset) for reason, count in counts.items() if count)
    for each in found:
        log.info("%s", each)
    return found


def exclusions_table(exclusions: Iterable[Exclusion]) -> Table:
    """A row for each exclusion."""
    rows = tuple((each.count, each.of, each.subset or "all", each.reason) for each in exclusions)
    title = "Images excluded" if rows else "No image was excluded"
    return Table(title, ("excluded", "of images", "set", "why"), rows)


def write_exclusions(folder: Path, exclusions: Iterable[Exclusion]) -> None:
    """Write exclusions into a dataset's folder, for data preparation; no file where there are none."""
    records = [asdict(each) for each in exclusions]
    if records:
        (folder / FILE_NAME).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def read_exclusions(folder: Path) -> tuple[Exclusion, ...]:
    """Read what `write_exclusions` wrote; empty where there is no file."""
    path = folder / FILE_NAME
    return tuple(Exclusion(**each) for each in json.loads(path.read_text("utf-8"))) if path.is_file() else ()
