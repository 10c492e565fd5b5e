"""The code and environment of an attempt: commit, differences, digest of the modules that a step uses, versions."""

from __future__ import annotations

import ast
import hashlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import StepError
from pipeline.files import sha256_of
from pipeline.runtime.git import git

PACKAGE = Path(__file__).parents[1]
DISTRIBUTION = "detection-pipeline"
RUNTIME = "runtime"  # a notebook imports its `step`; the domain imports none of it
PREFIXES = ("--src-prefix=a/", "--dst-prefix=b/")
DIFF = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv", *PREFIXES)  # whatever git's config says
STATUS = ("status", "--porcelain=v2", "--branch", "--untracked-files=all", "--no-renames", "-z")
COMMIT = "# branch.oid "
TRACKED = ("1", "2", "u")  # first letters of the entries of changed tracked files
REQUIRED_NAME = re.compile(r"[\w.-]+")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class CodeState:
    """The working tree.

    Attributes:
        commit: Full hash, empty outside a git checkout or before the first commit.
        dirty: Whether anything differs from the commit.
        diff: Of the tracked files; bytes that are not UTF-8 are replaced.
        untracked: Names of files that git neither tracks nor ignores, with their SHA-256.
    """

    commit: str
    dirty: bool
    diff: str
    untracked: dict[str, str]


def code_state(root: Path) -> CodeState:
    """The state of the checkout whose top folder is `root`. A clean tree takes one call of git."""
    status = git(root, *STATUS, above=False)
    if status is None or not _is_top(root.resolve()):
        return CodeState("", True, "", {})
    entries = status.split("\0")
    commit = next((entry.removeprefix(COMMIT) for entry in entries if entry.startswith(COMMIT)), "")
    commit = commit if HASH.fullmatch(commit) else ""  # before the first commit it is `(initial)`
    differs = any(entry[:1] in TRACKED for entry in entries)
    diff = git(root, "diff", *DIFF, "HEAD") if commit and differs else ""
    names = [entry[2:] for entry in entries if entry.startswith("? ")]
    untracked = {name: sha256_of(root / name) for name in names if (root / name).is_file()}
    clean = diff == "" and commit and not untracked  # if git diff fails, the tree counts as dirty
    return CodeState(commit, not clean, diff or "", untracked)


@cache
def _is_top(root: Path) -> bool:
    """Whether a folder with a repository is the top of its checkout: git can be configured to have it elsewhere."""
    top = git(root, "rev-parse", "--show-toplevel")
    return top is not None and Path(top.strip()).resolve() == root


def changed_files(code: CodeState) -> list[str]:
    """Names of all files that differ from the commit."""
    tracked = [line.split(" b/")[-1].rstrip('"') for line in code.diff.splitlines() if line.startswith("diff --git ")]
    return [*tracked, *code.untracked]


def refuse_dirty(root: Path, code: CodeState) -> None:
    """Refuse to run uncommitted code in prod mode; nothing in the tree is touched.

    Raises:
        StepError: Something differs from the commit, or there is none.
    """
    if not code.commit:
        raise StepError(
            "prod needs a commit",
            where=root,
            expected="the top folder of a git checkout",
            remedy="git init, git add, git commit; or run: python step.dev.py",
        )
    if code.dirty:
        names = changed_files(code)
        raise StepError(
            f"prod refuses a dirty tree: {len(names)} files differ from the commit",
            where=", ".join(names[:5]) + (" ..." if len(names) > 5 else ""),
            expected="everything committed",
            remedy="commit or stash, or run: python step.dev.py",
        )


