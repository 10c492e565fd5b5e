"""An old run again: the same commit, differences, config and inputs, in a git worktree of its own."""

from __future__ import annotations

import itertools
import json
import logging
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, StepError
from pipeline.runtime.config import read_config
from pipeline.runtime.inputs import require_agreement
from pipeline.runtime.manifest import GOOD, RUN_ID, RunManifest, StepRecord
from pipeline.runtime.notebook import read_steps
from pipeline.runtime.project import DEFAULT_CONFIG, Project, with_config
from pipeline.runtime.worktree import FOLDER, require_code, worktree

GOODBYE = "stopped;"  # with which a command ends on Ctrl-C: this one has its own

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepComparison:
    """A step of the old run beside the same of the new one.

    Attributes:
        step: Its name; of several attempts that went into the run, each with its number.
        status: In the new run.
        same: Outputs that are the same to the byte.
        different: Outputs that are not.
        causes: What else is not as it was: its notebook, code, parameters, or an input.
    """

    step: str
    status: str
    same: tuple[str, ...]
    different: tuple[str, ...]
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Rerun:
    """What came of it.

    Attributes:
        old: The run that was run again.
        new: The run that came of it.
        mode: Of both.
        steps: In the order in which they ran.
        environment: Name to what it was and what it is now, where that differs.
    """

    old: str
    new: str
    mode: str
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
        StepError: The code of then cannot be put together again, inputs of then do not agree, no step succeeded, or one
            fails now.
    """
    records = _needed(manifest)
    if not records:
        raise StepError(
            f"no step of run {manifest.run} succeeded",
            expected="a run with something to do again",
            remedy=f"python -m pipeline runs{_options(project)}",
        )
    for record in records:  # before hours go into the first; old code may not ask whether inputs agree
        require_code(project.root, manifest, record.code)
        require_agreement(project.runs, manifest, record.step, record.inputs, record.chosen)
    run, done = "", []
    for code, of_one_code in itertools.groupby(records, key=lambda record: record.code):
        with worktree(project, manifest, code) as tree:
            config = _config(project, tree, manifest)
            for record in of_one_code:
                run = _run_step(project, tree, manifest, record, config, run=run, reload=reload)
                done.append(project.runs.load(run).of(record.step)[-1])
    pairs = list(zip(records, done, strict=True))
    return Rerun(manifest.run, run, manifest.mode, tuple(_compared(records, *pair) for pair in pairs), _changed(pairs))


def _needed(manifest: RunManifest) -> list[StepRecord]:
    """The newest success of each step and the attempts that these were made from, in the order in which they ran."""
    found: dict[str, StepRecord] = {}
    names = dict.fromkeys(record.step for record in manifest.attempts)
    waiting = [record for name in names if (record := manifest.success(name))]
    while waiting:
        record = waiting.pop()
        found[record.made_by] = record
        for name, artifact in record.inputs.items():
            makers = [
                maker
                for maker in manifest.attempts
                if maker.status in GOOD and maker.ended <= record.started
                if name in maker.outputs and maker.outputs[name].digest == artifact.digest
            ]
            waiting += [maker for maker in makers[-1:] if maker.made_by not in found]
    return sorted(found.values(), key=lambda record: (record.started, record.ended))


# --- the config and parameters of then -------------------------------------------------------------------------------


def _config(project: Project, tree: Path, manifest: RunManifest) -> str:
    """The config as it was named; written from the manifest where there is none any more."""
    named = Path(manifest.config_file)
    recorded = {key: value for key, value in manifest.config.items() if key not in ("set", "input")}
    if named.is_absolute():  # it lay outside of the project
        if _is_as_recorded(named, recorded):
            return str(named)
        # outside of the worktree, which prod wants clean, and left there: whoever looks at the new run reads it
        kept = (project.root / FOLDER / f"{manifest.run}.yaml").resolve()
        kept.write_text(_yaml(recorded, indent=2), encoding="utf-8")
        return str(kept)
    if not (tree / named).is_file():
        (tree / named).parent.mkdir(parents=True, exist_ok=True)
        (tree / named).write_text(_yaml(recorded, indent=2), encoding="utf-8")
    return named.as_posix()


def _is_as_recorded(config: Path, recorded: Mapping[str, Any]) -> bool:
    """Whether a config is there and names the same pipeline and store; what parameters it gives is looked at later."""
    try:
        found = read_config(config)
    except PipelineError:
        return False
    return (found.name, found.store, found.zone) == (recorded["name"], recorded["store"], recorded["zone"])


def _values(tree: Path, manifest: RunManifest, record: StepRecord, config: str, *, opens: bool) -> list[str]:
    """What `--set` has to say for the parameters of then: what it said then, and what the config gives otherwise."""
    overrides = {**(manifest.config.get("set", {}) if opens else {}), record.step: dict(record.overrides)}
    try:
        here = with_config(manifest.mode, tree / config, tree, read_steps(tree / "steps"))
        given = here.parameters(overrides)[record.step]
    except PipelineError:  # a config or notebook of then that only the code of then understands
        given = record.parameters
    overrides[record.step] |= {
        name: value for name, value in record.parameters.items() if given.get(name, value) != value
    }
    return [f"{step}.{name}={_typed(value)}" for step, some in overrides.items() for name, value in some.items()]


def _typed(value: Any) -> str:
    """As `--set` takes it: a text as it is, anything else in YAML's notation."""
    return value if isinstance(value, str) else _yaml(value)


