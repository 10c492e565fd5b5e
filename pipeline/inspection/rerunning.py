"""An old run again: the same commit, differences, config and inputs, in a git worktree of its own."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import StepError
from pipeline.files import sha256_of
from pipeline.git import git, git_or_fail
from pipeline.manifest import GOOD, RUN_ID, RunManifest, StepRecord
from pipeline.project import Project

FOLDER = "rerun"  # below .cache

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepComparison:
    """A step of the old run beside the same of the new one.

    Attributes:
        step: Its name.
        status: In the new run.
        same: Outputs that are the same to the byte.
        different: Outputs that are not.
    """

    step: str
    status: str
    same: tuple[str, ...]
    different: tuple[str, ...]


@dataclass(frozen=True)
class Rerun:
    """What came of it.

    Attributes:
        old: The run that was run again.
        new: The run that came of it.
        steps: In the order in which they ran.
        environment: Name to what it was and what it is now, where that differs.
    """

    old: str
    new: str
    steps: tuple[StepComparison, ...]
    environment: dict[str, tuple[str, str]]

    @property
    def is_same(self) -> bool:
        """Whether every output is the same to the byte."""
        return not any(step.different for step in self.steps)


def rerun(project: Project, manifest: RunManifest, *, reload: bool = False) -> Rerun:
    """Run every step that succeeded in a run again, each with the code, parameters and inputs it had then.

    What reads the outside world, which may have changed, is not run again while its outputs are in the store.

    Args:
        project: Whose run.
        manifest: The run.
        reload: Read the outside world again, too.

    Raises:
        StepError: The code of then cannot be put together again, no step succeeded, or one fails now.
    """
    records = [record for name in _order(manifest) if (record := manifest.success(name))]
    if not records:
        raise StepError(f"no step of run {manifest.run} succeeded", remedy="python -m pipeline runs")
    new = ""
    for record in records:
        with _checkout(project, manifest, record.code) as folder:
            config = _config(folder, manifest)
            _share_store(project, folder, manifest.config)
            forced = bool(record.inputs) or reload
            new = _run_step(folder, manifest, record, config, run=new, force=forced)
    made = project.runs.load(new)
    steps = tuple(_compared(record, made) for record in records)
    return Rerun(manifest.run, new, steps, _environment(records, made))


def _order(manifest: RunManifest) -> list[str]:
    return list(dict.fromkeys(record.step for record in manifest.attempts))


@contextmanager
def _checkout(project: Project, manifest: RunManifest, code: Mapping[str, Any]) -> Iterator[Path]:
    """The working tree as it was, in a worktree that is removed afterwards."""
    root, commit = project.root, str(code["commit"])
    if not commit or git(root, "cat-file", "-e", f"{commit}^{{commit}}") is None:
        raise StepError(
            f"the code of run {manifest.run} is not here: it ran at commit {commit[:12] or 'none'}",
            where=root,
            expected="a git repository that has the commit",
            remedy="git fetch --all" if commit else "git init, and commit before running",
        )
    state = hashlib.sha256(json.dumps([code["diff"], code["untracked"]]).encode()).hexdigest()[:8]
    folder = root / ".cache" / FOLDER / f"{manifest.run}.{commit[:12]}.{state}"
    _remove(root, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    git_or_fail(root, "worktree", "add", "--detach", "--force", str(folder), commit)
    try:
        if code["diff"]:
            git_or_fail(folder, "apply", "--whitespace=nowarn", "-", given=str(code["diff"]))
        _copy_untracked(root, folder, code["untracked"], manifest)
        yield folder
    finally:
        _remove(root, folder)


def _remove(root: Path, folder: Path) -> None:
    git(root, "worktree", "remove", "--force", "--force", str(folder))
    shutil.rmtree(folder, ignore_errors=True)
    git(root, "worktree", "prune")


def _copy_untracked(root: Path, folder: Path, untracked: Mapping[str, str], manifest: RunManifest) -> None:
    """Files that git did not know are not recorded, only their digests; those still there unchanged will do."""
    for name, sha256 in untracked.items():
        if (root / name).is_file() and sha256_of(root / name) == sha256:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
        elif name == manifest.config_file:
            continue  # it is written from the manifest
        elif _may_matter(name):
            raise StepError(
                f"{name} was not known to git, and is no longer what it was then",
                where=root / name,
                expected=f"a file of SHA-256 {sha256[:12]}…",
                remedy="put it back, and commit what runs depend on",
            )


def _may_matter(name: str) -> bool:
    return name.startswith(("pipeline/", "steps/", "configs/")) or name.endswith(".py")


def _config(folder: Path, manifest: RunManifest) -> str:
    """The config as it was named; written from the manifest where the worktree has none."""
    path = Path(manifest.config_file)
    if path.is_absolute():
        path = Path("configs") / f"{path.stem}.yaml"
    if not (folder / path).is_file():
        recorded = {key: value for key, value in manifest.config.items() if key != "set"}
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(recorded, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path.as_posix()


def _share_store(project: Project, folder: Path, config: Mapping[str, Any]) -> None:
    """Where the store is a folder of the project, let the worktree's be the same one."""
    store = str(config["store"])
    if "://" in store or Path(store).is_absolute():
        return
    # a real folder with a link in it: git ignores it by the same line that ignores the project's own
    (folder / store).mkdir(parents=True, exist_ok=True)
    (folder / store / str(config["zone"])).symlink_to((project.root / store / str(config["zone"])).resolve())


def _run_step(folder: Path, manifest: RunManifest, record: StepRecord, config: str, *, run: str, force: bool) -> str:
    """Run a step as a person would, and tell which run it ran in."""
    overrides = {record.step: record.overrides} if run else manifest.config.get("set", {})
    values = [f"{step}.{name}={_typed(value)}" for step, some in overrides.items() for name, value in some.items()]
    command = [sys.executable, f"step.{manifest.mode}.py", record.step, "--config", config]
    command += [part for value in values for part in ("--set", value)]
    command += (["--run", run] if run else []) + (["--force"] if force else [])
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        for line in process.stderr or ():
            log.info("%s", line.rstrip())
            found = re.match(rf"run ({RUN_ID.pattern})  ", line)
            run = found[1] if found else run
    if process.returncode:
        raise StepError(
            f"{record.step} fails where it once succeeded",
            where=f"run {run}" if run else f"commit {str(record.code['commit'])[:12]}",
            expected=f"what {manifest.run}/{record.made_by} gave",
            remedy=f"python -m pipeline log {record.step} {run} --mode {manifest.mode}" if run else "",
        )
    return run


def _typed(value: Any) -> str:
    """As `--set` takes it: a text as it is, anything else in YAML's notation, of which JSON is a part."""
    return value if isinstance(value, str) else json.dumps(value)


def _compared(record: StepRecord, made: RunManifest) -> StepComparison:
    new = made.of(record.step)[-1]
    same = {
        name for name, artifact in record.outputs.items() if new.outputs.get(name, artifact).digest == artifact.digest
    }
    same &= new.outputs.keys()
    different = tuple(name for name in record.outputs if name not in same)
    return StepComparison(record.step, new.status, tuple(name for name in record.outputs if name in same), different)


def _environment(records: list[StepRecord], made: RunManifest) -> dict[str, tuple[str, str]]:
    then = {name: value for record in records for name, value in record.environment.items()}
    now = {
        name: value for record in made.attempts if record.status in GOOD for name, value in record.environment.items()
    }
    names = dict.fromkeys([*then, *now])
    return {name: (then.get(name, ""), now.get(name, "")) for name in names if then.get(name) != now.get(name)}
