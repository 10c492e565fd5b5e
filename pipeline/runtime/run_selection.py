"""Which run a command works in: a new one, or one that the same command opened and that came to no end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from pipeline.runtime.code import code_digest, code_state
from pipeline.runtime.config import Values
from pipeline.runtime.manifest import RUNNING, RunManifest, StepRecord, now
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.process import is_alive, this_process
from pipeline.runtime.project import Project
from pipeline.runtime.resolving import NamedInput

INPUT = "input"  # where a run's config has the inputs that were named by hand

_NOTHING: Mapping[str, NamedInput] = MappingProxyType({})
_NONE: Mapping[str, str] = MappingProxyType({})


def open_run(
    project: Project,
    parameters: Values,
    overrides: Values | None = None,
    asked: Sequence[str] = (),
    chosen: Mapping[str, NamedInput] = _NOTHING,
) -> RunManifest:
    """Open a new run.

    Args:
        project: Whose config it has.
        parameters: Of every step, already checked.
        overrides: Those that the command line set; they hold for all steps of the run.
        asked: The steps that are to run in it now.
        chosen: Inputs that the command line named by hand.
    """
    return project.runs.open(
        RunManifest(
            run=project.runs.new_id(),
            mode=project.mode,
            pipeline=project.config.name,
            zone=project.config.zone,
            created=now(),
            config_file=project.config_file,
            config=_resolved_config(project, parameters, overrides)
            | ({INPUT: {entity: asdict(each) for entity, each in chosen.items()}} if chosen else {}),
            code=asdict(code_state(project.root)),
            asked=tuple(asked),
            process=this_process(),
        )
    )


def unfinished_run(
    project: Project,
    parameters: Values,
    overrides: Values,
    asked: Sequence[str],
    typed: Mapping[str, str] = _NONE,
) -> RunManifest | None:
    """The newest run, where the same command opened it and it came to no end: killed, stopped or failed.

    The same command is one for the same steps, parameters, inputs named by hand, and code. What another process may
    still be at work on is left to it.
    """
    newest = project.runs.newest(pipeline=project.config.name)
    if newest is None or newest.asked != tuple(asked) or all(newest.success(step) for step in asked):
        return None
    latest = [newest.of(name)[-1] for name in project.steps if newest.of(name)]
    config = {key: value for key, value in newest.config.items() if key != INPUT}
    same = (
        config == _resolved_config(project, parameters, overrides)
        and {entity: each.typed for entity, each in named_inputs(newest).items()} == typed
        and newest.code == asdict(code_state(project.root))
        and all(_is_of_this_code(record, project.steps[record.step]) for record in latest)
    )
    workers = {newest.process, *(record.process for record in latest if record.status == RUNNING)}
    return newest if same and all(is_alive(each) is False for each in workers - {this_process()}) else None


def named_inputs(run: RunManifest) -> dict[str, NamedInput]:
    """The inputs that the command which opened a run named by hand: as they were found then, whatever is newest now."""
    return {entity: NamedInput.from_json(each) for entity, each in run.config.get(INPUT, {}).items()}


def _resolved_config(project: Project, parameters: Values, overrides: Values | None) -> dict[str, Any]:
    return {**asdict(project.config), "parameters": parameters, "set": overrides or {}}


def _is_of_this_code(record: StepRecord, step: StepNotebook) -> bool:
    return (record.notebook_digest, record.code_digest) == (step.digest, code_digest(step.imports))
