"""What a look at every byte finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from folders import fill
from records import beginning, opened

from pipeline.runtime.manifest import SUCCEEDED
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact
from pipeline.runtime.verification import verify


def run_with(runs: Runs, artifact: Artifact) -> str:
    run = opened(runs, config_file="x.yaml")
    record = runs.start(run, beginning("maker"))
    runs.end(run, replace(record, status=SUCCEEDED, outputs={"things": artifact}))
    return run


@pytest.fixture
def artifact(runs: Runs, tmp_path: Path) -> Artifact:
    """Two files."""
    return runs.store.put("things", fill(tmp_path / "in", {"a": b"first", "b": b"second"}), "run/maker/1")


def test_a_damaged_file_is_named_with_its_runs_and_its_maker(runs: Runs, artifact: Artifact) -> None:
    ids = [run_with(runs, artifact), run_with(runs, artifact)]
    [key] = [file.key for file in runs.store.index(artifact) if file.path == "a"]
    runs.store.files.replace(key, b"first!")
    [finding] = verify(runs, ids).findings
    assert finding.what == "damaged or missing: a"
    assert finding.where == f"things/{artifact.digest[:12]}"
    assert finding.runs == tuple(ids)
    assert finding.remedy == f"python step.dev.py maker --force --run {ids[1]} --config x.yaml"


def test_unreadable_and_cut_records_are_findings(runs: Runs, artifact: Artifact) -> None:
    good, bad = run_with(runs, artifact), run_with(runs, artifact)
    runs.store.files.create(f"runs/{good}/attempts/second.001.started.json", b'{"step": "sec')
    runs.store.files.create(f"runs/{bad}/attempts/second.001.started.json", b"[]\n")
    found = verify(runs, [good, bad])
    assert [(finding.runs, finding.what.partition(":")[0]) for finding in found.findings] == [
        ((good,), "a record was cut off while it was written, and does not count"),
        ((bad,), "a record cannot be read"),
    ]
    assert found.artifacts == 1
