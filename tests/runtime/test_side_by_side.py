"""Many processes on one store and one run: nothing is lost, nothing is wrong, nothing is in another's way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import busy
import pytest
from records import opened

from pipeline.runtime.manifest import SUCCEEDED
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

FEW, MANY = (2, 3), (8, 30)  # processes, seconds


def run_side_by_side(url: str, run: str, size: tuple[int, int], *more: float) -> list[dict[str, Any]]:
    """What each of the processes did."""
    processes, seconds = size
    command = [sys.executable, busy.__file__, url, run]
    commands = [[*command, str(number), str(seconds), *map(str, more)] for number in range(processes)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(each, **pipes) for each in commands]
    told = [worker.communicate(timeout=seconds + 120) for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * processes, "\n".join(error[-2000:] for _, error in told)
    return [json.loads(out) for out, _ in told]


def check(runs: Runs, told: list[dict[str, Any]], box: Path) -> int:
    """Every record and byte that anyone was told is safe; how many records there are."""
    [run] = runs.ids()
    runs = Runs(Store(runs.store.url))
    done = [each for worker in told for each in worker["done"]]
    attempts = {record.id: record for record in runs.load(run).attempts}
    assert len(attempts) == len(done)
    for each in done:
        record = attempts[each["id"]]
        assert (record.step, record.attempt, record.status) == (each["step"], each["attempt"], SUCCEEDED)
        assert record.outputs == {"shared": Artifact(**each["artifact"])}
    for step in ("first", "second", "third"):
        numbers = [record.attempt for record in runs.load(run).of(step)]
        assert numbers == list(range(1, len(numbers) + 1))
    rendered = json.loads(runs.store.files.read(f"runs/{run}/manifest.json"))
    assert sum(1 + len(step["earlier_attempts"]) for step in rendered["steps"].values()) == len(done)
    assert {step["status"] for step in rendered["steps"].values()} == {SUCCEEDED}
    artifacts = {record.outputs["shared"].digest: record.outputs["shared"] for record in attempts.values()}
    for artifact in artifacts.values():
        for path in runs.store.get(artifact, box / artifact.digest).iterdir():
            assert path.read_bytes() == busy.content(int(path.stem))
    return len(done)


SIZES = [
    pytest.param("local", FEW, id="few-local"),
    pytest.param("local", MANY, id="many-local", marks=pytest.mark.slow),
    pytest.param("s3", MANY, id="many-s3", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "size"), SIZES)
def test_processes_side_by_side_lose_no_record_and_no_byte(
    store_url: str, size: tuple[int, int], tmp_path: Path
) -> None:
    runs = Runs(Store(store_url))
    opened(runs)
    told = run_side_by_side(store_url, runs.ids()[0], size)
    assert check(runs, told, tmp_path / "out") > size[0]
    objects = [info.key for info in runs.store.files.find("objects")]
    assert len(objects) == len(set(objects)) <= busy.POOL


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "size"), SIZES[1:])
def test_collections_take_nothing_that_is_used_or_about_to_be(
    store_url: str, size: tuple[int, int], tmp_path: Path
) -> None:
    runs = Runs(Store(store_url))
    opened(runs)
    told = run_side_by_side(store_url, runs.ids()[0], size, 2.0)
    check(runs, told, tmp_path / "out")
    assert sum(worker["removed"] for worker in told) > 0
