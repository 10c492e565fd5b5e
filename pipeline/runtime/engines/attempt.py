"""Executes an attempt in a folder of its own, and keeps its notebook and page with the run."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StepError
from pipeline.runtime.engines.engine import Assignment
from pipeline.runtime.manifest import FAILED, FOUND, SUCCEEDED, StepRecord, notebook_key
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.process import work_folder
from pipeline.runtime.step import COMMITTED, StepContext
from pipeline.runtime.store.artifact_store import Artifact, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """The folders of an attempt on the machine that executes it; see `step.Step`."""

    root: Path  # of the project
    cache: Path  # the attempt's own folder is made below it
    resume: Path
    logs: Path


def execute_attempt(step: StepNotebook, assignment: Assignment, store: Store, places: Places) -> tuple[StepRecord, int]:
    """Execute an attempt on this machine; see `engine.Engine.execute` for what is returned."""
    from pipeline.runtime.execution import execute  # late: reuse needs no Jupyter

    record = assignment.record
    with work_folder(places.cache / "work", "step", step.name) as work:
        StepContext(
            step=step.name,
            made_by=assignment.made_by,
            store=store.url,
            work=str(work),
            cache=str(places.cache),
            inputs=record.inputs,
            resume=str(places.resume),
            logs=str(places.logs),
            mode=assignment.mode,
            chosen={**record.chosen, **record.chosen_before},
            uses=record.uses,
            code_version=assignment.code_version,
            code_time=assignment.code_time,
            parameters=record.parameters,
            defaults={name: parameter.default for name, parameter in step.parameters.items()},
            config_option=assignment.config_option,
            machine=assignment.machine,
        ).write(work / "context.json")
        executed = work / f"{step.name}.ipynb"
        context = work / "context.json"
        done = execute(places.root, step, record.parameters, executed, context, stream=assignment.stream)
        ended = replace(record, status=done.status, error=done.error, error_kind=done.error_kind)
        if (work / COMMITTED).is_file():
            committed = json.loads((work / COMMITTED).read_text(encoding="utf-8"))
            outputs = {name: Artifact(**artifact) for name, artifact in committed["outputs"].items()}
            found = {name: committed[name] for name in FOUND}
            ended = replace(ended, outputs=outputs, notes=tuple(committed["notes"]), **found)
        elif done.status == SUCCEEDED:
            problem = "the notebook ended without step.commit(...): it has published nothing"
            ended = replace(ended, status=FAILED, error=problem, error_kind=StepError.__name__)
        if executed.is_file():
            ended = _with_notebook(store, assignment.made_by, ended, executed)
    return ended, done.signal


def _with_notebook(store: Store, made_by: str, record: StepRecord, executed: Path) -> StepRecord:
    """Keep the executed notebook and its HTML; an error here does not fail the step."""
    from pipeline.runtime.executed_notebook import write_html

    try:
        record = replace(record, notebook=store.keep(notebook_key(made_by), executed))
        return replace(record, report=store.keep(notebook_key(made_by, "html"), write_html(executed)))
    except Exception as error:  # noqa: BLE001, the converters of outputs may raise anything
        log.warning("the notebook of %s is not kept whole: %s: %s", record.made_by, type(error).__name__, error)
        return record
