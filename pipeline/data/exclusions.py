"""Images that are left out between a source and the three sets: how many of how many, and why.

Whatever leaves images out says so with an `Exclusion`, so that their counts add up: the images that were loaded, less
all exclusions, are those in the three sets.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.data.tables import Table

logger = logging.getLogger(__name__)

FILE_NAME = "exclusions.json"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Images left out for one reason; as text, one sentence.

    Attributes:
        count: How many.
        of: Of how many that there were.
        reason: Why, as it follows a colon.
        subset: The set they were left out of; empty where there are no sets yet.
    """

    count: int
    of: int
    reason: str
    subset: str = ""

    def __str__(self) -> str:
        place = f" from {self.subset}" if self.subset else ""
        return f"{self.count} of {self.of} images excluded{place}: {self.reason}"


def exclude(counts: Mapping[str, int], of: int, *, subset: str = "") -> tuple[Exclusion, ...]:
    """One exclusion for each reason that took images, each said in the log.

    Args:
        counts: How many images each reason took.
        of: How many images there were.
        subset: The set they were left out of; empty where there are no sets yet.
    """
    found = tuple(Exclusion(count, of, reason, subset) for reason, count in counts.items() if count)
    for each in found:
        logger.info("%s", each)
    return found


def exclusions_table(exclusions: Iterable[Exclusion]) -> Table:
    """A row for each exclusion."""
    rows = tuple((each.count, each.of, each.subset or "all", each.reason) for each in exclusions)
    title = "Images excluded" if rows else "No image was excluded"
    return Table(title, ("excluded", "of images", "set", "why"), rows)


def write_exclusions(folder: Path, exclusions: Iterable[Exclusion]) -> None:
    """Keep exclusions beside a data set, for whoever prepares it; no file where there are none."""
    records = [asdict(each) for each in exclusions]
    if records:
        (folder / FILE_NAME).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


def read_exclusions(folder: Path) -> tuple[Exclusion, ...]:
    """What `write_exclusions` kept; nothing where there is no file."""
    path = folder / FILE_NAME
    return tuple(Exclusion(**each) for each in json.loads(path.read_text("utf-8"))) if path.is_file() else ()
