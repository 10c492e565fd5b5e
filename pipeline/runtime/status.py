"""The state of each step of a run: done, stale, failed, interrupted, running or not run, and why."""

from __future__ import annotations

from pipeline.runtime.code import code_digest
from pipeline.runtime.engines.choice import is_at_work, place_of
from pipeline.runtime.inputs import inputs_agree
from pipeline.runtime.manifest import GOOD, KILLED, RUNNING, RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook, follow_links
from pipeline.runtime.project import Project

STALE, DONE, NOT_RUN = "stale", "done", "not run"


def run_status(project: Project, manifest: RunManifest) -> dict[str, tuple[str, str]]:
    """Compare each step of a run with what it would be made from now: its state, and the reason for it."""
    return {name: _state(project, manifest, step) for name, step in project.steps.items()}


def code_changes(step: StepNotebook, record: StepRecord) -> list[str]:
    """What has changed of a step since an attempt, apart from its parameters and inputs."""
    notebook = ["the notebook changed"] if step.digest != record.notebook_digest else []
    return [*notebook, *(["its code changed"] if code_digest(step.imports) != record.code_digest else [])]


def _state(project: Project, manifest: RunManifest, step: StepNotebook) -> tuple[str, str]:
    attempts = manifest.of(step.name)
    if not attempts:
        return NOT_RUN, ""
    record = attempts[-1]
    store = project.runs.store
    if record.status == RUNNING and is_at_work(store, manifest.run, record) is False:
        lost = "its process is gone" if not record.engine else "its job has ended, and no command has recorded how"
        return KILLED, f"{lost}; it had started at {record.started}"
    if record.status == RUNNING:
        return RUNNING, f"since {record.started} {place_of(store, manifest.run, record)}".rstrip()
    if record.status not in GOOD:
        return record.status, record.error.partition("\n")[0]
    if reasons := _stale_reasons(project, manifest, step, record):
        return STALE, "; ".join(reasons)
    chosen = ", ".join(f"{entity}={source}" for entity, source in record.chosen.items())
    origin = f"from {record.reused_from}" if record.reused_from else ""
    return DONE, "; ".join(filter(None, [origin, f"chosen by hand: {chosen}" if chosen else ""]))


def _stale_reasons(project: Project, manifest: RunManifest, step: StepNotebook, record: StepRecord) -> list[str]:
    changed = _changed_parameters(project, manifest, record)
    own_inputs = {entity: artifact for entity, artifact in record.own_inputs.items() if entity not in record.chosen}
    now = {entity: manifest.output(entity) for entity in own_inputs}
    same_inputs = all((found := now[entity]) and found.digest == own_inputs[entity].digest for entity in own_inputs)
    reasons = {
        f"parameters changed: {', '.join(changed)}": bool(changed),
        "inputs changed": not same_inputs,  # by their bytes: who made them does not matter
        "its inputs do not agree": not inputs_agree(project.runs, manifest, own_inputs),  # in old records
        "its outputs are gone from the store": not all(map(project.runs.store.has, record.outputs.values())),
    }
    return [*code_changes(step, record), *(reason for reason, applies in reasons.items() if applies)]


def _changed_parameters(project: Project, manifest: RunManifest, record: StepRecord) -> list[str]:
    """Parameters that the same command would set otherwise now, from the config and its own `--set`."""
    values, opened = project.config.values(manifest.mode), manifest.config.get("set", {})
    given = {name: {**values.get(name, {}), **opened.get(name, {})} for name in project.steps}
    given[record.step] = {**values.get(record.step, {}), **record.overrides}
    everything = {
        step.name: {**{name: parameter.default for name, parameter in step.parameters.items()}, **given[step.name]}
        for step in project.steps.values()
    }
    now = follow_links(project.steps, given, everything)[record.step]
    return sorted(name for name in {*now, *record.parameters} if now.get(name) != record.parameters.get(name))
