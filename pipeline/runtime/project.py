"""A project: a checkout with its steps, a config and a mode, which every command works on."""

from __future__ import annotations

import shlex
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
    """A project in one mode.

    Attributes:
        root: The checkout's top folder.
        mode: `dev` or `prod`.
        config: The config.
        config_file: Its file, relative to the project where it lies in it.
        steps: All steps, in the order in which they can run.
    """

    root: Path
    mode: str
    config: Config
    config_file: str
    steps: dict[str, StepNotebook]

    @property
    def resume(self) -> Path:
        """The folder in which killed attempts leave what the next attempt at the same work continues from."""
        return self.root / ".cache" / "resume"

    @cached_property
    def runs(self) -> Runs:
        """The runs of this zone and mode."""
        return Runs(Store(self.config.store_url(self.root, self.mode)))

    @property
    def options(self) -> str:
        """The options with which `python -m pipeline` works on these runs, for a command in a message."""
        return config_option(self.config_file) + mode_option(self.mode)

    def parameters(self, overrides: Values) -> Values:
        """Every step's parameters, checked in both modes before anything starts.

        Raises:
            UsageError: There is an unknown step, parameter or entity, or a value that is not allowed.
        """
        for step in (*self.config.parameters, *self.config.prod, *overrides):
            check_name("step", step, self.steps)
        for entity in self.config.deliver:
            check_name("entity", entity, [entity for step in self.steps.values() for entity in step.writes])
        for mode in {"dev", "prod"} - {self.mode}:
            self._resolve(mode, {})
        return self._resolve(self.mode, overrides)

    def _resolve(self, mode: str, overrides: Values) -> Values:
        values = self.config.values(mode)
        given = {name: {**values.get(name, {}), **overrides.get(name, {})} for name in self.steps}
        return follow_links(self.steps, given, {name: step.resolve(given[name]) for name, step in self.steps.items()})


def config_path(root: Path, typed: str | None) -> Path:
    """The config's file: relative to the working directory, else to the project."""
    return Path(typed) if typed and Path(typed).is_file() else root / (typed or DEFAULT_CONFIG)


def with_config(mode: str, path: Path, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project in one mode with one config."""
    config, file, top = read_config(path), path.resolve(), root.resolve()
    return Project(root, mode, config, (file.relative_to(top) if file.is_relative_to(top) else file).as_posix(), steps)


def with_config_of(manifest: RunManifest, root: Path, steps: dict[str, StepNotebook]) -> Project:
    """The project with a run's config: from its file, or as it was recorded if that is gone."""
    path = root / manifest.config_file
    if path.is_file():
        return with_config(manifest.mode, path, root, steps)
    return Project(root, manifest.mode, as_config(manifest.recorded_config, path), manifest.config_file, steps)


def config_option(config_file: str) -> str:
    """` --config FILE`, unless it is the default."""
    return "" if config_file == DEFAULT_CONFIG else f" --config {shlex.quote(config_file)}"


def mode_option(mode: str) -> str:
    """` --mode prod`, unless the mode is dev."""
    return " --mode prod" if mode == "prod" else ""


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name.

    Raises:
        UsageError: With the nearest known name.
    """
    names = list(known)
    if name not in names:
        remedy = did_you_mean(name, names, cutoff=0.4)
        raise UsageError(f"there is no {kind} '{name}'", expected="one of " + ", ".join(names), remedy=remedy)
