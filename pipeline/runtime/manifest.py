"""The run manifest: what ran, with which inputs, code and parameters, and what it made. `runs` stores it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.errors import GateError
from pipeline.runtime.process import NOBODY, Process, is_alive
from pipeline.runtime.store.artifact_store import Artifact

SCHEMA = 4
WITH_LIMITS = 4  # the first schema that records the limits of a gate
RUN_ID = re.compile(r"\d{8}T\d{9}Z-[0-9a-f]{6,}")
SUCCEEDED, REUSED, FAILED, INTERRUPTED = "succeeded", "reused", "failed", "interrupted"
RUNNING, KILLED = "running", "killed"  # without a recorded end: the process may be alive; it is known to be gone
GOOD = (SUCCEEDED, REUSED)
PASSED, NO_VERDICT = "passed", "none"  # by the quality gate; no limit decided
FOUND = ("metrics", "limits", "judged", "evidence")  # fields of a record that a notebook commits as they are
EARLIER = "earlier_"  # before the name of an entity: an input that the step only compares its own with


@dataclass(frozen=True)
class StepRecord:
    """One attempt at a step."""

    step: str
    attempt: int  # 1 for the first in this run
    started: str  # UTC, ISO 8601; as is `ended`, which is empty while it runs
    parameters: dict[str, Any]  # all of them, including defaults
    notebook_digest: str  # SHA-256 of the notebook's cells
    code_digest: str  # SHA-256 of the modules the notebook imports
    fingerprint: str  # SHA-256 of everything the result depends on
    inputs: dict[str, Artifact]  # pinned, by entity
    code: dict[str, Any]  # a `CodeState`
    environment: dict[str, str]
    overrides: dict[str, Any] = field(default_factory=dict)  # the parameters that the command line set
    status: str = RUNNING
    ended: str = ""
    seconds: float = 0.0
    outputs: dict[str, Artifact] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    # the quality gate: each limit in words, and whether it is met; None where that is unknown
    limits: dict[str, bool | None] = field(default_factory=dict)
    judged: str = ""  # the input that the limits judge
    evidence: dict[str, str] = field(default_factory=dict)  # `ENTITY/PATH` of outputs that show the metrics: SHA-256
    notes: tuple[str, ...] = ()  # sentences from the notebook that a user must know
    # inputs named by hand, which need not agree with the others: entity to the run, artifact or URL
    chosen: dict[str, str] = field(default_factory=dict)
    # those of earlier steps that these inputs descend from: `STEP: ENTITY` to source
    chosen_before: dict[str, str] = field(default_factory=dict)
    uses: dict[str, int] = field(default_factory=dict)  # see `inputs.count_uses`
    notebook: str = ""  # location of the executed notebook
    report: str = ""  # of the same as HTML
    error: str = ""  # as the user saw it; the first line is a summary
    error_kind: str = ""
    reused_from: str = ""  # `run/step/attempt` that made the outputs
    engine: str = ""  # what it runs on; empty for the machine of the command line
    job: str = ""  # the engine's name of the job that ended it
    id: str = field(default_factory=lambda: secrets.token_hex(8))  # by which a writer recognises its own record
    process: Process = NOBODY  # that executed it; until it has an end, that of the command line
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> StepRecord:
        """Read what `dataclasses.asdict` gives, of any schema.

        Schema 1 lacks `id`, `process` and `schema`; 1 and 2 lack `notes`, `chosen`, `chosen_before` and `uses`; 1 to 3
        lack `limits`, `judged`, `evidence`, `engine` and `job`.
        """
        values = {"id": "", "schema": 1, **content}
        values["notes"] = tuple(values.get("notes", ()))
        for side in ("inputs", "outputs"):
            values[side] = {name: Artifact(**artifact) for name, artifact in values.get(side, {}).items()}
        values["process"] = Process(**values.get("process", {}))
        return cls(**values)

    @property
    def made_by(self) -> str:
        """`step/attempt`."""
        return f"{self.step}/{self.attempt}"

    @property
    def remarks(self) -> list[str]:
        """Sentences that a user must know: which inputs were named by hand, and the notebook's notes."""
        digests = {name: self.inputs[name].digest[:12] for name in self.chosen}
        own = [f"{name} {digests[name]} was chosen by hand: {source}" for name, source in self.chosen.items()]
        before = self.chosen_before.items()
        return [
            *own,
            *(f"the inputs descend from {name}, chosen by hand: {source}" for name, source in before),
            *self.notes,
        ]

    @property
    def is_whole(self) -> bool:
        """Whether its outputs are those of a whole step: it succeeded, or only missed its quality gate."""
        return self.status in GOOD or (self.error_kind == GateError.__name__ and bool(self.outputs))

    @property
    def gate(self) -> str:
        """The outcome of the quality gate: `passed`, `failed`, or `none` where no limit decided."""
        return gate_verdict(self.limits.values())

    @property
    def own_inputs(self) -> dict[str, Artifact]:
        """The inputs without those of an earlier run that they are compared with."""
        return {name: artifact for name, artifact in self.inputs.items() if not name.startswith(EARLIER)}

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Its inputs and outputs."""
        return (*self.inputs.values(), *self.outputs.values())

    @property
    def state(self) -> str:
        """The recorded status, or `killed` if it has no end and its process is gone."""
        return KILLED if self.is_killed else self.status

    @property
    def is_killed(self) -> bool:
        """Whether it has no end and its process is known to be gone. A job outlives the command: its engine knows."""
        return self.status == RUNNING and not self.engine and is_alive(self.process) is False


@dataclass(frozen=True)
class RunManifest:
    """One pass through the steps."""

    run: str  # sorts by time
    mode: str
    pipeline: str  # name of the config
    zone: str
    created: str
    config_file: str
    config: dict[str, Any]  # resolved, with what the command line added
    code: dict[str, Any]  # a `CodeState` when the run was opened
    attempts: tuple[StepRecord, ...] = ()  # in the order they started
    asked: tuple[str, ...] = ()  # the steps that the opening command was to run; none in schema 1
    process: Process = NOBODY  # that opened it
    schema: int = SCHEMA

    @classmethod
    def from_json(cls, content: Mapping[str, Any], attempts: tuple[StepRecord, ...]) -> RunManifest:
        """Read what `dataclasses.asdict` gives without the attempts, of any schema."""
        process = Process(**content.get("process", {}))
        return cls(**{**content, "asked": tuple(content.get("asked", ())), "process": process, "attempts": attempts})

    def of(self, step: str) -> tuple[StepRecord, ...]:
        """The attempts at a step, oldest first."""
        return tuple(sorted((r for r in self.attempts if r.step == step), key=lambda record: record.attempt))

    def success(self, step: str) -> StepRecord | None:
        """The newest successful attempt at a step."""
        return next((record for record in reversed(self.of(step)) if record.status in GOOD), None)

    def output(self, entity: str) -> Artifact | None:
        """The artifact of an entity that the newest success of its step made."""
        good = [record for record in self.attempts if record.status in GOOD and entity in record.outputs]
        return max(good, key=lambda record: record.attempt).outputs[entity] if good else None

    @property
    def recorded_config(self) -> dict[str, Any]:
        """The config without what the command line added."""
        return {key: value for key, value in self.config.items() if key not in ("set", "input")}

    def origin(self, record: StepRecord) -> str:
        """`run/step/attempt` that made an attempt's outputs: that of another run if it was reused."""
        return record.reused_from or f"{self.run}/{record.made_by}"

    def to_json(self) -> dict[str, Any]:
        """The manifest as shown: per step its latest attempt, with the earlier ones below it."""
        content = asdict(self)
        content.pop("attempts")
        steps: dict[str, Any] = {}
        for step in dict.fromkeys(record.step for record in self.attempts):
            *earlier, latest = self.of(step)
            steps[step] = {**asdict(latest), "earlier_attempts": [asdict(attempt) for attempt in earlier]}
        return {"schema": content.pop("schema"), **content, "steps": steps}


