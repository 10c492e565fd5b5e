"""Runs a step: its parameters checked, its inputs pinned, its notebook executed, its record written.

A step whose notebook, parameters, inputs and code are those of an earlier success is not run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.errors import GateError, MissingError, PipelineError, StepError
from pipeline.files import write_atomically
from pipeline.runtime.code import CodeState, code_digest, code_state, environment, refuse_dirty, tag
from pipeline.runtime.inputs import chosen_before, count_uses, note_uses, require_agreement
from pipeline.runtime.manifest import FAILED, GOOD, INTERRUPTED, REUSED, SUCCEEDED, RunManifest, StepRecord, now
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.process import this_process, work_folder
from pipeline.runtime.project import Project, config_option
from pipeline.runtime.resolving import NamedInput
from pipeline.runtime.step_context import COMMITTED, DEV_STORE, StepContext
from pipeline.runtime.store.artifact_store import Artifact, Store

log = logging.getLogger(__name__)

_NOTHING: Mapping[str, NamedInput] = MappingProxyType({})


def run_step(
    project: Project,
    run: str,
    step: StepNotebook,
    parameters: dict[str, Any],
    *,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
    stream: bool = False,
    continued: bool = False,
    chosen: Mapping[str, NamedInput] = _NOTHING,
) -> StepRecord:
    """Run one step in a run, or reuse an earlier success of the same work.

    Args:
        project: The project and mode.
        run: The run's id.
        step: The step.
        parameters: All of them, already checked.
        overrides: Those of them that the command line set, for the record.
        force: Run it even when an earlier success would do.
        stream: Show the kernel's output.
        continued: Let a success that this run already has stand.
        chosen: Inputs named by hand in place of the run's own.

    Returns:
        The attempt as it ended: `succeeded` or `reused`.

    Raises:
        MissingError: An earlier step has not made an input.
        StepError: The inputs do not agree, the notebook failed, or the tree is dirty in prod mode. GateError: a result
            is beyond its gate.
        KeyboardInterrupt: It was stopped and recorded; the argument is the signal.
    """
    runs = project.runs
    code = code_state(project.root)
    if project.mode == "prod":
        refuse_dirty(project.root, code)
    else:
        _note_store(project.root, runs.store)
    manifest = runs.end_killed(runs.load(run))
    record = replace(_planned(manifest, project, step, parameters, code, chosen), overrides=overrides or {})
    known = None if force else runs.same_work(step.name, record.fingerprint)
    done = manifest.success(step.name)
    if continued and known and done and done.fingerprint == record.fingerprint:
        _tag_in_prod(project, code, run, step)  # it may have been stopped just before
        return done
    began = time.monotonic()
    if not known and len(step.reads) > 1:
        record = replace(record, uses=count_uses(runs, step.name, record.inputs))
    record = runs.start(run, record)
    stopped = 0
    try:
        if known:
            ended = _reused(record, *known)
        else:
            ended, stopped = _executed(runs.store, project, run, step, record, fresh=force, stream=stream)
    except BaseException as error:  # whatever it was, the record says that the attempt is over
        status = INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
        closed = _closed(record, began, status=status, error=str(error), error_kind=type(error).__name__)
        try:
            runs.end(run, closed)
        except PipelineError as lost:  # the first error is the one to report
            log.error("the end of %s/%s could not be recorded: %s", run, closed.made_by, lost.problem)
        raise
    ended = _closed(ended, began)
    note_uses(runs, ended)
    runs.end(run, ended)
    if ended.status == SUCCEEDED:
        shutil.rmtree(_resume_folder(project, ended), ignore_errors=True)
    if ended.status == FAILED:
        raise (GateError if ended.error_kind == GateError.__name__ else StepError)(_failure(ended))
    if ended.status in GOOD:
        _tag_in_prod(project, code, run, step)
    if stopped:
        raise KeyboardInterrupt(stopped)
    return ended


def _tag_in_prod(project: Project, code: CodeState, run: str, step: StepNotebook) -> None:
    if project.mode == "prod":
        log.info("tagged %s as %s", code.commit[:12], tag(project.root, code.commit, run, step.name))


def _note_store(root: Path, store: Store) -> None:
    """Note the store for notebooks opened by hand, which read no config; relative, since a checkout may be moved."""
    note = root / DEV_STORE
    note.parent.mkdir(exist_ok=True)
    write_atomically(note, store.url.removeprefix(f"{root.resolve().as_uri()}/"))


def _planned(
    manifest: RunManifest,
    project: Project,
    step: StepNotebook,
    parameters: dict[str, Any],
    code: CodeState,
    chosen: Mapping[str, NamedInput],
) -> StepRecord:
    """The attempt before it starts; the inputs are resolved here, once, and must agree."""
    named = {entity: chosen[entity].source for entity in step.reads if entity in chosen}
    inputs: dict[str, Artifact] = {}
    for entity in step.reads:
        artifact = chosen[entity].artifact if entity in named else manifest.output(entity)
        if artifact is None:
            raise missing_input(project, step, entity, manifest)
        inputs[entity] = artifact
    require_agreement(project.runs, manifest, step.name, inputs, named)
    before = chosen_before(project.runs, manifest, inputs)
    modules = code_digest(step.imports)
    basis = {
        "step": step.name,
        "notebook": step.digest,
        "parameters": parameters,
        "inputs": {name: artifact.digest for name, artifact in inputs.items()},
        "code": modules,
        **({"chosen": sorted([*named, *before])} if named or before else {}),  # reports state it
    }
    return StepRecord(
        step=step.name,
        attempt=0,
        started=now(),
        parameters=parameters,
        notebook_digest=step.digest,
        code_digest=modules,
        fingerprint=hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest(),
        inputs=inputs,
        chosen=named,
        chosen_before=before,
        code=asdict(code),
        environment=environment(),
        process=this_process(),
    )


def _resume_folder(project: Project, record: StepRecord) -> Path:
    """The folder that attempts at this very work share, to resume from."""
    return project.resume / f"{record.step}.{record.fingerprint[:32]}"


def missing_input(project: Project, step: StepNotebook, entity: str, manifest: RunManifest | None) -> MissingError:
    """The error for an input that is not made yet; the remedy names the first step to run."""
    writers = {name: other for other in project.steps.values() for name in other.writes}
    first = writer = writers[entity]
    while lacking := [name for name in first.reads if manifest is None or manifest.output(name) is None]:
        first = writers[lacking[0]]
    config = config_option(project.config_file)
    run = f" --run {manifest.run}" if manifest and first.reads else ""
    return MissingError(
        f"{step.name} needs {entity}, and {writer.name} has not made it in this run",
        where=f"run {manifest.run}" if manifest else f"no {project.mode} run of '{project.config.name}' yet",
        expected=f"a success of {writer.name}",
        remedy=f"python step.{project.mode}.py {first.name}{config}{run}",
    )


def _reused(record: StepRecord, source: str, earlier: StepRecord) -> StepRecord:
    return replace(
        record,
        status=REUSED,
        outputs=earlier.outputs,
        metrics=earlier.metrics,
        notes=earlier.notes,
        uses=earlier.uses,
        notebook=earlier.notebook,
        report=earlier.report,
        reused_from=f"{source}/{earlier.step}/{earlier.attempt}",
    )


def _executed(
    store: Store, project: Project, run: str, step: StepNotebook, record: StepRecord, *, fresh: bool, stream: bool
) -> tuple[StepRecord, int]:
    """Execute the notebook in a folder of its own, and keep it and its HTML with the run.

    Returns:
        The attempt, and the signal that stopped it or 0.
    """
    from pipeline.runtime.execution import execute  # late: reuse needs no Jupyter

    cache = project.root / ".cache"
    with work_folder(cache / "work", "step", step.name) as work:
        resume = _resume_folder(project, record)
        if fresh:
            shutil.rmtree(resume, ignore_errors=True)
        made_by = f"{run}/{record.made_by}"
        logs = cache / "logs" / made_by
        context = StepContext(
            step=step.name,
            made_by=made_by,
            store=store.url,
            work=str(work),
            cache=str(cache),
            inputs=record.inputs,
            resume=str(resume),
            logs=str(logs),
            mode=project.mode,
            chosen={**record.chosen, **record.chosen_before},
            uses=record.uses,
        )
        context.write(work / "context.json")
        executed = work / f"{step.name}.ipynb"
        done = execute(project.root, step, record.parameters, executed, work / "context.json", stream=stream)
        ended = replace(record, status=done.status, error=done.error, error_kind=done.error_kind)
        if (work / COMMITTED).is_file():
            committed = json.loads((work / COMMITTED).read_text(encoding="utf-8"))
            outputs = {name: Artifact(**artifact) for name, artifact in committed["outputs"].items()}
            ended = replace(ended, outputs=outputs, metrics=committed["metrics"], notes=tuple(committed["notes"]))
        elif done.status == SUCCEEDED:
            problem = "the notebook ended without step.commit(...): it has published nothing"
            ended = replace(ended, status=FAILED, error=problem, error_kind=StepError.__name__)
        if executed.is_file():
            ended = _with_notebook(store, run, ended, executed)
    return ended, done.signal


def _with_notebook(store: Store, run: str, record: StepRecord, executed: Path) -> StepRecord:
    """Keep the executed notebook and its HTML; an error here does not fail the step."""
    from pipeline.runtime.executed_notebook import write_html

    key = f"runs/{run}/notebooks/{record.step}.{record.attempt:03}"
    try:
        record = replace(record, notebook=store.keep(f"{key}.ipynb", executed))
        return replace(record, report=store.keep(f"{key}.html", write_html(executed)))
    except Exception as error:  # noqa: BLE001, the converters of outputs may raise anything
        log.warning("the notebook of %s is not kept whole: %s: %s", record.made_by, type(error).__name__, error)
        return record


def _closed(record: StepRecord, began: float, **changes: Any) -> StepRecord:
    return replace(record, ended=now(), seconds=round(time.monotonic() - began, 3), **changes)


def _failure(record: StepRecord) -> str:
    lines = [f"{record.step} failed", *(f"  {line}" for line in record.error.splitlines())]
    lines += [f"  note:     {remark}" for remark in record.remarks]
    lines += [f"  notebook: {record.notebook}"] if record.notebook else []
    lines += [f"  page:     {record.report}"] if record.report else []
    return "\n".join(lines)
