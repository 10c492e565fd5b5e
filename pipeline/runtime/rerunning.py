"""Repeats an old run: the same commit, uncommitted changes, config and inputs, in a git worktree of its own."""

from __future__ import annotations

import itertools
import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, StepError
from pipeline.runtime.config import read_config
from pipeline.runtime.inputs import require_agreement
from pipeline.runtime.manifest import GOOD, RUN_ID, RunManifest, StepRecord
from pipeline.runtime.notebook import read_steps
from pipeline.runtime.project import Project, with_config
from pipeline.runtime.store.artifact_store import Artifact
from pipeline.runtime.worktree import FOLDER, require_code, worktree

STOPPED = "stopped;"  # the beginning of a step command's message after Ctrl-C

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepComparison:
    """A step of the old run beside the same step of the new one.

    Attributes:
        step: Its name, with the attempt's number where several attempts went into the run.
        status: Its status in the new run.
        same: Outputs that are equal to the byte.
        different: Outputs that are not.
        causes: Other differences: its notebook, code, parameters, or an input.
    """

    step: str
    status: str
    same: tuple[str, ...]
    different: tuple[str, ...]
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Rerun:
    """The result of a rerun.

    Attributes:
        old: The run that was repeated.
        new: The new run.
        mode: The mode of both.
        steps: In the order in which they ran.
        environment: Name to the values then and now, where they differ.
    """

    old: str
    new: str
    mode: str
    steps: tuple[StepComparison, ...]
    environment: dict[str, tuple[str, str]]

    @property
    def is_same(self) -> bool:
        """Whether every output is equal to the byte."""
        return not any(step.different for step in self.steps)


def rerun(project: Project, manifest: RunManifest, *, reload: bool = False) -> Rerun:
    """Repeat every step that succeeded in a run, each with the code, parameters and inputs it had then.

    A step that reads external sources, which may have changed, is reused while its outputs are in the store.

    Raises:
        StepError: The old code cannot be restored, the old inputs do not agree, no step succeeded, or one fails now.
    """
    records = _needed(manifest)
    if not records:
        raise StepError(
            f"no step of run {manifest.run} succeeded",
            expected="a run with a success to repeat",
            remedy=f"python -m pipeline runs{project.options}",
        )
    for record in records:  # before hours go into the first; old code may not check whether inputs agree
        require_code(project.root, manifest, record.code)
        require_agreement(project.runs, manifest, record.step, record.inputs, record.chosen)
    run, new = "", []
    for code, of_one_code in itertools.groupby(records, key=lambda record: record.code):
        with worktree(project, manifest, code) as tree:
            config = _config_file(project, tree, manifest)
            for record in of_one_code:
                run = _run_step(project, tree, manifest, record, config, run=run, reload=reload)
                new.append(project.runs.load(run).of(record.step)[-1])
    pairs = list(zip(records, new, strict=True))
    comparisons = tuple(_compare(records, old, repeated) for old, repeated in pairs)
    return Rerun(manifest.run, run, manifest.mode, comparisons, _environment_changes(pairs))


def _needed(manifest: RunManifest) -> list[StepRecord]:
    """The newest success of each step and the attempts that made its inputs, in the order in which they ran."""
    found: dict[str, StepRecord] = {}
    waiting = [
        record for name in dict.fromkeys(r.step for r in manifest.attempts) if (record := manifest.success(name))
    ]
    while waiting:
        record = waiting.pop()
        found[record.made_by] = record
        for name, artifact in record.inputs.items():
            makers = [
                maker
                for maker in manifest.attempts
                if maker.status in GOOD and maker.ended <= record.started and _has_same(maker.outputs, name, artifact)
            ]
            waiting += [maker for maker in makers[-1:] if maker.made_by not in found]
    return sorted(found.values(), key=lambda record: (record.started, record.ended))


# --- the old config and parameters -----------------------------------------------------------------------------------


def _config_file(project: Project, tree: Path, manifest: RunManifest) -> str:
    """The run's config file, written from the manifest if it is gone or has changed."""
    named, recorded = Path(manifest.config_file), manifest.recorded_config
    path = tree / named
    if named.is_absolute():  # outside of the project
        if _is_as_recorded(named, recorded):
            return str(named)
        # outside of the worktree, which must be clean in prod, and kept: the new run's manifest names it
        path = (project.root / FOLDER / f"{manifest.run}.yaml").resolve()
    elif path.is_file():
        return named.as_posix()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_to_yaml(recorded, indent=2), encoding="utf-8")
    return str(path) if named.is_absolute() else named.as_posix()


def _is_as_recorded(config: Path, recorded: Mapping[str, Any]) -> bool:
    """Whether a config exists and names the same pipeline and store; its parameters are compared later."""
    try:
        found = read_config(config)
    except PipelineError:
        return False
    return (found.name, found.store, found.zone) == (recorded["name"], recorded["store"], recorded["zone"])


