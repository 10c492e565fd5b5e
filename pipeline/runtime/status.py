"""Where a run stands: each step done, stale, failed, interrupted, running or not run, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runtime.code import code_digest
from pipeline.runtime.config import Values
from pipeline.runtime.inputs import inputs_agree
from pipeline.runtime.manifest import GOOD, KILLED, RUNNING, RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook, follow_links
from pipeline.runtime.process import is_alive
from pipeline.runtime.project import Project

STALE, DONE, NOT_RUN = "stale", "done", "not run"


@dataclass(frozen=True)
class StepStatus:
    """One step of a run: its name, its state, and why it is in it."""

    step: str
    state: str
    why: str = ""


def run_status(project: Project, manifest: RunManifest) -> list[StepStatus]:
    """How each step of a run stands to what it would be made from now.

    Args:
        project: With the run's own config.
        manifest: The run.
    """
    values = project.config.values(manifest.mode)
    return [_step_status(project, manifest, step, values) for step in project.steps.values()]


def _step_status(project: Project, manifest: RunManifest, step: StepNotebook, values: Values) -> StepStatus:
    attempts = manifest.of(step.name)
    if not attempts:
        return StepStatus(step.name, NOT_RUN)
    record = attempts[-1]
    if record.is_killed:
        return StepStatus(step.name, KILLED, f"its process is gone; it had started at {record.started}")
    if record.status == RUNNING:
        return StepStatus(step.name, RUNNING, _running(record))
    if record.status not in GOOD:
        return StepStatus(step.name, record.status, record.error.partition("\n")[0])
    changed = _changed(project, manifest, record, values)
    store = project.runs.store
    reasons = [
        ("the notebook changed", step.digest != record.notebook_digest),
        ("its code changed", code_digest(step.imports) != record.code_digest),
        (f"parameters changed: {', '.join(changed)}", bool(changed)),
        ("inputs changed", _inputs_changed(manifest, record)),
        ("its inputs do not agree", not _agree(project, manifest, record)),
        ("its outputs are gone from the store", not all(store.has(artifact) for artifact in record.outputs.values())),
    ]
    why = "; ".join(text for text, true in reasons if true)
    origin = f"from {record.reused_from}" if record.reused_from else ""
    if record.chosen:
        named = ", ".join(f"{entity}={typed}" for entity, typed in record.chosen.items())
        origin = "; ".join(filter(None, [origin, f"chosen by hand: {named}"]))
    return StepStatus(step.name, STALE if why else DONE, why or origin)


def _inputs_changed(manifest: RunManifest, record: StepRecord) -> bool:
    """Whether an input has other bytes now; who made the same bytes does not matter."""
    now = {entity: manifest.output(entity) for entity in record.inputs if entity not in record.chosen}
    return any(found is None or found.digest != record.inputs[entity].digest for entity, found in now.items())


def _agree(project: Project, manifest: RunManifest, record: StepRecord) -> bool:
    """Whether what it read agrees; a record made before this was asked for may hold what does not."""
    compared = {entity: artifact for entity, artifact in record.inputs.items() if entity not in record.chosen}
    return inputs_agree(project.runs, manifest, compared)


def _running(record: StepRecord) -> str:
    if is_alive(record.process):
        return f"since {record.started}"
    host = record.process.host.partition(" ")[0]
    return f"since {record.started} on {host or 'another machine'}, or killed there"


def _changed(project: Project, manifest: RunManifest, record: StepRecord, values: Values) -> list[str]:
    """Parameters that the same command would now set otherwise: the config as it is, and what its `--set` said."""
    opened: Values = manifest.config.get("set", {})
    given = {name: {**values.get(name, {}), **opened.get(name, {})} for name in project.steps}
    given[record.step] = {**values.get(record.step, {}), **record.overrides}
    defaults = {
        step.name: {name: parameter.default for name, parameter in step.parameters.items()}
        for step in project.steps.values()
    }
    everything = {name: {**defaults[name], **given[name]} for name in project.steps}
    now = follow_links(project.steps, given, everything)[record.step]
    return sorted(name for name in {*now, *record.parameters} if now.get(name) != record.parameters.get(name))
