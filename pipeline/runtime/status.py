"""The state of each step of a run: done, stale, failed, interrupted, running or not run, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.runtime.code import code_digest
from pipeline.runtime.inputs import inputs_agree
from pipeline.runtime.manifest import GOOD, KILLED, RUNNING, RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook, follow_links
from pipeline.runtime.process import is_alive
from pipeline.runtime.project import Project, Values

STALE, DONE, NOT_RUN = "stale", "done", "not run"


@dataclass(frozen=True)
class StepStatus:
    """The state of one step, and the reason for it."""

    step: str
    state: str
    why: str = ""


def run_status(project: Project, manifest: RunManifest) -> list[StepStatus]:
    """Compare each step of a run with what it would be made from now."""
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
        return StepStatus(step.name, RUNNING, _running_since(record))
    if record.status not in GOOD:
        return StepStatus(step.name, record.status, record.error.partition("\n")[0])
    if reasons := _stale_reasons(project, manifest, step, record, values):
        return StepStatus(step.name, STALE, "; ".join(reasons))
    origin = [f"from {record.reused_from}"] if record.reused_from else []
    if record.chosen:
        chosen = ", ".join(f"{entity}={source}" for entity, source in record.chosen.items())
        origin.append(f"chosen by hand: {chosen}")
    return StepStatus(step.name, DONE, "; ".join(origin))


def _stale_reasons(
    project: Project, manifest: RunManifest, step: StepNotebook, record: StepRecord, values: Values
) -> list[str]:
    store, changed = project.runs.store, _changed_parameters(project, manifest, record, values)
    own_inputs = {entity: artifact for entity, artifact in record.inputs.items() if entity not in record.chosen}
    now = {entity: manifest.output(entity) for entity in own_inputs}
    same_inputs = all((found := now[entity]) and found.digest == own_inputs[entity].digest for entity in own_inputs)
    reasons = {
        "the notebook changed": step.digest != record.notebook_digest,
        "its code changed": code_digest(step.imports) != record.code_digest,
        f"parameters changed: {', '.join(changed)}": bool(changed),
        "inputs changed": not same_inputs,  # by their bytes: who made them does not matter
        "its inputs do not agree": not inputs_agree(project.runs, manifest, own_inputs),  # in old records
        "its outputs are gone from the store": not all(map(store.has, record.outputs.values())),
    }
    return [reason for reason, applies in reasons.items() if applies]


def _running_since(record: StepRecord) -> str:
    if is_alive(record.process):
        return f"since {record.started}"
    host = record.process.host.partition(" ")[0]
    return f"since {record.started} on {host or 'another machine'}, or killed there"


def _changed_parameters(project: Project, manifest: RunManifest, record: StepRecord, values: Values) -> list[str]:
    """Parameters that the same command would set otherwise now, from the config and its own `--set`."""
    opened: Values = manifest.config.get("set", {})
    given = {name: {**values.get(name, {}), **opened.get(name, {})} for name in project.steps}
    given[record.step] = {**values.get(record.step, {}), **record.overrides}
    everything = {
        step.name: {**{name: parameter.default for name, parameter in step.parameters.items()}, **given[step.name]}
        for step in project.steps.values()
    }
    now = follow_links(project.steps, given, everything)[record.step]
    return sorted(name for name in {*now, *record.parameters} if now.get(name) != record.parameters.get(name))