def _yaml(value: Any, indent: int | None = None) -> str:
    """As JSON, which is YAML but for how characters are escaped; PyYAML would leave texts such as 1e-3 unquoted."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return re.sub(r"[^\x00-\x7e]", lambda found: f"\\U{ord(found[0]):08x}", text)


# --- running it ------------------------------------------------------------------------------------------------------


def _run_step(
    project: Project, tree: Path, manifest: RunManifest, record: StepRecord, config: str, *, run: str, reload: bool
) -> str:
    """Run a step as a person would, and tell which run it ran in."""
    command = [sys.executable, f"step.{manifest.mode}.py", record.step, "--config", config]
    for value in _values(tree, manifest, record, config, opens=not run):
        command += ["--set", value]
    for entity in record.chosen:
        command += ["--input", f"{entity}={entity}/{record.inputs[entity].digest}"]
    command += ["--run", run] if run else []
    command += ["--force"] if record.inputs or reload else []
    code, found = _followed(command, tree, run)
    if code:
        of = f"{record.step} {found}" if found else ""
        raise StepError(
            f"{record.step} fails where it once succeeded",
            where=f"run {found}" if found else f"commit {str(record.code['commit'])[:12]}",
            expected=f"what {manifest.run}/{record.made_by} gave",
            remedy=f"python -m pipeline log {of}{_options(project)}" if of else "",
        )
    return found


def _followed(command: list[str], tree: Path, run: str) -> tuple[int, str]:
    """Run a command, logging what it says, and passing on what is to stop it.

    Returns:
        Its exit code, and the run that it works on.
    """
    stop: KeyboardInterrupt | None = None
    with subprocess.Popen(
        command,
        cwd=tree,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # where things were delivered to, which is gone in a moment
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        process_group=0,  # a terminal's Ctrl-C would reach it twice: the second stops it without tidying up
    ) as process:
        while process.returncode is None:
            try:
                for line in process.stderr or ():
                    found = re.match(rf"run ({RUN_ID.pattern})  ", line)
                    if not line.startswith(GOODBYE) and not (found and found[1] == run):
                        log.info("%s", line.rstrip())
                    run = found[1] if found else run
                process.wait()
            except KeyboardInterrupt as error:
                stop = error
                process.send_signal(error.args[0] if error.args else signal.SIGINT)
    if stop:
        raise stop
    return process.returncode, run


# --- what came of it -------------------------------------------------------------------------------------------------


def _compared(records: list[StepRecord], old: StepRecord, new: StepRecord) -> StepComparison:
    same = tuple(name for name in old.outputs if _has(new.outputs, old.outputs, name))
    causes = [
        ("its notebook", old.notebook_digest != new.notebook_digest),
        ("its code", old.code_digest != new.code_digest),
        ("its parameters", old.parameters != new.parameters),
        *((f"its input {name}", not _has(new.inputs, old.inputs, name)) for name in old.inputs),
    ]
    alone = sum(record.step == old.step for record in records) == 1
    return StepComparison(
        step=old.step if alone else old.made_by,
        status=new.status,
        same=same,
        different=tuple(name for name in old.outputs if name not in same),
        causes=tuple(cause for cause, true in causes if true),
    )


def _has(artifacts: Mapping[str, Any], others: Mapping[str, Any], name: str) -> bool:
    return name in artifacts and bool(artifacts[name].digest == others[name].digest)


def _changed(pairs: list[tuple[StepRecord, StepRecord]]) -> dict[str, tuple[str, str]]:
    """What of the environment was another; of a step that was not run again nothing counts."""
    ran = [pair for pair in pairs if not pair[1].reused_from]
    then, now = ({key: value for pair in ran for key, value in pair[side].environment.items()} for side in (0, 1))
    names = dict.fromkeys([*then, *now])
    return {name: (then.get(name, ""), now.get(name, "")) for name in names if then.get(name) != now.get(name)}


def _options(project: Project) -> str:
    """What a command has to be told, to look at the same runs."""
    config = "" if project.config_file == DEFAULT_CONFIG else f" --config {shlex.quote(project.config_file)}"
    return config + (" --mode prod" if project.mode == "prod" else "")
