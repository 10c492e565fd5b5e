"""A checkout with its steps, a scenario and a mode: what every command works on."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.config import Config, Values
from pipeline.errors import UsageError
from pipeline.notebook import StepNotebook, follow_links
from pipeline.runs import Runs
from pipeline.store import Store

DEFAULT_CONFIG = "configs/demo.yaml"


@dataclass(frozen=True)
class Project:
    """Where things are, and in which mode.

    Attributes:
        root: The checkout's top folder.
        mode: `dev` or `prod`.
        config: The scenario.
        config_file: Where it was read.
        steps: All of them, in the order in which they can run.
    """

    root: Path
    mode: str
    config: Config
    config_file: str
    steps: dict[str, StepNotebook]

    @property
    def resume(self) -> Path:
        """Where steps leave what a next attempt at the same work may go on from."""
        return self.root / ".cache" / "resume"

    @cached_property
    def runs(self) -> Runs:
        """The runs of this zone and mode."""
        return Runs(Store(self.config.store_url(self.root, self.mode)))

    def parameters(self, overrides: Values) -> Values:
        """Every step's parameters, checked before anything starts; those of the other mode are checked with them.

        Raises:
            UsageError: An unknown step, parameter or entity, or a value of the wrong type.
        """
        for step in (*self.config.parameters, *self.config.prod, *overrides):
            check_name("step", step, self.steps)
        for entity in self.config.deliver:
            check_name("entity", entity, [entity for step in self.steps.values() for entity in step.writes])
        for mode in {"dev", "prod"} - {self.mode}:
            self._resolved(mode, {})
        return self._resolved(self.mode, overrides)

    def _resolved(self, mode: str, overrides: Values) -> Values:
        values = self.config.values(mode)
        given = {name: {**values.get(name, {}), **overrides.get(name, {})} for name in self.steps}
        return follow_links(self.steps, given, {name: step.resolve(given[name]) for name, step in self.steps.items()})


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that stands for nothing.

    Raises:
        UsageError: With the nearest right one.
    """
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, 1, 0.4)
        raise UsageError(
            f"there is no {kind} '{name}'",
            expected="one of " + ", ".join(names),
            remedy=f"did you mean '{near[0]}'?" if near else "",
        )