def _set_options(tree: Path, manifest: RunManifest, record: StepRecord, config: str, *, opens_run: bool) -> list[str]:
    """The values of `--set`: those of the old command, and those that the config gives otherwise now."""
    overrides = {**(manifest.config.get("set", {}) if opens_run else {}), record.step: dict(record.overrides)}
    try:
        here = with_config(manifest.mode, tree / config, tree, read_steps(tree / "steps"))
        given = here.parameters(overrides)[record.step]
    except PipelineError:  # an old config or notebook that only its own code can read
        given = record.parameters
    overrides[record.step] |= {
        name: value for name, value in record.parameters.items() if given.get(name, value) != value
    }
    return [f"{step}.{name}={_to_set(value)}" for step, values in overrides.items() for name, value in values.items()]


def _to_set(value: Any) -> str:
    """A value as `--set` takes it: a text as it is, anything else as YAML."""
    return value if isinstance(value, str) else _to_yaml(value)


def _to_yaml(value: Any, indent: int | None = None) -> str:
    """A value as JSON, which is YAML except for escapes; PyYAML would leave texts such as 1e-3 unquoted."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[^\x00-\x7e]", lambda found: f"\\U{ord(found[0]):08x}", text)


# --- running the steps -----------------------------------------------------------------------------------------------


def _run_step(
    project: Project, tree: Path, manifest: RunManifest, record: StepRecord, config: str, *, run: str, reload: bool
) -> str:
    """Run a step by its command line, and return the run that it ran in."""
    command = [sys.executable, f"step.{manifest.mode}.py", record.step, "--config", config]
    for value in _set_options(tree, manifest, record, config, opens_run=not run):
        command += ["--set", value]
    for entity in record.chosen:
        command += ["--input", f"{entity}={entity}/{record.inputs[entity].digest}"]
    command += ["--run", run] if run else []
    command += ["--force"] if record.inputs or reload else []
    code, run = _follow(command, tree, run)
    if code:
        raise StepError(
            f"{record.step} fails where it once succeeded",
            where=f"run {run}" if run else f"commit {str(record.code['commit'])[:12]}",
            expected=f"the outputs of {manifest.run}/{record.made_by}",
            remedy=f"python -m pipeline log {record.step} {run}{project.options}" if run else "",
        )
    return run


def _follow(command: list[str], tree: Path, run: str) -> tuple[int, str]:
    """Run a command, log its messages, and pass signals on to it.

    Returns:
        Its exit code, and the run that it works on.
    """
    stop: KeyboardInterrupt | None = None
    with subprocess.Popen(
        command,
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # it names deliverables in the worktree, which is removed soon
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # otherwise a terminal's Ctrl-C reaches it twice, and the second stops it without tidying up
    ) as process:
        while process.returncode is None:
            try:
                for line in process.stderr or ():
                    found = re.match(rf"run ({RUN_ID.pattern})  ", line)
                    if not line.startswith(STOPPED) and not (found and found[1] == run):
                        log.info("%s", line.rstrip())
                    run = found[1] if found else run
                process.wait()
            except KeyboardInterrupt as error:
                stop = error
                process.send_signal(error.args[0] if error.args else signal.SIGINT)
    if stop:
        raise stop
    return process.returncode, run


# --- comparing the runs ----------------------------------------------------------------------------------------------


def _compare(records: Iterable[StepRecord], old: StepRecord, new: StepRecord) -> StepComparison:
    is_same = {name: _has_same(new.outputs, name, artifact) for name, artifact in old.outputs.items()}
    causes = {
        "its notebook": old.notebook_digest != new.notebook_digest,
        "its code": old.code_digest != new.code_digest,
        "its parameters": old.parameters != new.parameters,
    }
    causes |= {f"its input {name}": not _has_same(new.inputs, name, one) for name, one in old.inputs.items()}
    return StepComparison(
        step=old.step if sum(record.step == old.step for record in records) == 1 else old.made_by,
        status=new.status,
        same=tuple(name for name, same in is_same.items() if same),
        different=tuple(name for name, same in is_same.items() if not same),
        causes=tuple(cause for cause, applies in causes.items() if applies),
    )


def _has_same(artifacts: Mapping[str, Artifact], name: str, artifact: Artifact) -> bool:
    return name in artifacts and artifacts[name].digest == artifact.digest


def _environment_changes(pairs: list[tuple[StepRecord, StepRecord]]) -> dict[str, tuple[str, str]]:
    """The differences between the environments of the steps that ran again."""
    ran = [pair for pair in pairs if not pair[1].reused_from]
    then, now = ({key: value for pair in ran for key, value in pair[side].environment.items()} for side in (0, 1))
    names = dict.fromkeys([*then, *now])
    return {name: (then.get(name, ""), now.get(name, "")) for name in names if then.get(name) != now.get(name)}
