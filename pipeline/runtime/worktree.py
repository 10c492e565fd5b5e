"""The working tree as it was when an attempt was recorded, in a git worktree of its own that goes afterwards."""

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
from pipeline.runtime.project import Project
from pipeline.runtime.workspace import work_folder

FOLDER = ".cache/rerun"
BLOB = re.compile(r"^index [0-9a-f]+\.\.([0-9a-f]*[1-9a-f][0-9a-f]*)", re.MULTILINE)  # what a diff makes of a file

log = logging.getLogger(__name__)


def require_code(root: Path, manifest: RunManifest, code: Mapping[str, Any]) -> None:
    """See that the code of then can be had.

    Args:
        root: The project's folder.
        manifest: The run.
        code: Of an attempt in it.

    Raises:
        StepError: Its commit is gone, or a file that git did not know.
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
        if not _is_there(root, name, sha256) and name != manifest.config_file and _may_matter(name):
            raise StepError(
                f"{name} was not known to git, and is no longer what it was then",
                where=root / name,
                expected=f"a file of SHA-256 {sha256[:12]}…",
                remedy="put it back, and commit what runs depend on",
            )


def _is_there(root: Path, name: str, sha256: str) -> bool:
    return (root / name).is_file() and sha256_of(root / name) == sha256


def _may_matter(name: str) -> bool:
    return name.startswith(("pipeline/", "steps/", "configs/")) or name.endswith(".py")


@contextmanager
def worktree(project: Project, manifest: RunManifest, code: Mapping[str, Any]) -> Iterator[Path]:
    """The working tree as it was, with the project's own store. The project's tree, index and branches stay untouched.

    Args:
        project: Whose run.
        manifest: The run.
        code: Of an attempt in it.

    Raises:
        StepError: It cannot be put together again.
    """
    root, commit, store = project.root, str(code["commit"]), str(manifest.config["store"])
    place = root / FOLDER
    try:
        with work_folder(place, "rerun", manifest.run) as folder:
            # a store at ../somewhere is to lie in the folder, too
            tree = folder.joinpath(*["up"] * Path(store).parts.count(".."), "tree")
            # checked out by reset, which runs nobody's post-checkout hook
            git_or_fail(root, "worktree", "add", "--detach", "--no-checkout", str(tree), commit)
            git_or_fail(tree, "reset", "--hard", "--quiet")
            if code["diff"]:
                _apply(tree, manifest, str(code["diff"]))
            _copy_untracked(root, tree, manifest, code["untracked"])
            _share_store(project, tree, store, str(manifest.config["zone"]))
            yield tree
    finally:
        _forget(root, place)


def _forget(root: Path, place: Path) -> None:
    """Let git forget the worktrees here whose folder is gone; others' are left alone, which `prune` would not do."""
    for line in (git(root, "worktree", "list", "--porcelain") or "").splitlines():
        tree = Path(line.removeprefix("worktree "))
        if line.startswith("worktree ") and tree.is_relative_to(place.resolve()) and not tree.exists():
            git(root, "worktree", "remove", "--force", "--force", str(tree))


def _apply(tree: Path, manifest: RunManifest, diff: str) -> None:
    """Make what then differed from the commit differ again.

    Raises:
        StepError: It does not come out as it was: a text that is not UTF-8 was not recorded to the byte.
    """
    wrong = StepError(
        f"what differed from the commit in run {manifest.run} cannot be put together again",
        where="its recorded diff",
        expected="files in UTF-8, or binary ones",
        remedy=f"python -m pipeline show {manifest.run} --json has the diff",
    )
    try:
        git_or_fail(tree, "apply", "--index", "--whitespace=nowarn", "-", given=diff)
    except StepError as error:
        raise wrong from error
    now = BLOB.findall(git_or_fail(tree, "diff", "--full-index", "--no-renames", "--no-ext-diff", "HEAD"))
    if not all(any(blob.startswith(short) for blob in now) for short in BLOB.findall(diff)):
        raise wrong


def _copy_untracked(root: Path, tree: Path, manifest: RunManifest, untracked: Mapping[str, str]) -> None:
    """Files that git did not know are not recorded, only their digests; those still there unchanged will do."""
    for name, sha256 in untracked.items():
        if _is_there(root, name, sha256):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, tree / name)
        elif name != manifest.config_file:  # which is written from the manifest
            log.info("%s is left out: git did not know it, and it is no longer what it was then", name)


def _share_store(project: Project, tree: Path, store: str, zone: str) -> None:
    """Where the store is named relative to the project, let the worktree's be the same one."""
    if "://" in store or Path(store).is_absolute():
        return
    # a real folder with a link in it: git ignores it by the same line that ignores the project's own
    (tree / store).mkdir(parents=True, exist_ok=True)
    (tree / store / zone).symlink_to((project.root / store / zone).resolve())
