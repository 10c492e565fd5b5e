"""Which code ran: the commit, what differs from it, and a digest of just the modules a step uses."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import StepError

PACKAGE = Path(__file__).parent
RUNTIME = ("cli", "config", "runner", "step", "manifest", "store", "notebook", "code", "console")


@dataclass(frozen=True)
class CodeState:
    """The working tree.

    Attributes:
        commit: Full hash, empty outside a git checkout or before the first commit.
        dirty: Whether anything differs from the commit.
        diff: Of the tracked files.
        untracked: Names of files that git neither tracks nor ignores, with their SHA-256.
    """

    commit: str
    dirty: bool
    diff: str
    untracked: dict[str, str]


def code_state(root: Path) -> CodeState:
    """Look at the checkout that `root` is the top of."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != root.resolve():
        return CodeState("", True, "", {})
    commit = (_git(root, "rev-parse", "--verify", "-q", "HEAD") or "").strip()
    diff = (_git(root, "diff", "--no-color", "--no-ext-diff", "HEAD") or "") if commit else ""
    names = (_git(root, "ls-files", "--others", "--exclude-standard", "-z") or "").split("\0")
    untracked = {name: _sha256(root / name) for name in names if name and (root / name).is_file()}
    return CodeState(commit, bool(diff or untracked or not commit), diff, untracked)


def tag(root: Path, commit: str, run: str, step: str) -> str:
    """Tag a commit with a run id; a run whose later steps ran at another commit gets a tag a step for these.

    Returns:
        The tag's name.
    """
    name = run
    existing = _git(root, "rev-parse", "-q", "--verify", f"refs/tags/{run}^{{commit}}")
    if existing is not None and existing.strip() == commit:
        return name
    if existing is not None:
        name = f"{run}-{step}"
    if _git(root, "tag", "--force", name, commit) is None:
        raise StepError(f"git could not tag the commit with {name}", where=root, remedy=f"git tag {name} {commit}")
    return name


def code_digest(modules: tuple[str, ...]) -> str:
    """SHA-256 over the sources of the given modules of this package and all that they import of it.

    The runtime is left out: it decides when a step runs, not what the step computes.
    """
    digest = hashlib.sha256()
    for path in sorted(_closure(modules)):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {_sha256(path)}\n".encode())
        # what a module carries beside it, such as a template, is part of what it does
        for resource in sorted(path.parent.glob("*.html*")):
            digest.update(f"{resource.name} {_sha256(resource)}\n".encode())
    return digest.hexdigest()


def environment(packages: tuple[str, ...]) -> dict[str, str]:
    """Python, platform and versions of packages."""
    found = {"python": platform.python_version(), "platform": platform.platform(), "machine": platform.machine()}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _closure(modules: tuple[str, ...]) -> set[Path]:
    found: set[Path] = set()
    waiting = [path for module in modules for path in _files_of(module)]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [other for module in _imported(path) for other in _files_of(module)]
    return found


def _files_of(module: str) -> list[Path]:
    """The module's own file and its packages' `__init__`; none for the runtime, or for a name inside a module."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in RUNTIME:
        return []
    files = [PACKAGE.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    files.append(PACKAGE.joinpath(*parts).with_suffix(".py"))
    return [path for path in files if path.is_file()]


@cache
def _imported(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("pipeline.")}
    return frozenset(found)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, or None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None
