"""The trials of a sweep: each is an ordinary run of the same config, with some parameters set."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cli.step_commands import log_step
from pipeline.cli.swept_parameters import Combination, SweptParameter, as_overrides
from pipeline.errors import GateError, StepError, UsageError
from pipeline.runtime.manifest import FAILED, GOOD, RunManifest
from pipeline.runtime.project import Project
from pipeline.runtime.runner import is_left, is_of_command, open_run, run_step

WIDTH = 76  # of a line with its indent

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trial:
    """One trial as it ended."""

    number: int  # 1 for the first
    combination: Combination
    manifest: RunManifest | None  # None where the values were refused together
    problem: str = ""  # why it failed, or missed its quality gate
    has_ended: bool = False  # with a success of every step, or below its quality gate


class Trials:
    """Runs the trials of a project, or finds their runs: a trial that has ended is not run again."""

    def __init__(self, project: Project, swept: Sequence[SweptParameter], number: int) -> None:
        """For a `number` of trials."""
        self.project, self.number = project, number
        self.done: list[Trial] = []
        self.before = ""  # the first trial's run: all are compared with what runs before it made, not with each other
        self._varied = [each.name for each in swept if each.size > 1]
        self._runs = project.runs.readable()

    def run(self, combination: Combination) -> Trial:
        """Run a trial, go on with its run, or find that it has ended.

        One that missed its quality gate has ended. One that failed otherwise is tried again, as by its own command.

        Raises:
            PipelineError: What would fail every trial, such as an unreachable store.
        """
        number = len(self.done) + 1
        told = [f"{name}={value_text(combination[name])}" for name in self._varied or combination]
        log.info("\n%s", "\n  ".join(_lines(f"trial {number} of {self.number}", told)))
        trial = self._run(number, combination)
        self.done.append(trial)
        self.before = self.before or (trial.manifest.run if trial.manifest else "")
        return trial

    def _run(self, number: int, combination: Combination) -> Trial:
        project, overrides, steps = self.project, as_overrides(combination), list(self.project.steps)
        try:
            parameters = project.parameters(overrides)
        except UsageError as error:  # values of a search that are only wrong together
            log.error("error: %s", error)
            return Trial(number, combination, None, error.problem)
        same = [each for each in reversed(self._runs) if is_of_command(project, each, parameters, overrides, steps, {})]
        if ended := next((each for each in same if has_ended(each, steps)), None):
            log.info("run %s has ended", ended.run)
            return Trial(number, combination, ended, _problem(ended), has_ended=True)
        left = next((each for each in same if is_left(project, each)), None)
        run = (left or open_run(project, parameters, overrides, steps, {})).run
        log.info("run %s%s", run, "  continued" if left else "")
        try:
            for step in project.steps.values():
                record = run_step(
                    project,
                    run,
                    step,
                    parameters[step.name],
                    overrides=overrides.get(step.name, {}),
                    force=False,
                    stream=False,
                    continued=left is not None,
                    chosen={},
                    before=self.before,
                )
                log_step(record, project.steps)
        except StepError as error:
            log.error("error: %s", error)
        manifest = project.runs.load(run)
        return Trial(number, combination, manifest, _problem(manifest), has_ended=has_ended(manifest, steps))


def has_ended(manifest: RunManifest, steps: Sequence[str]) -> bool:
    """Whether all steps succeeded, or a step missed its quality gate."""
    latest = [attempts[-1] for step in steps if (attempts := manifest.of(step))]
    missed = any(record.status == FAILED and record.error_kind == GateError.__name__ for record in latest)
    return missed or (len(latest) == len(steps) and all(record.status in GOOD for record in latest))


def _problem(manifest: RunManifest) -> str:
    """The first line of what the newest attempt failed with."""
    newest = manifest.attempts[-1] if manifest.attempts else None
    return "" if newest is None or newest.status in GOOD else f"{newest.step}: {newest.error.partition(chr(10))[0]}"


def _lines(head: str, parts: Sequence[str]) -> list[str]:
    """The parts behind each other, on as many lines as they need."""
    lines = [head]
    for part in parts:
        if len(lines[-1]) + len(part) > WIDTH:
            lines.append(part)
        else:
            lines[-1] += f"  {part}"
    return lines


def value_text(value: object) -> str:
    """A value as it is typed behind `--set`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
