"""The run that a command works in: a new one, or an unfinished one that the same command opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from pipeline.runtime.code import code_digest, code_state
from pipeline.runtime.config import Values
from pipeline.runtime.manifest import RUNNING, RunManifest, now
from pipeline.runtime.process import is_alive, this_process
from pipeline.runtime.project import Project
from pipeline.runtime.resolving import NamedInput

INPUT = "input"  # the key of the inputs chosen by hand in a run's config
NO_INPUTS: Mapping[str, NamedInput] = MappingProxyType({})
NO_TEXTS: Mapping[str, str] = MappingProxyType({})


def open_run(
    project: Project,
    parameters: Values,
    overrides: Values | None = None,
    steps: Sequence[str] = (),
    inputs: Mapping[str, NamedInput] = NO_INPUTS,
) -> RunManifest:
    """Open a new run.

    Args:
        project: Its project and config.
        parameters: Of every step, checked.
        overrides: Those that the command line set; they hold for all steps of the run.
        steps: The steps that this command runs.
        inputs: The inputs chosen by hand.
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
            config=_resolved_config(project, parameters, overrides) | named,
            code=asdict(code_state(project.root)),
            asked=tuple(steps),
            process=this_process(),
        )
    )


def unfinished_run(
    project: Project,
    parameters: Values,
    overrides: Values,
    steps: Sequence[str],
    typed: Mapping[str, str] = NO_TEXTS,
) -> RunManifest | None:
    """The newest run, if the same command opened it and it was killed, stopped or failed.

    The same command has the same steps, parameters, `--input` and code. A run in which another process may be at work
    is left to that process.
    """
    newest = project.runs.newest(pipeline=project.config.name)
    if newest is None or newest.asked != tuple(steps) or all(newest.success(step) for step in steps):
        return None
    latest = [newest.of(name)[-1] for name in project.steps if newest.of(name)]
    config = {key: value for key, value in newest.config.items() if key != INPUT}
    is_same = (
        config == _resolved_config(project, parameters, overrides)
        and {entity: each.typed for entity, each in named_inputs(newest).items()} == typed
        and newest.code == asdict(code_state(project.root))
        and all(
            (record.notebook_digest, record.code_digest) == (step.digest, code_digest(step.imports))
            for record in latest
            if (step := project.steps[record.step])
        )
    )
    workers = {newest.process, *(record.process for record in latest if record.status == RUNNING)}
    return newest if is_same and all(is_alive(each) is False for each in workers - {this_process()}) else None


def named_inputs(run: RunManifest) -> dict[str, NamedInput]:
    """The inputs chosen by hand when a run was opened, as they were resolved then."""
    return {entity: NamedInput.from_json(each) for entity, each in run.config.get(INPUT, {}).items()}


def _resolved_config(project: Project, parameters: Values, overrides: Values | None) -> dict[str, Any]:
    return {**asdict(project.config), "parameters": parameters, "set": overrides or {}}
