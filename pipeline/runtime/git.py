"""git, asked about one checkout and nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pipeline.errors import StepError

# inside a hook git names another repository than the one that is asked about
PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")


def git(root: Path, *arguments: str, above: bool = True) -> str | None:
    """What git prints, or None where it fails or is not installed.

    Args:
        root: The checkout.
        arguments: Of the command line.
        above: Whether the checkout may be one of the folders above `root`.
    """
    try:
        done = _run(root, arguments, above=above)
    except FileNotFoundError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def git_or_fail(root: Path, *arguments: str, given: str = "") -> str:
    """What git prints.

    Args:
        root: The checkout.
        arguments: Of the command line.
        given: What it reads.

    Raises:
        StepError: It fails, or is not installed.
    """
    command = f"git {' '.join(arguments[:2])}"
    try:
        done = _run(root, arguments, given)
    except FileNotFoundError as error:
        raise StepError("git is not installed", where=command, remedy="install git") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise StepError(
            f"git fails: {said[0] if said else f'exit code {done.returncode}'}", where=f"{command} in {root}"
        )
    return done.stdout.decode(errors="replace")


def _run(
    root: Path, arguments: tuple[str, ...], given: str = "", *, above: bool = True
) -> subprocess.CompletedProcess[bytes]:
    surroundings = {name: value for name, value in os.environ.items() if name not in PLACES}
    surroundings["GIT_OPTIONAL_LOCKS"] = "0"  # a person's own git may want the index meanwhile
    if not above:
        root = root.resolve()
        surroundings["GIT_CEILING_DIRECTORIES"] = str(root.parent)
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, env=surroundings, input=given.encode(), check=False
    )
