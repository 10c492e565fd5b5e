"""What a command that looks at runs is given and gives back, and how it becomes one: see `commands`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.notebook import StepNotebook, read_steps
from pipeline.runtime.project import Project, config_path, with_config, with_config_of
from pipeline.runtime.resolving import find_run


@dataclass(frozen=True)
class Look:
    """What a command is given: the arguments, and the project they are about.

    Attributes:
        asked: Arguments by name.
        root: The project's folder.
    """

    asked: argparse.Namespace
    root: Path

    @cached_property
    def steps(self) -> dict[str, StepNotebook]:
        """All steps, in their order."""
        return read_steps(self.root / "steps")

    @cached_property
    def project(self) -> Project:
        """In the asked mode, with the named config or the usual one."""
        return with_config(self.asked.mode, config_path(self.root, self.asked.config), self.root, self.steps)

    def run(self, name: str | None) -> RunManifest:
        """The run that a person means, or the newest; a named config asks for its own runs."""
        return find_run(self.project, name, pipeline=self.project.config.name if self.asked.config else "")

    def project_of(self, manifest: RunManifest) -> Project:
        """The project with a run's own config."""
        return with_config_of(manifest, self.root, self.steps)


@dataclass(frozen=True)
class Answer:
    """What a command found: for programs (`--json`), for people, and the exit code."""

    content: Any
    text: str
    code: int = 0


@dataclass(frozen=True)
class Command:
    """One command: what it is for, its arguments as argparse takes them, and what it does."""

    help: str
    arguments: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]
    act: Callable[[Look], Answer]


COMMANDS: dict[str, Command] = {}


def command(
    name: str, purpose: str, *arguments: tuple[tuple[str, ...], dict[str, Any]]
) -> Callable[[Callable[[Look], Answer]], Callable[[Look], Answer]]:
    """Make the function below a command; listed in the order in which they stand here."""

    def add(act: Callable[[Look], Answer]) -> Callable[[Look], Answer]:
        COMMANDS[name] = Command(purpose, arguments, act)
        return act

    return add


def argument(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """One argument, as `ArgumentParser.add_argument` takes it."""
    return names, options
