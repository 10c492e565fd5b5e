"""What the command lines share: their commands as objects, exit codes, and errors as text.

Exit code 0 for success, 1 when a step or quality gate failed, 2 for a wrong call, 130 after Ctrl-C, 143 after SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from pipeline.errors import PipelineError, UsageError
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.notebook import StepNotebook, read_steps
from pipeline.runtime.project import DEFAULT_CONFIG, DEFAULT_MODE, MODES, Project, check_name, with_config
from pipeline.runtime.resolving import LATEST, find_run
from pipeline.runtime.step import project_root

Argument = tuple[tuple[str, ...], dict[str, Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CommandContext:
    """What a command works on: the parsed command line, and the project's folder."""

    arguments: argparse.Namespace
    given_root: Path | None = None

    @cached_property
    def root(self) -> Path:
        """The project's folder: the given one, or that around the working directory. Not every command needs one."""
        return self.given_root or project_root(Path.cwd())

    @cached_property
    def steps(self) -> dict[str, StepNotebook]:
        """All steps, in the order in which they run."""
        return read_steps(self.root / "steps")

    @cached_property
    def project(self) -> Project:
        """The project in the chosen mode, with the named config or the default one."""
        typed = self.arguments.config
        path = Path(typed) if typed and Path(typed).is_file() else self.root / (typed or DEFAULT_CONFIG)
        return with_config(self.arguments.mode or DEFAULT_MODE, path, self.root, self.steps)

    @property
    def projects(self) -> list[Project]:
        """The project in the chosen mode, or in every mode where none was chosen."""
        modes = [self.arguments.mode] if self.arguments.mode else MODES
        return [replace(self.project, mode=mode) for mode in modes]

    @property
    def pipeline(self) -> str:
        """The pipeline whose runs `latest` counts: that of `--config`, or any."""
        return self.project.config.name if self.arguments.config else ""

    def find_run(self, name: str | None, *, having: str = "") -> RunManifest:
        """The named run, or the newest; `latest` counts the runs of `pipeline`, `having` an output of an entity."""
        return find_run(self.project, name, pipeline=self.pipeline, having=having)

    def find_step_and_run(self) -> tuple[str, RunManifest]:
        """The step and the run of a command that takes both, in either order."""
        step, run = self.arguments.step, self.arguments.run
        looks_like_run = step and (LATEST.fullmatch(step) or step[0].isdigit())
        if step not in self.steps and (run in self.steps or looks_like_run):
            step, run = run, step
        if step is None:
            raise UsageError("no step is named", expected=f"one of {', '.join(self.steps)}")
        manifest = self.find_run(run)
        check_name("step", step, dict.fromkeys([*self.steps, *(record.step for record in manifest.attempts)]))
        return step, manifest


@dataclass(frozen=True)
class CommandResult:
    """The result of a command: as JSON for `--json`, as text, and the exit code."""

    content: Any
    text: str
    code: int = 0


Run = Callable[[CommandContext], CommandResult]
COMMANDS: dict[str, tuple[str, tuple[Argument, ...], Run]] = {}  # name to help, arguments and function


class ShowVersion(argparse.Action):
    """`--version`: print the version, and exit."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it."""
        from importlib import metadata  # slow to import, and not needed otherwise

        sys.stdout.write(f"detection-pipeline {metadata.version('detection-pipeline')}\n")
        parser.exit()


def command(name: str, purpose: str, *arguments: Argument) -> Callable[[Run], Run]:
    """Register the decorated function as a command; the help lists commands in the order of registration."""

    def add(run: Run) -> Run:
        COMMANDS[name] = purpose, arguments, run
        return run

    return add


def argument(*names: str, **options: Any) -> Argument:
    """One argument, as `ArgumentParser.add_argument` takes it."""
    return names, options


def check_folder_of(path: Path) -> None:
    """Raise a `UsageError` where there is no folder for an output."""
    if not path.parent.is_dir():
        raise UsageError("there is no folder for the output", where=path.parent, remedy="make it first")


def check_file_to_write(path: Path) -> None:
    """Raise a `UsageError` where a file cannot be written, so that a command is refused before it has done its work."""
    if path.is_dir() or not path.name:
        raise UsageError("the output is a folder", where=path, expected="the name of a file to write")
    check_folder_of(path)


def run_guarded(action: Callable[[], int], stopped: str = "stopped") -> int:
    """Run a command line, and turn what goes wrong into text and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    before = signal.signal(signal.SIGTERM, _raise_interrupt)
    try:
        return action()
    except PipelineError as error:
        log.error("error: %s", error)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as stop:
        log.error("%s", stopped)
        return 128 + int(stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # the disk is full or read-only, a store does not answer
        log.error("error: %s", _plain(error))
        return 1
    finally:
        signal.signal(signal.SIGTERM, before)


def _plain(error: OSError) -> str:
    """What the operating system refuses, in the form of all errors."""
    if not error.strerror:
        return f"{type(error).__name__}: {error}"
    where = f"\n  where:    {error.filename}" if error.filename else ""
    return f"{error.strerror[:1].lower()}{error.strerror[1:]}{where}"


def print_result(text: str) -> None:
    """Print to standard output what was asked for; everything else is logged to standard error."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _raise_interrupt(number: int, _: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)
