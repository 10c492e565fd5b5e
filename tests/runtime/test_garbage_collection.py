"""What is garbage, and what is not."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import fill
from records import beginning, opened

from pipeline.errors import IntegrityError, UsageError
from pipeline.runtime import garbage_collection
from pipeline.runtime.garbage_collection import LOST, collect, find_garbage
from pipeline.runtime.manifest import REUSED, SUCCEEDED, StepRecord
from pipeline.runtime.process import Process, this_process
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Artifact, Store

LONG_AGO = "2026-01-01T00:00:00.000Z"
SLOW_BACKENDS = [pytest.param(name, marks=pytest.mark.slow) for name in ("memory", "s3")]
everywhere = pytest.mark.parametrize("backend", ["local", "memory", "s3"], indirect=True)


@pytest.fixture(params=["local", *SLOW_BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    """Local disk; the other kinds of place take seconds, since their times cannot be set."""
    return str(request.param)


def record(step: str = "first", **changes: Any) -> StepRecord:
    return beginning(step, **{"process": Process("gone", "", 1, "x"), **changes})


def made(runs: Runs, run: str, folder: Path, text: str, **changes: Any) -> Artifact:
    """An artifact that a success of a run refers to."""
    artifact = put(runs, folder, text)
    started = runs.start(run, record(**changes))
    runs.end(run, replace(started, status=SUCCEEDED, outputs={"things": artifact}))
    return artifact


def put(runs: Runs, folder: Path, text: str) -> Artifact:
    contents = {"text.txt": text.encode(), "shared.txt": b"the same in all"}
    return runs.store.put("things", fill(folder, contents), "r/first/1")


def swept(runs: Runs, *, keep: int | None = None) -> list[str]:
    """Keys of what a collection removes that spares nothing; a moment after everything was written."""
    time.sleep(0.02 if runs.store.url.startswith(("file", "memory")) else 1.1)  # S3 tells times in seconds
    garbage = find_garbage(runs, keep=keep, spare=0)
    gone = collect(runs, garbage)
    assert {info.key for info in gone} <= {info.key for info in garbage.files}
    return sorted(info.key for info in gone)


@everywhere
def test_what_no_run_refers_to_goes_and_the_rest_stays(runs: Runs, tmp_path: Path) -> None:
    kept = made(runs, opened(runs), tmp_path / "in", "kept")
    assert swept(runs) == []
    lost = put(runs, tmp_path / "in", "lost")
    [text] = [file.key for file in runs.store.index(lost) if file.path == "text.txt"]
    assert swept(runs) == sorted([f"artifacts/things/{lost.digest}", text]), "the other file is shared"
    assert runs.store.check(kept) == []
    assert not runs.store.has(lost)
    assert swept(runs) == []


def test_inputs_and_failed_attempts_and_those_without_end_are_referred_to(runs: Runs, tmp_path: Path) -> None:
    run = opened(runs)
    inputs = [put(runs, tmp_path / "in", text) for text in ("of one that failed", "of one without end")]
    failed = runs.start(run, record(inputs={"things": inputs[0]}))
    runs.end(run, replace(failed, status="failed", outputs={"things": put(runs, tmp_path / "in", "below its gate")}))
    runs.start(run, record("second", inputs={"things": inputs[1]}))
    assert swept(runs) == []


def test_the_newest_runs_of_each_pipeline_are_kept(runs: Runs, tmp_path: Path) -> None:
    ids, artifacts = [], []
    for number, pipeline in enumerate(["toy", "other", "toy", "toy"]):
        ids.append(opened(runs, pipeline=pipeline))
        artifacts.append(made(runs, ids[-1], tmp_path / "in", f"text {number}", fingerprint=f"{number}" * 64))
    runs.store.keep(f"runs/{ids[0]}/notebooks/first.001.ipynb", tmp_path / "in" / "text.txt")
    gone = swept(runs, keep=2)
    assert runs.ids() == ids[1:]
    assert [runs.store.has(artifact) for artifact in artifacts] == [False, True, True, True]
    assert list(runs.store.files.find(f"runs/{ids[0]}")) == []
    assert [key for key in gone if key.startswith("reuse/")] == [f"reuse/first/{'0' * 64}/{ids[0]}.001"]
    assert runs.same_work("first", "0" * 64) is None
    assert runs.same_work("first", "3" * 64) is not None
    swept(runs, keep=1)
    assert runs.ids() == [ids[1], ids[3]]
    with pytest.raises(UsageError, match="at least 1"):
        find_garbage(runs, keep=0)


def test_a_run_with_a_living_attempt_and_one_whose_work_a_kept_one_reuses_are_kept(runs: Runs, tmp_path: Path) -> None:
    source, _, third = (opened(runs) for _ in range(3))
    artifact = made(runs, source, tmp_path / "in", "text")
    reused = runs.start(third, record())
    runs.end(third, replace(reused, status=REUSED, outputs={"things": artifact}, reused_from=f"{source}/first/1"))
    swept(runs, keep=1)
    assert runs.ids() == [source, third]
    runs.start(third, record(process=this_process()))
    fourth = opened(runs)
    swept(runs, keep=1)
    assert runs.ids() == [source, third, fourth]


def test_a_run_in_which_a_step_begins_meanwhile_stays(runs: Runs, tmp_path: Path) -> None:
    first, second = opened(runs), opened(runs)
    made(runs, first, tmp_path / "in", "text")
    time.sleep(0.02 if "s3" not in runs.store.url else 1.1)
    garbage = find_garbage(runs, keep=1, spare=0)
    assert garbage.dropped == (first,)
    begun = runs.start(first, record("second"))
    collect(runs, garbage)
    assert runs.ids() == [first, second]
    assert begun in Runs(runs.store).load(first).attempts


@pytest.mark.parametrize(
    ("process", "started", "holds"),
    [
        pytest.param(this_process(), -5, True, id="running here"),
        pytest.param(Process("elsewhere", "", 1, "x"), -5, True, id="may be running elsewhere"),
        pytest.param(Process("elsewhere", "", 1, "x"), -LOST - 60, False, id="begun elsewhere long ago"),
        pytest.param(this_process(), -LOST - 60, True, id="running here for long"),
        pytest.param(replace(this_process(), began="before"), -5, False, id="killed here"),
        pytest.param(Process(), -5, True, id="recorded by an older version"),
    ],
)
def test_what_a_running_step_wrote_stays(
    runs: Runs, tmp_path: Path, process: Process, started: float, *, holds: bool
) -> None:
    run = opened(runs)
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() + started))
    runs.start(run, record(process=process, started=when))
    lost = put(runs, tmp_path / "in", "about to be recorded")
    swept(runs)
    assert runs.store.has(lost) is holds


@everywhere
def test_what_comes_into_use_between_finding_and_removing_stays(runs: Runs, tmp_path: Path) -> None:
    opened(runs)
    lost = put(runs, tmp_path / "in", "used again")
    age(runs, 3.0)
    garbage = find_garbage(runs, spare=1.5)
    assert len(garbage.markers) == 1
    for info in [*garbage.markers, *garbage.objects]:
        runs.store.files.renew(info.key) or runs.store.files.replace(info.key, runs.store.files.read(info.key))
    assert collect(runs, garbage) == []
    assert runs.store.check(lost) == []


@everywhere
def test_a_put_and_a_reuse_make_what_they_rely_on_young_again(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reused = made(runs, opened(runs), tmp_path / "in", "reused")
    put_long_ago(runs, tmp_path, monkeypatch)
    again = put(runs, tmp_path / "in", "text")
    garbage = find_garbage(runs, spare=2.5)
    assert garbage.files == ()
    assert runs.store.check(again) == []
    assert runs.same_work("first", "c" * 64)
    found = runs.store.files.info(f"artifacts/things/{reused.digest}")
    assert found is not None
    assert time.time() - found.modified < 2.5


def put_long_ago(runs: Runs, folder: Path, patch: pytest.MonkeyPatch) -> None:
    opened(runs)
    put(runs, folder / "in", "text")
    age(runs, 3.0)
    patch.setattr("pipeline.runtime.store.artifact_store.YOUNG", 2.0)


def age(runs: Runs, seconds: float) -> None:
    """Let everything have been written a while ago."""
    if not runs.store.url.startswith("file:"):  # the past of a remote place cannot be written
        time.sleep(seconds)
        return
    for info in runs.store.files.find(""):
        os.utime(runs.store.files.location(info.key), (time.time() - seconds,) * 2)


def test_scraps_of_killed_writers_go(runs: Runs, tmp_path: Path) -> None:
    artifact = made(runs, opened(runs), tmp_path / "in", "text")
    files = runs.store.files
    names = ["objects/ab/.0123456789abcdef", "artifacts/things/xyz.damaged", "probes/0123"]
    for name in names:
        files.replace(name, b"half")
    assert swept(runs) == sorted(names)
    assert runs.store.check(artifact) == []


def test_a_collection_that_was_killed_leaves_no_half_run(runs: Runs, tmp_path: Path) -> None:
    first, second = opened(runs), opened(runs)
    made(runs, first, tmp_path / "in", "text")
    garbage = find_garbage(runs, keep=1, spare=0)
    opening = [info.key for info in garbage.records].index(f"runs/{first}/run.json")
    assert all(info.key.startswith("reuse/") for info in garbage.records[:opening])
    for info in garbage.records[: opening + 1]:
        runs.store.files.remove(info.key, float("inf"))
    assert runs.ids() == [second]
    assert f"runs/{first}/attempts/first.001.ended.json" in swept(runs)
    assert list(runs.store.files.find(f"runs/{first}")) == []
    if not runs.store.url.startswith("s3"):
        assert runs.store.files.names("runs") == [second], "no empty folder is left"


def test_nothing_goes_while_it_is_not_known_what_is_referred_to(runs: Runs, tmp_path: Path) -> None:
    run = opened(runs)
    artifact = made(runs, run, tmp_path / "in", "text")
    runs.store.files.create(f"runs/{run}/attempts/second.001.ended.json", b"[]\n")
    with pytest.raises(IntegrityError, match="a record cannot be read"):
        find_garbage(runs, spare=0)
    runs.store.files.remove(f"runs/{run}/attempts/second.001.ended.json", float("inf"))
    runs.store.files.replace(f"artifacts/things/{artifact.digest}", b"{}")
    with pytest.raises(IntegrityError, match="nothing is collected while an index is damaged"):
        find_garbage(Runs(runs.store), spare=0)


def test_what_a_put_counts_on_stays_while_it_has_no_marker_yet(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole put happens between a collection's last look at the markers and its removing of objects."""
    put_long_ago(runs, tmp_path, monkeypatch)
    garbage = find_garbage(runs, spare=2.5)
    assert len(garbage.objects) == 2
    look, made_meanwhile = garbage_collection._live_objects, []

    def late(*arguments: Any) -> set[str]:
        live = look(*arguments)
        made_meanwhile.append(put(Runs(Store(runs.store.url)), tmp_path / "in", "text"))
        return live

    monkeypatch.setattr(garbage_collection, "_live_objects", late)
    collect(runs, garbage)
    assert runs.store.check(made_meanwhile[0]) == []


def test_a_put_looks_once_more_at_what_was_old(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection takes an object just after it was renewed, as it can on an object store."""
    put_long_ago(runs, tmp_path, monkeypatch)
    put_index = Store._put_index

    def late(self: Store, *arguments: Any) -> None:
        for info in list(self.files.find("objects")):
            self.files.remove(info.key, float("inf"))
        put_index(self, *arguments)

    monkeypatch.setattr(Store, "_put_index", late)
    artifact = put(runs, tmp_path / "in", "text")
    monkeypatch.undo()
    assert runs.store.check(artifact) == []
