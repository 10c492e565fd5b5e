"""The run manifest: what ran, on what, from what, made what. How it is kept: see `runs`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.runtime.process import NOBODY, Process, is_alive
from pipeline.runtime.store.artifact_store import Artifact

SCHEMA = 3
RUN_ID = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{6,}")
SUCCEEDED, REUSED, FAILED, INTERRUPTED = "succeeded", "reused", "failed", "interrupted"
RUNNING, KILLED = "running", "killed"  # no end is recorded: the process is, or may be, alive; it is known to be gone
GOOD = (SUCCEEDED, REUSED)


@dataclass(frozen=True)
class StepRecord:
    """One attempt at a step.

    Attributes:
        step: Its name.
        attempt: 1 for the first in this run.
        started: UTC, ISO 8601.
        parameters: All of them, defaults included.
        overrides: Those of them that the command line set.
        notebook_digest: SHA-256 of the notebook's cells.
        code_digest: SHA-256 of the modules the notebook imports.
        fingerprint: SHA-256 of everything the result depends on; equal ones are the same work.
        inputs: By entity name, pinned.
        code: Commit, and what differs from it.
        environment: Python, packages and device.
        status: `running`, `succeeded`, `reused`, `failed`, `interrupted` or `killed`.
        ended: UTC, or empty while it runs.
        seconds: Wall time.
        outputs: By entity name.
        metrics: What the notebook committed.
        notes: What the notebook said that a user must know, a sentence each.
        chosen: Inputs that were named by hand: entity to the run, artifact or URL. They need not agree with the others.
        chosen_before: The same of earlier steps, from whose outputs the inputs descend: `STEP: ENTITY` to what.
        uses: Of each input, with how many different other inputs this step has met it over all runs, see `inputs`.
        notebook: Where the notebook is as it ran.
        report: The same as HTML.
        error: What went wrong, as the user saw it; the first line says it in short.
        error_kind: Name of the exception.
        reused_from: `run/step/attempt` whose outputs these are.
        id: Of this attempt alone, so that its writer knows its own record again.
        process: Who runs it.
        schema: Of this record.
    """

    step: str
    attempt: int
    started: str
    parameters: dict[str, Any]
    notebook_digest: str
    code_digest: str
    fingerprint: str
    inputs: dict[str, Artifact]
    code: dict[str, Any]
    environment: dict[str, str]
    overrides: dict[str, Any] = field(default_factory=dict)
    status: str = RUNNING
    ended: str = ""
    seconds: float = 0.0
    outputs: dict[str, Artifact] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chosen: dict[str, str] = field(default_factory=dict)
    chosen_before: dict[str, str] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)
    notebook: str = ""
    report: str = ""
    error: str = ""
    error_kind: str = ""
    reused_from: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    process: Process = NOBODY
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StepRecord:
        """From the form `dataclasses.asdict` gives it, of any schema.

        Schema 1 has no `id`, `process` and `schema`; 1 and 2 have no `notes`, `chosen`, `chosen_before` and `uses`.
        """
        values = {"id": "", "schema": 1, **content}
        values["notes"] = tuple(values.get("notes", ()))
        for side in ("inputs", "outputs"):
            values[side] = {name: Artifact(**artifact) for name, artifact in values.get(side, {}).items()}
        values["process"] = Process(**values.get("process", {}))
        return cls(**values)

    @property
    def made_by(self) -> str:
        """`step/attempt`, which with the run's id names it."""
        return f"{self.step}/{self.attempt}"

    @property
    def remarks(self) -> list[str]:
        """What a user must know of it, a sentence each: which inputs were named by hand, and what the notebook says."""
        own = [
            f"{name} {self.inputs[name].digest[:12]} was chosen by hand: {source}"
            for name, source in self.chosen.items()
        ]
        before = [
            f"the inputs descend from {name}, chosen by hand: {source}" for name, source in self.chosen_before.items()
        ]
        return [*own, *before, *self.notes]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All that it refers to: what it read and what it made."""
        return (*self.inputs.values(), *self.outputs.values())

    @property
    def state(self) -> str:
        """The status as it is known now: a recorded one, or `killed` where there is no end and the process is gone."""
        return KILLED if self.is_killed else self.status

    @property
    def is_killed(self) -> bool:
        """Whether it has no end and never will have: its process is known to be gone."""
        return self.status == RUNNING and is_alive(self.process) is False


@dataclass(frozen=True)
class RunManifest:
    """One pass through the steps.

    Attributes:
        run: Id; sorts by time.
        mode: `dev` or `prod`.
        pipeline: Name of the config.
        zone: The part of the store it lies in.
        created: UTC.
        config_file: As it was given.
        config: As it was resolved.
        code: Commit when the run was opened, and what differed from it.
        attempts: By step in the order they started.
        asked: The steps that the command which opened it was to run; none in a run of schema 1.
        process: Who opened it.
        schema: Of these records.
    """

    run: str
    mode: str
    pipeline: str
    zone: str
    created: str
    config_file: str
    config: dict[str, Any]
    code: dict[str, Any]
    attempts: tuple[StepRecord, ...] = ()
    asked: tuple[str, ...] = ()
    process: Process = NOBODY
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, content: Mapping[str, Any], attempts: tuple[StepRecord, ...]) -> RunManifest:
        """From the form `dataclasses.asdict` gives it, and the attempts; of schema 1 too."""
        process = Process(**content.get("process", {}))
        return cls(**{**content, "asked": tuple(content.get("asked", ())), "process": process, "attempts": attempts})

    def of(self, step: str) -> tuple[StepRecord, ...]:
        """The attempts at a step, oldest first."""
        return tuple(sorted((r for r in self.attempts if r.step == step), key=lambda record: record.attempt))

    def success(self, step: str) -> StepRecord | None:
        """The newest attempt at a step that has outputs to build on."""
        return next((record for record in reversed(self.of(step)) if record.status in GOOD), None)

    def output(self, entity: str) -> Artifact | None:
        """The artifact that entity stands for in this run now: what the newest success of its step made."""
        good = [record for record in self.attempts if record.status in GOOD and entity in record.outputs]
        return max(good, key=lambda record: record.attempt).outputs[entity] if good else None

    def to_json(self) -> dict[str, Any]:
        """The manifest as it is shown: per step its latest attempt, and the earlier ones below it."""
        content = asdict(self)
        content.pop("attempts")
        steps: dict[str, Any] = {}
        for step in dict.fromkeys(record.step for record in self.attempts):
            *earlier, latest = self.of(step)
            steps[step] = {**asdict(latest), "earlier_attempts": [asdict(attempt) for attempt in earlier]}
        return {"schema": content.pop("schema"), **content, "steps": steps}


def now() -> str:
    """UTC with milliseconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id(after: str = "") -> str:
    """Sorts by time to the millisecond; the tail keeps two of one millisecond apart.

    Args:
        after: A run whose successor it is to be, whatever the clock says.
    """
    time = datetime.now(UTC)
    if after:
        time = datetime.strptime(after[:18] + "000Z", "%Y%m%dT%H%M%S%f%z") + timedelta(milliseconds=1)
    return time.strftime("%Y%m%dT%H%M%S%f")[:18] + "Z-" + secrets.token_hex(5)
