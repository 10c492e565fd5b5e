"""Opens runs and continues unfinished ones, and runs a step: inputs pinned, notebook executed, record written.

A step whose notebook, parameters, inputs and code are those of an earlier success is not run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import GateError, MissingError, PipelineError, StepError
from pipeline.files import write_atomically
from pipeline.runtime.code import code_digest, environment
from pipeline.runtime.earlier import find_earlier, note_complete
from pipeline.runtime.engines.choice import command_of, engine_of
from pipeline.runtime.engines.engine import Assignment
from pipeline.runtime.git import code_state, commit_time, refuse_dirty, tag
from pipeline.runtime.inputs import chosen_before, count_uses, note_uses, require_agreement
from pipeline.runtime.manifest import (
    FAILED,
    FOUND,
    INTERRUPTED,
    REUSED,
    SUCCEEDED,
    RunManifest,
    StepRecord,
    now,
    run_time,
)
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.process import is_alive, this_process
from pipeline.runtime.project import ELSEWHERE, Project, Values, config_option
from pipeline.runtime.resolving import NamedInput
from pipeline.runtime.step import DEV_STORE
from pipeline.runtime.store.artifact_store import Artifact

INPUT = "input"  # the key of the inputs chosen by hand in a run's config

log = logging.getLogger(__name__)


def open_run(
    project: Project, parameters: Values, overrides: Values, steps: Sequence[str], inputs: Mapping[str, NamedInput]
) -> RunManifest:
    """Open a new run for a command.

    `overrides` are the parameters that the command line sets, which hold for all steps of the run; `steps` are those
    that the command runs, and `inputs` those chosen by hand.
    """
    named = {INPUT: {entity: asdict(each) for entity, each in inputs.items()}} if inputs else {}
    return project.runs.open(
        RunManifest(
            run=project.runs.new_id(),
            mode=project.mode,
            pipeline=project.config.name,
            zone=project.config.zone,
            created=now(),
            config_file=project.config_file,
            config={**asdict(project.config), "parameters": parameters, "set": overrides, **named},
            code=asdict(code_state(project.root)),
            asked=tuple(steps),
            process=this_process(),
        )
    )


def unfinished_run(
    project: Project, parameters: Values, overrides: Values, steps: Sequence[str], typed: Mapping[str, str]
) -> RunManifest | None:
    """The newest run, if the same command opened it and it was killed, stopped or failed.

    A run in which another process may be at work is left to that process.
    """
    newest = project.runs.newest(pipeline=project.config.name)
    if newest is None or all(newest.success(step) for step in steps):
        return None
    is_same = is_of_command(project, newest, parameters, overrides, steps, typed)
    return newest if is_same and is_left(project, newest) else None


def is_of_command(
    project: Project,
    manifest: RunManifest,
    parameters: Values,
    overrides: Values,
    steps: Sequence[str],
    typed: Mapping[str, str],
) -> bool:
    """Whether a command, repeated, would open the same run: same steps, parameters, `--input` as typed, and code."""
    if manifest.asked != tuple(steps):
        return False
    latest = [manifest.of(name)[-1] for name in project.steps if manifest.of(name)]
    resolved = _same_wherever({**asdict(project.config), "parameters": parameters, "set": overrides})
    return (
        _same_wherever({key: value for key, value in manifest.config.items() if key != INPUT}) == resolved
        and {entity: each.typed for entity, each in named_inputs(manifest).items()} == typed
        and manifest.code == asdict(code_state(project.root))
        and all(
            (record.notebook_digest, record.code_digest) == (step.digest, code_digest(step.imports))
            for record in latest
            if (step := project.steps[record.step])
        )
    )


def is_left(project: Project, manifest: RunManifest) -> bool:
    """Whether no other process is at work on a run."""
    latest = [manifest.of(name)[-1] for name in project.steps if manifest.of(name)]
    begun = [record for record in latest if not record.ended]
    workers = {manifest.process, *(command_of(project.runs.store, manifest.run, record) for record in begun)}
    return all(is_alive(each) is False for each in workers - {this_process()})


def _same_wherever(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ELSEWHERE}


def named_inputs(run: RunManifest) -> dict[str, NamedInput]:
    """The inputs chosen by hand when a run was opened, as they were resolved then."""
    named = run.config.get(INPUT, {}).items()
    return {entity: NamedInput(**{**each, "artifact": Artifact(**each["artifact"])}) for entity, each in named}


def run_step(
    project: Project,
    run: str,
    step: StepNotebook,
    parameters: dict[str, Any],
    *,
    overrides: dict[str, Any],
    force: bool,
    stream: bool,
    continued: bool,
    chosen: Mapping[str, NamedInput],
    before: str = "",
) -> StepRecord:
    """Run one step in a run, or reuse an earlier success of the same work, unless `force` is set.

    `overrides` are those of the checked `parameters` that the command line set, and `chosen` the inputs named by hand
    in place of the run's own. In a `continued` run, a success that it already has stands. What the step compares its
    inputs with comes from runs before the run `before`, by default before its own.

    Returns:
        The attempt as it ended: `succeeded` or `reused`.

    Raises:
        MissingError: An earlier step has not made an input.
        StepError: The inputs do not agree, the notebook failed, or the tree is dirty in prod mode. GateError: a result
            is beyond its gate.
        KeyboardInterrupt: It was stopped and recorded; the argument is the signal.
    """
    runs = project.runs
    if project.mode == "prod":
        refuse_dirty(project.root, code_state(project.root))
    else:  # for notebooks opened by hand, which read no config; relative, since a checkout may be moved
        (project.root / ".cache").mkdir(exist_ok=True)
        write_atomically(project.root / DEV_STORE, runs.store.url.removeprefix(f"{project.root.resolve().as_uri()}/"))
    manifest = runs.end_killed(runs.load(run))
    record = _planned(manifest, project, step, parameters, overrides, chosen, before or run)
    known = None if force else runs.same_work(step.name, record.fingerprint)
    done = manifest.success(step.name)
    if continued and known and done and done.fingerprint == record.fingerprint:
        _tag(project, run, done)  # it may have been stopped just before
        return done
    began = time.monotonic()
    if not known and len(step.reads) > 1:
        record = replace(record, uses=count_uses(runs, step.name, record.own_inputs))
    engine = engine_of(project, step.name)
    left = None if known or force else engine.left_behind(manifest, record)
    record = left or runs.start(run, replace(record, engine="" if known else engine.name))
    began -= _age(left) if left else 0.0
    stopped = 0

    def closed(record: StepRecord, **changes: Any) -> StepRecord:
        return replace(record, ended=now(), seconds=round(time.monotonic() - began, 3), **changes)

    try:
        if known:
            ended = _reused(record, *known)
        else:
            ended, stopped = engine.execute(step, _assigned(project, run, record, stream=stream), fresh=force)
    except BaseException as error:  # whatever it was, the record says that the attempt is over
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        try:
            runs.end(run, closed(record, status=status, error=str(error), error_kind=type(error).__name__))
        except PipelineError as lost:  # the first error is the one to report
            log.error("the end of %s/%s could not be recorded: %s", run, record.made_by, lost.problem)
        raise
    ended = closed(ended)
    note_uses(runs, ended)
    note_complete(runs, project.steps, runs.end(run, ended))
    if ended.status == SUCCEEDED:
        engine.forget(ended)
    if ended.status == FAILED:
        raise (GateError if ended.error_kind == GateError.__name__ else StepError)(_failure(ended))
    if ended.status != INTERRUPTED:
        _tag(project, run, ended)
    if stopped:
        raise KeyboardInterrupt(stopped)
    return ended


def missing_input(project: Project, step: StepNotebook, entity: str, manifest: RunManifest | None) -> MissingError:
    """The error for an input that is not made yet; the remedy names the first step to run."""
    writers = {name: other for other in project.steps.values() for name in other.writes}
    first = writer = writers[entity]
    while lacking := [name for name in first.reads if manifest is None or manifest.output(name) is None]:
        first = writers[lacking[0]]
    run = f" --run {manifest.run}" if manifest and first.reads else ""
    return MissingError(
        f"{step.name} needs {entity}, and {writer.name} has not made it in this run",
        where=f"run {manifest.run}" if manifest else f"no {project.mode} run of '{project.config.name}' yet",
        expected=f"a success of {writer.name}",
        remedy=f"python step.{project.mode}.py {first.name}{config_option(project.config_file)}{run}",
    )


def _age(record: StepRecord) -> float:
    """Seconds since an attempt has started."""
    return (datetime.now(UTC) - datetime.fromisoformat(record.started)).total_seconds()


def _tag(project: Project, run: str, record: StepRecord) -> None:
    commit = str(record.code["commit"])
    if project.mode == "prod":
        log.info("tagged %s as %s", commit[:12], tag(project.root, commit, run, record.step))


def _planned(
    manifest: RunManifest,
    project: Project,
    step: StepNotebook,
    parameters: dict[str, Any],
    overrides: dict[str, Any],
    chosen: Mapping[str, NamedInput],
    before: str,
) -> StepRecord:
    """The attempt before it starts; the inputs are resolved here, once, and must agree."""
    named = {entity: chosen[entity].source for entity in step.inputs if entity in chosen}
    inputs: dict[str, Artifact] = {}
    for entity in step.reads:
        artifact = chosen[entity].artifact if entity in named else manifest.output(entity)
        if artifact is None:
            raise missing_input(project, step, entity, manifest)
        inputs[entity] = artifact
    require_agreement(project.runs, manifest, step.name, inputs, named)
    descent = chosen_before(project.runs, manifest, inputs)
    inputs |= find_earlier(project.runs, manifest.pipeline, step.earlier, inputs, before=before)
    inputs |= {entity: chosen[entity].artifact for entity in named}
    modules = code_digest(step.imports)
    basis = {
        "step": step.name,
        "notebook": step.digest,
        "parameters": parameters,
        "inputs": {name: artifact.digest for name, artifact in inputs.items()},
        "code": modules,
        **({"chosen": sorted([*named, *descent])} if named or descent else {}),  # reports state it
    }
    return StepRecord(
        step=step.name,
        attempt=0,
        started=now(),
        parameters=parameters,
        overrides=overrides,
        notebook_digest=step.digest,
        code_digest=modules,
        fingerprint=hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest(),
        inputs=inputs,
        chosen=named,
        chosen_before=descent,
        code=asdict(code_state(project.root)),
        environment=environment(),
        process=this_process(),
    )


def _reused(record: StepRecord, source: str, earlier: StepRecord) -> StepRecord:
    same = {name: getattr(earlier, name) for name in ("outputs", *FOUND, "notes", "uses", "notebook", "report")}
    return replace(record, status=REUSED, reused_from=f"{source}/{earlier.made_by}", **same)


def _assigned(project: Project, run: str, record: StepRecord, *, stream: bool) -> Assignment:
    """The attempt as an engine is to execute it."""
    made = commit_time(project.root, str(record.code["commit"])) or _newest_time(record.inputs)
    return Assignment(run, record, project.mode, _code_version(record), made, project.config_option, stream)


def _code_version(record: StepRecord) -> str:
    commit = str(record.code["commit"])
    return f"{commit}-dirty" if commit and record.code["dirty"] else commit


def _newest_time(inputs: Mapping[str, Artifact]) -> str:
    """The time of the newest run that made an input, or an empty text."""
    return run_time(max((artifact.made_by for artifact in inputs.values()), default=""))


def _failure(record: StepRecord) -> str:
    lines = [f"{record.step} failed", *(f"  {line}" for line in record.error.splitlines())]
    lines += [f"  note:     {remark}" for remark in record.remarks]
    lines += [f"  notebook: {record.notebook}"] if record.notebook else []
    lines += [f"  page:     {record.report}"] if record.report else []
    return "\n".join(lines)
