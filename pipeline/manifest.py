"""The run manifest: what ran, on what, from what, made what.

The truth is a set of small records, each written once: the run was opened, an attempt at a step started, an attempt
ended. `manifest.json` is rendered from them after each, for people and programs to read, and never read back.

    <root>/runs/RUN/run.json
    <root>/runs/RUN/attempts/STEP.001.started.json
    <root>/runs/RUN/attempts/STEP.001.ended.json
    <root>/runs/RUN/manifest.json
    <root>/reuse/STEP/FINGERPRINT/RUN.001            an index of successes, by what they were made from
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import IntegrityError, MissingError, UsageError
from pipeline.store import Artifact, Store

SCHEMA = 1
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
        error: What went wrong, as the user saw it.
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
    status: str = RUNNING
    ended: str = ""
    seconds: float = 0.0
    outputs: dict[str, Artifact] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    notebook: str = ""
    report: str = ""
    error: str = ""
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
        return tuple(record for record in self.attempts if record.step == step)

    def success(self, step: str) -> StepRecord | None:
        """The newest attempt at a step that has outputs to build on."""
        return next((record for record in reversed(self.of(step)) if record.status in GOOD), None)

    def output(self, entity: str) -> Artifact | None:
        """The artifact that entity stands for in this run now."""
        good = [record for record in self.attempts if record.status in GOOD and entity in record.outputs]
        return max(good, key=lambda record: record.started).outputs[entity] if good else None

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
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")[:18] + "Z-" + secrets.token_hex(3)


class Runs:
    """The runs of one store, read from and written as records."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def open(self, manifest: RunManifest) -> RunManifest:
        """Record a new run."""
        content = asdict(manifest)
        content.pop("attempts")
        self.store.write_once(f"runs/{manifest.run}/run.json", _dump(content))
        return self.render(manifest.run)

    def ids(self) -> list[str]:
        """Oldest first."""
        return self.store.list("runs")

    def load(self, run: str) -> RunManifest:
        """Put a run together from its records.

        Raises:
            MissingError: No such run, with the nearest.
            UsageError: It was written by a newer version.
            IntegrityError: A record cannot be read.
        """
        folder = f"runs/{run}"
        if not self.store.exists(f"{folder}/run.json"):
            known = self.ids()
            raise MissingError(
                f"there is no run '{run}'",
                where=f"{self.store.url}/runs",
                expected=f"one of {len(known)}, the newest {known[-1]}" if known else "a run; there is none yet",
                remedy="list them with: python -m pipeline runs",
            )
        content = self._read(f"{folder}/run.json")
        if content.get("schema", 0) > SCHEMA:
            raise UsageError(
                f"run {run} was written by a newer version of the pipeline",
                where=f"{self.store.url}/{folder}/run.json",
                expected=f"manifest schema {SCHEMA} or older, found {content['schema']}",
                remedy="update the pipeline",
            )
        attempts: dict[tuple[str, str], dict[str, Any]] = {}
        for name in self.store.list(f"{folder}/attempts"):  # "ended" sorts before "started"
            step, number, moment, _ = name.split(".")
            record = self._read(f"{folder}/attempts/{name}")
            attempts[step, number] = record if moment == "ended" else attempts.get((step, number), record)
        records = sorted((StepRecord.from_json(a) for a in attempts.values()), key=lambda r: (r.started, r.attempt))
        return RunManifest(**{**content, "attempts": tuple(records)})

    def newest(self, *, pipeline: str = "", having: str = "") -> RunManifest | None:
        """The newest run, of one pipeline or having an output of one entity where asked for."""
        for run in reversed(self.ids()):
            if self.store.exists(f"runs/{run}/run.json"):
                manifest = self.load(run)
                if (not pipeline or manifest.pipeline == pipeline) and (not having or manifest.output(having)):
                    return manifest
        return None

    def start(self, run: str, record: StepRecord) -> StepRecord:
        """Record that an attempt starts, under the next free number."""
        number = len([name for name in self.store.list(f"runs/{run}/attempts") if name.startswith(f"{record.step}.")])
        while True:
            number += 1
            numbered = replace(record, attempt=number)
            if self.store.write_once(self._key(run, numbered, "started"), _dump(asdict(numbered))):
                self.render(run)
                return numbered

    def end(self, run: str, record: StepRecord) -> RunManifest:
        """Record how an attempt ended, and make a success findable by what it was made from."""
        self.store.write_once(self._key(run, record, "ended"), _dump(asdict(record)))
        if record.status == SUCCEEDED:
            self.store.write_once(
                f"reuse/{record.step}/{record.fingerprint}/{run}.{record.attempt:03}", _dump(asdict(record))
            )
        return self.render(run)

    def same_work(self, step: str, fingerprint: str) -> tuple[str, StepRecord] | None:
        """The newest success of the same work whose outputs are all still in the store, and its run."""
        folder = f"reuse/{step}/{fingerprint}"
        for name in reversed(self.store.list(folder)):
            record = StepRecord.from_json(self._read(f"{folder}/{name}"))
            if all(self.store.has(artifact) for artifact in record.outputs.values()):
                return name.rsplit(".", 1)[0], record
        return None

    def render(self, run: str) -> RunManifest:
        """Write `manifest.json` anew from the records."""
        manifest = self.load(run)
        self.store.replace(f"runs/{run}/manifest.json", _dump(manifest.to_json()))
        return manifest

    def _key(self, run: str, record: StepRecord, moment: str) -> str:
        return f"runs/{run}/attempts/{record.step}.{record.attempt:03}.{moment}.json"

    def _read(self, key: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self.store.read(key))
        except ValueError as error:
            raise IntegrityError(f"a record cannot be read: {error}", where=f"{self.store.url}/{key}") from error
        return content


def _dump(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
