"""How a dataset was prepared, as the head of its report states it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_DIRTY = "-dirty"


@dataclass(frozen=True)
class Preparation:
    """How a dataset was prepared. It holds only what is the same each time, so that the report is the same, too.

    Anything may be empty where it is not known.
    """

    code_version: str = ""  # the commit of the code, with `-dirty` where the tree differed from it
    code_time: str = ""  # of the commit: ISO 8601 in UTC
    inputs: Mapping[str, str] = field(default_factory=dict)  # the digest of each input by its name
    parameters: Mapping[str, Any] = field(default_factory=dict)  # all of them, without secrets
    defaults: Mapping[str, Any] = field(default_factory=dict)  # by the same names
    find_runs: str = ""  # the command that lists the runs which made the data, and what was made from it

    @property
    def commit(self) -> str:
        """The commit alone."""
        return self.code_version.removesuffix(_DIRTY)

    @property
    def is_dirty(self) -> bool:
        """Whether the code was changed after that commit."""
        return self.code_version.endswith(_DIRTY)

    @property
    def changed(self) -> dict[str, tuple[str, str]]:
        """The parameters that are not at their defaults: value and default, as text."""
        values = self.parameters.items()
        return {
            name: (_text(value), _text(self.defaults[name]))
            for name, value in values
            if name in self.defaults and value != self.defaults[name]
        }

    @property
    def values(self) -> dict[str, str]:
        """All parameters as text."""
        return {name: _text(value) for name, value in self.parameters.items()}


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
