"""The run manifest: what ran, on what, from what, made what. How it is kept: see `runs`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from pipeline.store import Artifact

SCHEMA = 1
RUN_ID = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{6,}")
SUCCEEDED, REUSED, FAILED, INTERRUPTED, RUNNING = "succeeded", "reused", "failed", "interrupted", "running"
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
        status: `running`, `succeeded`, `reused`, `failed` or `interrupted`.
        ended: UTC, or empty while it runs.
        seconds: Wall time.
        outputs: By entity name.
        metrics: What the notebook committed.
        notebook: Where the notebook is as it ran.
        report: The same as HTML.
        error: What went wrong, as the user saw it; the first line says it in short.
        error_kind: Name of the exception.
        reused_from: `run/step/attempt` whose outputs these are.
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
    notebook: str = ""
    report: str = ""
    error: str = ""
    error_kind: str = ""
    reused_from: str = ""

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StepRecord:
        """From the form `dataclasses.asdict` gives it."""
        values = dict(content)
        for side in ("inputs", "outputs"):
            values[side] = {name: Artifact(**artifact) for name, artifact in values.get(side, {}).items()}
        return cls(**values)


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
    schema: int = SCHEMA

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
        for record in self.attempts:
            attempts = self.of(record.step)
            steps[record.step] = {
                **asdict(attempts[-1]),
                "earlier_attempts": [asdict(attempt) for attempt in attempts[:-1]],
            }
        return {"schema": content.pop("schema"), **content, "steps": steps}


def now() -> str:
    """UTC with milliseconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id() -> str:
    """Sorts by time to the millisecond; the tail keeps two of one millisecond apart."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:18] + "Z-" + secrets.token_hex(5)
