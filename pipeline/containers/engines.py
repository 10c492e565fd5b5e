"""Programs that build images: which of them answers here, and how each is called."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StepError, UsageError, did_you_mean

ENGINES = ("docker", "podman", "nerdctl", "buildah")
"""The known programs; the first that answers is taken."""

_PATIENCE = 20.0  # seconds for an answer
# the OCI format has no health check; docker and nerdctl know it anyway
_DOCKER_FORMAT = ("podman", "buildah")


@dataclass(frozen=True)
class Engine:
    """A program that builds images."""

    name: str
    silence: str = ""  # why it cannot build one now; empty where it can


def find_engine() -> Engine:
    """The first program that could build an image now, else the first that is installed, else docker."""
    found = [Engine(name, silence_of(name)) for name in ENGINES if shutil.which(name)]
    none = Engine(ENGINES[0], f"none of {', '.join(ENGINES)} is installed")
    return next((each for each in found if not each.silence), next(iter(found), none))


def check_engine(name: str) -> None:
    """Raise a `UsageError` if a program is not a known one."""
    if name not in ENGINES:
        raise UsageError(
            f"{name!r} is no known engine", expected=f"one of {', '.join(ENGINES)}", remedy=did_you_mean(name, ENGINES)
        )


def silence_of(engine: str) -> str:
    """Why a program cannot build an image now; empty where it can. A client without its daemon cannot."""
    if shutil.which(engine) is None:
        return f"{engine} is not installed"
    try:
        asked = subprocess.run(
            [engine, "info"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{engine} does not answer: {error}"
    said = (asked.stderr.strip() or asked.stdout.strip()).splitlines()
    return f"{engine} does not answer: {said[-1] if said else 'no output'}" if asked.returncode else ""


def build_command(engine: str, context: Path, tag: str) -> list[str]:
    """The command line that builds the image."""
    options = ["--format", "docker"] if engine in _DOCKER_FORMAT else []
    return [engine, "build", *options, "--tag", tag, str(context)]


def build(engine: str, context: Path, tag: str) -> None:
    """Build the image; the program's output goes to standard error.

    Raises:
        StepError: The program failed.
    """
    command = build_command(engine, context, tag)
    ended = subprocess.run(["sh", "-c", 'exec "$@" >&2', "sh", *command], stdin=subprocess.DEVNULL, check=False)
    if ended.returncode:
        raise StepError(
            f"{engine} could not build the image: it ended with exit code {ended.returncode}",
            where=context,
            remedy=f"read what it printed, then run it again: {shlex.join(command)}",
        )
