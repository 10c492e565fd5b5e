"""Runs git in one checkout."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import StepError

# inside a hook git sets these to another repository
PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
SCP = re.compile(r"(?P<host>[\w.@-]+):(?P<path>[^/].*)")  # git@host:group/project.git


def git(root: Path, *arguments: str, above: bool = True) -> str | None:
    """git's output, or None if it fails or is not installed; with `above`, the checkout may begin above `root`."""
    try:
        done = _run(root, arguments, above=above)
    except FileNotFoundError:
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def git_or_fail(root: Path, *arguments: str, given: str = "") -> str:
    """git's output for the standard input `given`.

    Raises:
        StepError: git fails, or is not installed.
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


def source_url(root: Path) -> str:
    """URL of the repository: its remote `origin`, without anything secret, or else the folder itself.

    Args:
        root: The checkout.
    """
    remote = (git(root, "config", "--get", "remote.origin.url") or "").strip()
    if not remote:
        return root.resolve().as_uri()
    if scp := SCP.fullmatch(remote):
        return f"ssh://{scp['host']}/{scp['path']}"
    parts = urlsplit(remote)
    if not parts.scheme:  # a folder
        return (root / remote).resolve().as_uri()
    user = parts.username if parts.scheme == "ssh" else None  # over HTTPS even the name alone may be a token
    host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))


def changed_between(root: Path, one: str, other: str) -> tuple[str, ...] | None:
    """The lines of `git diff --stat` between two commits, or None where the repository lacks one of them.

    Args:
        root: The checkout.
        one: A commit.
        other: Another.
    """
    if not one or not other:
        return None
    stat = git(root, "diff", "--stat=100", "--no-color", "--no-ext-diff", "--no-textconv", one, other, "--")
    return None if stat is None else tuple(stat.splitlines())


def _run(
    root: Path, arguments: tuple[str, ...], given: str = "", *, above: bool = True
) -> subprocess.CompletedProcess[bytes]:
    surroundings = {name: value for name, value in os.environ.items() if name not in PLACES}
    surroundings["GIT_OPTIONAL_LOCKS"] = "0"  # a user's own git may need the index meanwhile
    if not above:
        root = root.resolve()
        surroundings["GIT_CEILING_DIRECTORIES"] = str(root.parent)
    return subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, env=surroundings, input=given.encode(), check=False
    )
