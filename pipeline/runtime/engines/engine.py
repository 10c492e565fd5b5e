"""What the runner gives to an engine, and what it expects of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pipeline.runtime.machines import Machine
from pipeline.runtime.manifest import RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook


@dataclass(frozen=True)
class Assignment:
    """An attempt that is to be executed."""

    run: str
    record: StepRecord  # as it started
    mode: str
    code_version: str  # see `step.Step`, as is `code_time`
    code_time: str
    config_option: str  # likewise
    stream: bool  # whether all is shown that the kernel prints
    machine: Machine = field(default_factory=Machine)  # what the step has asked for

    @property
    def made_by(self) -> str:
        """`run/step/attempt`."""
        return f"{self.run}/{self.record.made_by}"


class Engine(Protocol):
    """A place where notebooks are executed."""

    name: str  # as the record has it; empty for this machine

    def left_behind(self, manifest: RunManifest, planned: StepRecord) -> StepRecord | None:
        """The attempt at this very work that a killed command left running, or None."""
        ...

    def execute(self, step: StepNotebook, assignment: Assignment, *, fresh: bool) -> tuple[StepRecord, int]:
        """Execute an attempt.

        Args:
            step: The notebook.
            assignment: The attempt.
            fresh: Do not resume from an earlier attempt at the same work.

        Returns:
            The record with how the attempt ended, except for its time, and the signal that stopped it or 0.
        """
        ...

    def forget(self, record: StepRecord) -> None:
        """Remove what a next attempt at the same work would resume from: there will be none."""
        ...


def resume_name(record: StepRecord) -> str:
    """A name that attempts at this very work share, to resume from."""
    return f"{record.step}.{record.fingerprint[:32]}"
