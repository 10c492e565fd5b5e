"""A git checkout: its state, its commits and its URL."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import StepError
from pipeline.files import sha256_of

# inside a hook git sets these to another repository
PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
SCP = re.compile(r"(?P<host>[\w.@-]+):(?P<path>[^/].*)")  # git@host:group/project.git
PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/")
DIFF = ("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv", *PREFIXES)  # whatever git's config says
STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=all", "--no-renames", "-z")
COMMIT = "# branch.oid "


@dataclass(frozen=True)
class CodeState:
    """The working tree."""

    commit: str  # full hash, empty outside a git checkout or before the first commit
    dirty: bool  # whether anything differs from the commit
    diff: str  # of the tracked files; bytes that are not UTF-8 are replaced
    untracked: dict[str, str]  # names of files that git neither tracks nor ignores, with their SHA-256


def git(root: Path, *arguments: str) -> str | None:
    """git's output, or None if it fails or is not installed."""
    try:
        return git_or_fail(root, *arguments)
    except StepError:
        return None


def git_or_fail(root: Path, *arguments: str, given: str = "") -> str:
    """git's output for the standard input `given`, or a StepError."""
    surroundings = {name: value for name, value in os.environ.items() if name not in PLACES}
    surroundings["GIT_OPTIONAL_LOCKS"] = "0"  # a user's own git may need the index meanwhile
    command, where = ["git", "-C", str(root), *arguments], f"git {' '.join(arguments[:2])} in {root}"
    try:
        done = subprocess.run(command, capture_output=True, env=surroundings, input=given.encode(), check=False)
    except FileNotFoundError as error:
        raise StepError("git is not installed", where=where, remedy="install git") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise StepError(f"git fails: {said[0] if said else f'exit code {done.returncode}'}", where=where)
    return done.stdout.decode(errors="replace")


def code_state(root: Path) -> CodeState:
    """The state of the checkout whose top folder is `root`. A clean tree takes one call of git."""
    status = git(root, *STATUS) if (root / ".git").exists() else None
    if status is None:
        return CodeState("", True, "", {})
    entries = status.split("\0")
    commit = next((entry.removeprefix(COMMIT) for entry in entries if entry.startswith(COMMIT)), "")
    commit = "" if commit == "(initial)" else commit
    differs = any(entry[:2] in ("1 ", "2 ", "u ") for entry in entries)  # a tracked file
    diff = git(root, *DIFF, "HEAD") if commit and differs else ""
    names = [entry[2:] for entry in entries if entry.startswith("? ")]
    untracked = {name: sha256_of(root / name) for name in names if (root / name).is_file()}
    clean = diff == "" and commit and not untracked  # if git diff fails, the tree counts as dirty
    return CodeState(commit, not clean, diff or "", untracked)


def changed_files(code: Mapping[str, Any]) -> list[str]:
    """Names of all files that differ from the commit, of a recorded `CodeState`."""
    headers = [line for line in code.get("diff", "").splitlines() if line.startswith("diff --git ")]
    return [*(line.split(" b/")[-1].rstrip('"') for line in headers), *code.get("untracked", {})]


def commit_time(root: Path, commit: str) -> str:
    """The time of a commit, ISO 8601 in UTC; empty where there is no such commit."""
    shown = git(root, "show", "--no-patch", "--no-show-signature", "--format=%ct", commit, "--") if commit else None
    return datetime.fromtimestamp(int(shown), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if shown else ""


def refuse_dirty(root: Path, code: CodeState) -> None:
    """Refuse to run uncommitted code in prod mode; nothing in the tree is touched."""
    if not code.commit:
        raise StepError(
            "prod needs a commit",
            where=root,
            expected="the top folder of a git checkout",
            remedy="git init, git add, git commit; or run: python step.dev.py",
        )
    if code.dirty:
        names = changed_files(vars(code))
        raise StepError(
            f"prod refuses a dirty tree: {len(names)} files differ from the commit",
            where=", ".join(names[:5]) + (" ..." if len(names) > 5 else ""),
            expected="everything committed",
            remedy="commit or stash, or run: python step.dev.py",
        )


def tag(root: Path, commit: str, run: str, step: str) -> str:
    """Tag a commit with a run's id, and return the tag's name; an existing tag is never moved.

    If the run's steps ran at several commits, each later one gets its own tag.
    """
    for name in (run, f"{run}-{step}", f"{run}-{step}-{commit[:12]}"):
        existing = git(root, "rev-parse", "-q", "--verify", f"refs/tags/{name}^{{commit}}")
        if existing is None:
            break
        if existing.strip() == commit:
            return name
    if git(root, "tag", "--no-sign", name, commit) is None:
        raise StepError(f"git could not tag the commit with {name}", where=root, remedy=f"git tag {name} {commit}")
    return name


def source_url(root: Path) -> str:
    """URL of the repository: its remote `origin`, without anything secret, or else the folder itself."""
    remote = (git(root, "config", "--get", "remote.origin.url") or "").strip()
    if scp := SCP.fullmatch(remote):
        return f"ssh://{scp['host']}/{scp['path']}"
    parts = urlsplit(remote)
    if not parts.scheme:  # a folder, or no remote
        return (root / remote).resolve().as_uri()
    user = parts.username if parts.scheme == "ssh" else None  # over HTTPS even the name alone may be a token
    host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    return urlunsplit((parts.scheme, f"{user}@{host}" if user else host, parts.path, "", ""))


def changed_between(root: Path, one: str, other: str) -> tuple[str, ...] | None:
    """The lines of `git diff --stat` between two commits, or None where the repository lacks one of them."""
    options = ("--stat=100", "--no-color", "--no-ext-diff", "--no-textconv")
    stat = git(root, "diff", *options, one, other, "--") if one and other else None
    return None if stat is None else tuple(stat.splitlines())
