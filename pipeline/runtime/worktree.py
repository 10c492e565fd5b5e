"""The working tree of a recorded attempt, restored in a temporary git worktree."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import StepError
from pipeline.files import sha256_of
from pipeline.runtime.git import git, git_or_fail
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.process import work_folder
from pipeline.runtime.project import Project

FOLDER = ".cache/rerun"
BLOB = re.compile(r"^index [0-9a-f]+\.\.([0-9a-f]*[1-9a-f][0-9a-f]*)", re.MULTILINE)  # a file after a diff

log = logging.getLogger(__name__)


def require_code(root: Path, manifest: RunManifest, code: Mapping[str, Any]) -> None:
    """Check that the code of an attempt can be restored.

    Raises:
        StepError: The commit is gone, or a file that git did not know.
    """
    commit = str(code["commit"])
    if not commit:
        raise StepError(
            f"run {manifest.run} ran outside of git: its code was not kept",
            where=root,
            expected="a run from a commit",
            remedy="git init, and commit before running what is to be repeated",
        )
    if git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise StepError(
            f"the commit of run {manifest.run} is not here: {commit[:12]}",
            where=root,
            expected="a git repository that has it",
            remedy="git fetch --all --tags",
        )
    for name, sha256 in code["untracked"].items():
        may_matter = name.startswith(("pipeline/", "steps/", "configs/")) or name.endswith(".py")
        if may_matter and name != manifest.config_file and not _is_unchanged(root / name, sha256):
            raise StepError(
                f"{name} was not known to git, and has changed since",
                where=root / name,
                expected=f"a file of SHA-256 {sha256[:12]}…",
                remedy="restore it, and commit what runs depend on",
            )


@contextmanager
def worktree(project: Project, manifest: RunManifest, code: Mapping[str, Any]) -> Iterator[Path]:
    """The restored working tree, with the project's own store. The project's tree, index and branches stay untouched.

    Raises:
        StepError: The tree cannot be restored.
    """
    root, store = project.root, str(manifest.config["store"])
    place = root / FOLDER
    try:
        with work_folder(place, "rerun", manifest.run) as folder:
            # a store at ../somewhere has to lie in the folder, too
            tree = folder.joinpath(*["up"] * Path(store).parts.count(".."), "tree")
            # checked out by reset, which runs no post-checkout hook
            git_or_fail(root, "worktree", "add", "--detach", "--no-checkout", str(tree), str(code["commit"]))
            git_or_fail(tree, "reset", "--hard", "--quiet")
            if code["diff"]:
                _apply_diff(tree, manifest, str(code["diff"]))
            _copy_untracked(root, tree, manifest, code["untracked"])
            if "://" not in store and not Path(store).is_absolute():
                _link_store(project, tree, store, str(manifest.config["zone"]))
            yield tree
    finally:
        _remove_worktrees(root, place)


def _remove_worktrees(root: Path, place: Path) -> None:
    """Make git forget the worktrees here whose folder is gone; `prune` would forget those elsewhere, too."""
    for line in (git(root, "worktree", "list", "--porcelain") or "").splitlines():
        tree = Path(line.removeprefix("worktree "))
        if line.startswith("worktree ") and tree.is_relative_to(place.resolve()) and not tree.exists():
            git(root, "worktree", "remove", "--force", "--force", str(tree))


def _apply_diff(tree: Path, manifest: RunManifest, diff: str) -> None:
    """Restore the uncommitted changes.

    Raises:
        StepError: The files differ from the recorded ones: text that is not UTF-8 was not recorded to the byte.
    """
    failure = StepError(
        f"the uncommitted changes of run {manifest.run} cannot be restored",
        where="its recorded diff",
        expected="files in UTF-8, or binary ones",
        remedy=f"python -m pipeline show {manifest.run} --json has the diff",
    )
    try:
        git_or_fail(tree, "apply", "--index", "--whitespace=nowarn", "-", given=diff)
    except StepError as error:
        raise failure from error
    now = BLOB.findall(git_or_fail(tree, "diff", "--full-index", "--no-renames", "--no-ext-diff", "HEAD"))
    if not all(any(blob.startswith(short) for blob in now) for short in BLOB.findall(diff)):
        raise failure


def _copy_untracked(root: Path, tree: Path, manifest: RunManifest, untracked: Mapping[str, str]) -> None:
    """Copy the files that git did not know and that are unchanged: only their digests are recorded."""
    for name, sha256 in untracked.items():
        if _is_unchanged(root / name, sha256):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, tree / name)
        elif name != manifest.config_file:  # it is written from the manifest
            log.info("%s is left out: git did not know it, and it has changed since", name)


def _is_unchanged(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


def _link_store(project: Project, tree: Path, store: str, zone: str) -> None:
    """Link the project's store in a real folder, which git ignores by the same line as the project's own."""
    (tree / store).mkdir(parents=True, exist_ok=True)
    (tree / store / zone).symlink_to((project.root / store / zone).resolve())