def gate_verdict(verdicts: Iterable[bool | None]) -> str:
    """The outcome of a quality gate, as `StepRecord.gate` has it, by that of each limit."""
    known = [verdict for verdict in verdicts if verdict is not None]
    return NO_VERDICT if not known else PASSED if all(known) else FAILED


def notebook_key(origin: str, suffix: str = "ipynb") -> str:
    """The key in the store of the executed notebook of `run/step/attempt`, or with the suffix `html` of its page."""
    run, step, attempt = origin.split("/")
    return f"runs/{run}/notebooks/{step}.{int(attempt):03}.{suffix}"


def now() -> str:
    """UTC with milliseconds, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_run_id(after: str = "") -> str:
    """An id that sorts by time to the millisecond, and after the run `after` whatever the clock says."""
    time = datetime.now(UTC)
    if after:
        time = datetime.strptime(after[:18] + "000Z", "%Y%m%dT%H%M%S%f%z") + timedelta(milliseconds=1)
    return time.strftime("%Y%m%dT%H%M%S%f")[:18] + "Z-" + secrets.token_hex(5)


def run_time(name: str) -> str:
    """The time to the second in a run's id, or in a name that begins with one: ISO 8601 in UTC; else empty."""
    if not RUN_ID.match(name):
        return ""
    return datetime.strptime(name[:15] + "Z", "%Y%m%dT%H%M%S%z").strftime("%Y-%m-%dT%H:%M:%SZ")
