"""A checkout with its steps, a scenario and a mode: what every command works on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipeline.errors import UsageError, did_you_mean
from pipeline.runtime.config import Config, Values, as_config, read_config
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.notebook import StepNotebook, follow_links
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Store

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


def config_path(root: Path, typed: str | None) -> Path:
    """A config is looked for where the user stands, then in the project."""
    return Path(typed) if typed and Path(typed).is_file() else root / (typed or DEFAULT_CONFIG)


def with_config(mode: str, path: Path, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project in one mode with one config, which is noted relative to the project where it lies in it."""
    config, whole, top = read_config(path), path.resolve(), root.resolve()
    noted = whole.relative_to(top) if whole.is_relative_to(top) else whole
    return Project(root, mode, config, noted.as_posix(), steps)


def with_config_of(manifest: RunManifest, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project with a run's own config: as its file is now, or as it was recorded where there is none any more."""
    path = root / manifest.config_file
    if path.is_file():
        return with_config(manifest.mode, path, root, steps)
    recorded = {key: value for key, value in manifest.config.items() if key not in ("set", "input")}
    return Project(root, manifest.mode, as_config(recorded, path), manifest.config_file, steps)


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that stands for nothing.

    Raises:
        UsageError: With the nearest right one.
    """
    names = list(known)
    if name not in names:
        remedy = did_you_mean(name, names, cutoff=0.4)
        raise UsageError(f"there is no {kind} '{name}'", expected="one of " + ", ".join(names), remedy=remedy)
