"""Runs made by hand, for what looks at them: branching, failing, reusing."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

from pipeline.runtime.manifest import FAILED, REUSED, RUNNING, SUCCEEDED, RunManifest, StepRecord
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact

STORE = "file:///store/default/dev"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def run_id(number: int) -> str:
    return f"20260101T0000{number:02}000Z-{sha256(str(number).encode()).hexdigest()[:10]}"


def artifact(name: str, version: str = "1", made_by: str = "") -> Artifact:
    """Another version is another digest."""
    digest = sha256(f"{name} {version}".encode()).hexdigest()
    return Artifact(name, f"{STORE}/artifacts/{name}/{digest}", digest, 1500000, 3, made_by)


def attempt(
    step: str, reads: tuple[Artifact, ...] = (), makes: tuple[Artifact, ...] = (), **changes: Any
) -> StepRecord:
    """A success unless told otherwise."""
    number = changes.pop("attempt", 1)
    record = StepRecord(
        step=step,
        attempt=number,
        started=f"2026-01-01T00:00:{number:02}.000Z",
        parameters={"epochs": 1},
        notebook_digest="a" * 64,
        code_digest="b" * 64,
        fingerprint="c" * 64,
        inputs={one.name: one for one in reads},
        code={"commit": COMMIT, "dirty": False, "diff": "", "untracked": {}},
        environment={"python": "3.12.1", "torch": "2.13.0"},
        status=SUCCEEDED,
        ended=f"2026-01-01T00:00:{number:02}.500Z",
        seconds=0.5,
        outputs={one.name: one for one in makes},
    )
    return replace(record, **changes)


def failed(step: str, error: str = "ValueError: no such luck\n  in:       cell 3", **changes: Any) -> StepRecord:
    return attempt(step, **{"status": FAILED, "error": error, "error_kind": "ValueError", **changes})


def reused(record: StepRecord, source: str, **changes: Any) -> StepRecord:
    """The same work, taken over from the run `source`."""
    made_by = f"{source}/{record.step}/{record.attempt}"
    return replace(record, **{"status": REUSED, "reused_from": made_by, "attempt": 1, **changes})


def run_of(number: int, *attempts: StepRecord, **changes: Any) -> RunManifest:
    """The `number`th run."""
    manifest = RunManifest(
        run=run_id(number),
        mode="dev",
        pipeline="toy",
        zone="default",
        created="2026-01-01T00:00:00.000Z",
        config_file="configs/demo.yaml",
        config={"name": "toy"},
        code={"commit": COMMIT, "dirty": False, "diff": "", "untracked": {}},
        attempts=attempts,
    )
    return replace(manifest, **changes)


def opened(runs: Runs, **changes: Any) -> str:
    """A new run in a store."""
    return runs.open(run_of(1, run=runs.new_id(), **changes)).run


def beginning(step: str = "first", **changes: Any) -> StepRecord:
    """An attempt that is about to start."""
    return attempt(step, **{"attempt": 0, "status": RUNNING, "ended": "", "seconds": 0.0, **changes})
