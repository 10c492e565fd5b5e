"""Which code ran: the commit, what differs from it, and a digest of just the modules a step uses."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import StepError
from pipeline.runtime.git import git
from pipeline.runtime.packages import required_versions
from pipeline.runtime.store.file_store import sha256_of

PACKAGE = Path(__file__).parents[1]
DISTRIBUTION = "detection-pipeline"
RUNTIME = "runtime"  # a notebook imports its `step`; the domain imports none of it
DIFF = (
    "--binary",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--src-prefix=a/",
    "--dst-prefix=b/",
)  # whatever git's config says
STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=all", "--no-renames", "-z")
COMMIT = "# branch.oid "
TRACKED = ("1", "2", "u")  # how an entry on a tracked file begins that differs from the index or the commit
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class CodeState:
    """The working tree.

    Attributes:
        commit: Full hash, empty outside a git checkout or before the first commit.
        dirty: Whether anything differs from the commit.
        diff: Of the tracked files; bytes that are not UTF-8 are shown as such.
        untracked: Names of files that git neither tracks nor ignores, with their SHA-256.
    """

    commit: str
    dirty: bool
    diff: str
    untracked: dict[str, str]


def code_state(root: Path) -> CodeState:
    """Look at the checkout that `root` is the top of, as it is now: with one call of git where nothing differs."""
    status = git(root, *STATUS, above=False)
    if status is None or not _is_top(root.resolve()):
        return CodeState("", True, "", {})
    entries = status.split("\0")
    commit = next((entry.removeprefix(COMMIT) for entry in entries if entry.startswith(COMMIT)), "")
    commit = commit if HASH.fullmatch(commit) else ""  # before the first it says `(initial)`
    differs = any(entry[:1] in TRACKED for entry in entries)
    diff = git(root, "diff", *DIFF, "HEAD") if commit and differs else ""
    names = [entry[2:] for entry in entries if entry.startswith("? ")]
    untracked = {name: sha256_of(root / name) for name in names if (root / name).is_file()}
    clean = diff == "" and commit and not untracked  # a diff that cannot be had is no sign of a clean tree
    return CodeState(commit, not clean, diff or "", untracked)


@cache
def _is_top(root: Path) -> bool:
    """Whether a folder that holds a repository is the top of its checkout too: git can be told to keep it elsewhere."""
    top = git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top.strip()).resolve() == root


def changed_files(code: CodeState) -> list[str]:
    """Names of all files that differ from the commit."""
    tracked = [line.split(" b/")[-1].rstrip('"') for line in code.diff.splitlines() if line.startswith("diff --git ")]
    return [*tracked, *code.untracked]


def tag(root: Path, commit: str, run: str, step: str) -> str:
    """Tag a commit with a run id; where a run's steps ran at several commits, the later ones get a tag of their own.

    A tag that is there is never moved.

    Returns:
        The tag's name.

    Raises:
        StepError: git refuses.
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


def code_digest(modules: tuple[str, ...]) -> str:
    """SHA-256 over the sources of the given modules of this package and all that they import of it.

    What a module carries as files (`CARRIES`) counts as imported. The runtime is left out: it decides when a step runs,
    not what the step computes.
    """
    digest = hashlib.sha256()
    for path, content in sorted(_closure(modules).items()):
        of_file = hashlib.sha256(content).hexdigest()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {of_file}\n".encode())
    return digest.hexdigest()


def imported_modules(tree: ast.Module, package: str = "") -> frozenset[str]:
    """Modules of this package that a module imports, and every `module.name` that may be one.

    Args:
        tree: Its source.
        package: The package it lies in, for relative imports.
    """
    found: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in found if name == "pipeline" or name.startswith("pipeline."))


def _statements(block: ast.AST) -> Iterator[ast.AST]:
    """Every statement at any depth; expressions, which are most of a tree, hold none."""
    for name in ("body", "orelse", "handlers", "finalbody", "cases"):
        for node in getattr(block, name, None) or ():
            yield node
            yield from _statements(node)


@cache
def environment() -> dict[str, str]:
    """Python, platform, device, and the versions of the packages that this project asks for."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": _device(),
        **required_versions(DISTRIBUTION),
    }


def _device() -> str:
    """What there is to compute on, asked of the system: importing torch to ask it would take seconds."""
    reports = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [line.partition(":")[2].strip() for path in reports for line in path.read_text().splitlines()[:1]]
    gpus = models or [path.name for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    return ", ".join(gpus) or f"CPU, {os.cpu_count()} cores"


def _closure(modules: tuple[str, ...]) -> dict[Path, bytes]:
    """The files that modules come to, with what is in them now."""
    found: dict[Path, bytes] = {}
    waiting, seen, folders = [*modules], {*modules}, set()
    while waiting:
        for path in _files_of(waiting.pop()):
            if path in found:
                continue
            found[path] = path.read_bytes()
            package = ".".join([PACKAGE.name, *path.relative_to(PACKAGE).parent.parts])
            imported, carried = _uses(found[path], package)
            new = {*imported, *(module for name in carried for module in _modules_in(name))} - seen
            waiting += new
            seen |= new
            # what lies beside a module, such as a template, is part of what it does
            if path.parent not in folders:
                folders.add(path.parent)
                found |= {other: other.read_bytes() for other in path.parent.iterdir() if _is_resource(other)}
    return found


def _files_of(module: str) -> Iterator[Path]:
    """The module's own file and its packages' `__init__`; none for a name inside a module."""
    parts = module.split(".")[1:]
    if parts and parts[0] != RUNTIME:
        files = [PACKAGE.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
        files.append(PACKAGE.joinpath(*parts).with_suffix(".py"))
        yield from (path for path in files if path.is_file())


@cache
def _uses(source: bytes, package: str) -> tuple[frozenset[str], tuple[str, ...]]:
    """Modules that a module imports and packages that it carries: by what it says, so that an edit is seen at once."""
    tree = ast.parse(source)
    return imported_modules(tree, package), _carried(tree)


def _carried(tree: ast.Module) -> tuple[str, ...]:
    """Packages whose sources a module works on as files, such as to pack them, named in its `CARRIES = (...)`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CARRIES":
            return tuple(ast.literal_eval(node.value))
    return ()


def _modules_in(package: str) -> list[str]:
    return [f"{package}.{path.stem}" for path in PACKAGE.joinpath(*package.split(".")[1:]).glob("*.py")]


def _is_resource(path: Path) -> bool:
    return path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")
