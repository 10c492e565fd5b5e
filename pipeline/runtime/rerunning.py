"""Repeats a complete run: the same commit, uncommitted changes, config and inputs, in a git worktree of its own."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StepError
from pipeline.files import sha256_of
from pipeline.runtime.git import git, git_or_fail
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import read_steps
from pipeline.runtime.process import work_folder
from pipeline.runtime.project import Project, mode_option

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rerun:
    """The old and the new run, the outputs that are equal to the byte, and those that are not."""

    old: str
    new: str
    mode: str
    same: tuple[str, ...]
    different: tuple[str, ...]


def rerun(project: Project, manifest: RunManifest, *, reload: bool = False) -> Rerun:
    """Repeat a run with the code, parameters and inputs it had then, and compare the outputs.

    A step that reads external sources, which may have changed, is reused while its outputs are in the store, unless
    `reload` is set.
    """
    code = _code(project.root, manifest)
    with _worktree(project, manifest, code) as tree:
        steps = read_steps(tree / "steps")
        records = {name: manifest.success(name) for name in steps}
        if missing := [name for name, record in records.items() if record is None]:
            raise StepError(
                f"run {manifest.run} is not complete: it has no success of {', '.join(missing)}",
                expected="a run in which every step succeeded",
                remedy=f"python -m pipeline runs{mode_option(manifest.mode)}",
            )
        done, before, new = [record for record in records.values() if record], set(project.runs.ids()), ""
        for record in done:
            compares = bool(steps[record.step].earlier)
            _run_step(tree, manifest, record, new, force=bool(record.inputs) or reload, compares=compares)
            new = new or max(set(project.runs.ids()) - before)
    made, old = project.runs.load(new), {name: each.digest for record in done for name, each in record.outputs.items()}
    same = [name for name, digest in old.items() if (output := made.output(name)) and output.digest == digest]
    return Rerun(manifest.run, new, manifest.mode, tuple(same), tuple(name for name in old if name not in same))


def _code(root: Path, manifest: RunManifest) -> dict[str, Any]:
    """The code of a run's successes: the commit, the uncommitted changes, and the files that git did not know."""

    def refuse(problem: str, remedy: str, expected: str = "a run of one commit in git") -> StepError:
        return StepError(f"run {manifest.run} cannot be repeated: {problem}", expected=expected, remedy=remedy)

    records = [record for name in {each.step for each in manifest.attempts} if (record := manifest.success(name))]
    code = manifest.code
    if not code["commit"]:
        raise refuse("it ran outside of git", "git init, and commit before running what is to be repeated")
    if any(record.code != code for record in records):
        raise refuse("its steps ran with different code", f"python -m pipeline show {manifest.run} --json has it")
    if git(root, "cat-file", "-e", f"{code['commit']}^{{commit}}") is None:
        raise refuse(f"its commit is not here: {code['commit'][:12]}", "git fetch --all --tags")
    if "\ufffd" in code["diff"]:
        raise refuse("its uncommitted changes were not recorded to the byte", "commit them", "text in UTF-8")
    for name, sha256 in code["untracked"].items():
        path = root / name
        if name != manifest.config_file and not (path.is_file() and sha256_of(path) == sha256):
            raise refuse(f"{name} was not known to git, and has changed since", "restore it", f"SHA-256 {sha256[:12]}…")
    return code


@contextmanager
def _worktree(project: Project, manifest: RunManifest, code: dict[str, Any]) -> Iterator[Path]:
    """The restored working tree, with the project's own store; the project's tree and branches stay untouched."""
    root, store = project.root, str(manifest.config["store"])
    with work_folder(root / ".cache" / "rerun", "rerun", manifest.run) as folder:
        tree = folder.joinpath(*["up"] * store.count(".."), "tree")  # a store at ../somewhere lies in the folder, too
        no_hooks = ("-c", "core.hooksPath=/dev/null")
        git_or_fail(root, *no_hooks, "worktree", "add", "--detach", str(tree), code["commit"])
        try:
            if code["diff"]:
                git_or_fail(tree, "apply", "--index", "--whitespace=nowarn", "-", given=code["diff"])
            for name in code["untracked"].keys() - {manifest.config_file}:
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(root / name, tree / name)
            if not (config := tree / _config_file(manifest)).is_file():  # git did not know it
                config.parent.mkdir(parents=True, exist_ok=True)
                config.write_text(json.dumps(manifest.recorded_config, ensure_ascii=False))
            if "://" not in store and not Path(store).is_absolute():
                # in a real folder, which git ignores by the same line as the project's own
                (tree / store).mkdir(parents=True, exist_ok=True)
                zone = str(manifest.config["zone"])
                (tree / store / zone).symlink_to((root / store / zone).resolve())
            yield tree
        finally:
            git(root, "worktree", "remove", "--force", str(tree))


def _config_file(manifest: RunManifest) -> str:
    """The config's file in the worktree; one from outside of the project takes a place that git ignores."""
    file = Path(manifest.config_file)
    return f".cache/{file.name}" if file.is_absolute() else str(file)


def _run_step(tree: Path, manifest: RunManifest, record: StepRecord, run: str, *, force: bool, compares: bool) -> None:
    """Run a step by its own command line; the first opens the run with the overrides of the old one.

    A step that compares its inputs with an earlier run's must find those that it found then.
    """
    values = {**({} if run else manifest.config.get("set", {})), record.step: record.overrides}
    command = [sys.executable, f"step.{manifest.mode}.py", record.step, f"--config={_config_file(manifest)}"]
    for step, overrides in values.items():
        for name, value in overrides.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            command.append(f"--set={step}.{name}={text}")
    command += [f"--input={entity}={entity}/{record.inputs[entity].digest}" for entity in record.chosen]
    command += [f"--earlier-than={manifest.run}"] if compares else []
    command += [*([f"--run={run}"] if run else []), *(["--force"] if force else [])]
    # what it prints to stdout are deliverables in the worktree; in a group of its own Ctrl-C reaches it only once
    process = subprocess.Popen(command, cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0)
    try:
        code = process.wait()
    except KeyboardInterrupt as stop:
        process.send_signal(stop.args[0] if stop.args else signal.SIGINT)
        process.wait()
        raise
    if code:
        raise StepError(
            f"{record.step} fails where it once succeeded",
            where=f"run {run}" if run else f"commit {str(record.code['commit'])[:12]}",
            expected=f"the outputs of {manifest.run}/{record.made_by}",
        )
