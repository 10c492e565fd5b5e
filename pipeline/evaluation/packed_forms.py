"""The list of the forms that a model was packed in, beside the service that a run is about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FORMS_FILE = "forms.json"


@dataclass(frozen=True)
class PackedForm:
    """A form whose Bento lies in a folder of its name, or why there is none."""

    name: str  # of `FORMS`
    bento: str = ""  # the tag; empty where it was not packed
    absence: str = ""  # why


def write_forms(forms: Sequence[PackedForm], folder: Path) -> None:
    """Write the list of forms beside their folders."""
    text = json.dumps([asdict(each) for each in forms], indent=2, ensure_ascii=False)
    (folder / FORMS_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_forms(folder: Path) -> tuple[PackedForm, ...]:
    """Read it."""
    return tuple(PackedForm(**each) for each in json.loads((folder / FORMS_FILE).read_text(encoding="utf-8")))