def tag(root: Path, commit: str, run: str, step: str) -> str:
    """Tag a commit with a run's id. If the run's steps ran at several commits, each later one gets its own tag.

    An existing tag is never moved.

    Returns:
        The tag's name.

    Raises:
        StepError: git fails.
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
    """SHA-256 over the sources of the given modules of this package and all that they import from it.

    The packages that a module names in `CARRIES` count as imported. The runtime does not count: it decides when a step
    runs, not what the step computes.
    """
    digest = hashlib.sha256()
    for path, content in sorted(_closure(modules).items()):
        of_file = hashlib.sha256(content).hexdigest()
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} {of_file}\n".encode())
    return digest.hexdigest()


def imported_modules(tree: ast.Module, package: str = "") -> frozenset[str]:
    """Modules of this package that a source imports, and every imported `module.name`, which may be a module.

    Args:
        tree: The parsed source.
        package: Its package, for relative imports.
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
    """Every statement at any depth; expressions, most of a tree, contain none."""
    for name in ("body", "orelse", "handlers", "finalbody", "cases"):
        for node in getattr(block, name, None) or ():
            yield node
            yield from _statements(node)


def _closure(modules: tuple[str, ...]) -> dict[Path, bytes]:
    """The files that make up the modules and their imports, with their current content."""
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
            if path.parent not in folders:  # a file beside a module, such as a template, is part of it
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
    """Modules that a source imports, and packages that it carries; cached by content, so an edit counts at once."""
    tree = ast.parse(source)
    return imported_modules(tree, package), _carried(tree)


def _carried(tree: ast.Module) -> tuple[str, ...]:
    """Packages that a module handles as files, such as to pack them: its `CARRIES = (...)`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CARRIES":
            return tuple(ast.literal_eval(node.value))
    return ()


def _modules_in(package: str) -> list[str]:
    return [f"{package}.{path.stem}" for path in PACKAGE.joinpath(*package.split(".")[1:]).glob("*.py")]


def _is_resource(path: Path) -> bool:
    return path.is_file() and path.suffix not in {".py", ".pyc"} and not path.name.startswith(".")


@cache
def environment() -> dict[str, str]:
    """Python, platform, device, and the versions of the required packages."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "device": _device(),
        **required_versions(DISTRIBUTION),
    }


def required_versions(distribution: str) -> dict[str, str]:
    """Versions of the packages that a distribution requires, without extras; empty if it is not installed.

    They are read from the head of each METADATA file. `importlib.metadata` parses whole files as e-mails, which takes
    40 ms more: a sixth of a run in which everything is up to date.
    """
    folders = _metadata_folders()
    required = _field(distribution, "Requires-Dist", folders)
    names = [found[0] for text in required if "extra ==" not in text and (found := REQUIRED_NAME.match(text))]
    return {name: _version(name, folders) for name in sorted(names)}


def _version(name: str, folders: dict[str, Path]) -> str:
    if found := _field(name, "Version", folders):
        return found[0]
    from importlib import metadata  # late, for a package that is installed in another form

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _metadata_folders() -> dict[str, Path]:
    """The `.dist-info` folder of each package by normalised name; the first on the import path counts."""
    found: dict[str, Path] = {}
    for place in map(Path, sys.path):
        try:
            names = sorted(entry.name for entry in os.scandir(place) if entry.name.endswith(".dist-info"))
        except OSError:  # an archive, or absent
            continue
        for name in names:
            found.setdefault(_normalised(name.partition("-")[0]), place / name)
    return found


def _field(distribution: str, field: str, folders: dict[str, Path]) -> list[str]:
    folder = folders.get(_normalised(distribution))
    try:
        text = (folder / "METADATA").read_text(encoding="utf-8", errors="replace") if folder else ""
    except OSError:
        text = ""
    head = text.partition("\n\n")[0]  # the package's README follows
    return re.findall(rf"^{field}: *(.*?) *$", head, re.MULTILINE)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _device() -> str:
    """The device as the system names it: importing torch to ask it would take seconds."""
    reports = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = [line.partition(":")[2].strip() for path in reports for line in path.read_text().splitlines()[:1]]
    gpus = models or [path.name for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    return ", ".join(gpus) or f"CPU, {os.cpu_count()} cores"
