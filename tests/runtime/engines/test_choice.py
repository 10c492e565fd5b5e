"""Who is at work on an attempt, as far as that can be known without a cluster."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from folders import fill
from records import attempt, beginning, opened

from pipeline.runtime.engines.choice import are_at_work, command_of, is_at_work, place_of
from pipeline.runtime.engines.job_files import JobFiles
from pipeline.runtime.engines.ray_cluster import ADDRESS, RayCluster, UnreachableError
from pipeline.runtime.garbage_collection import ABANDONED, LOST, find_garbage
from pipeline.runtime.manifest import RUNNING
from pipeline.runtime.process import NOBODY, this_process
from pipeline.runtime.runs import Runs
from pipeline.runtime.store.artifact_store import Store

RUN = "20260101T000001000Z-0123456789"
GONE = replace(this_process(), began="1")


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ADDRESS, raising=False)


@pytest.mark.parametrize(
    ("engine", "watcher", "expected"),
    [
        pytest.param("ray", this_process(), True, id="a command follows the job"),
        pytest.param("ray", GONE, None, id="the job may go on without its command"),
        pytest.param("ray", NOBODY, None, id="nobody has followed it"),
        pytest.param("", GONE, False, id="a kernel ends with its command"),
    ],
)
def test_a_job_may_outlive_its_command(tmp_path: Path, engine: str, watcher: Any, expected: bool | None) -> None:
    store, record = Store(str(tmp_path)), attempt("train", status=RUNNING, engine=engine, process=GONE)
    JobFiles(store, RUN, record).watch(watcher)
    assert is_at_work(store, RUN, record) is expected
    assert command_of(store, RUN, record) == (watcher if engine else GONE)
    assert record.is_killed is (not engine)


def test_a_cluster_that_does_not_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = Store(str(tmp_path)), list[str]()

    def no_answer(_: RayCluster, name: str) -> None:
        asked.append(name)
        raise UnreachableError("the cluster does not answer")

    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setattr(RayCluster, "job", no_answer)
    attempts = [(RUN, attempt(step, status=RUNNING, engine="ray")) for step in ("train", "pack", "judge")]
    JobFiles(store, *attempts[2]).watch(this_process())
    assert are_at_work(store, attempts) == [None, None, True]
    assert len(asked) == 1
    assert are_at_work(store, []) == []


def test_an_attempt_tells_its_machine_and_its_job(tmp_path: Path) -> None:
    store, record = Store(str(tmp_path)), attempt("train", status=RUNNING, engine="ray")
    files = JobFiles(store, RUN, record)
    assert place_of(store, RUN, record) == f"waits for a machine, job {RUN}-train-001-1"
    for number, host in enumerate("ab", 1):
        files.start(number, {"process": {"host": f"{host} 0123 pid:[1]"}})
    assert place_of(store, RUN, record) == f"on b, job {RUN}-train-001-2"
    here = attempt("train", status=RUNNING, process=this_process())
    assert place_of(store, RUN, here) == ""


def test_what_a_lost_job_left_is_garbage_once_nobody_has_continued_it_for_long(tmp_path: Path) -> None:
    runs = Runs(Store(str(tmp_path / "store")))
    for number, age in enumerate((ABANDONED * 1.1, ABANDONED * 0.9)):
        files = JobFiles(runs.store, RUN, attempt("train", fingerprint=str(number) * 64))
        files.keep_resume(fill(tmp_path / "resume", {"count": b"1"}))
        for path in (tmp_path / "store/resume").glob(f"train.{number}*/*"):
            os.utime(path, (time.time() - age,) * 2)
    found = {info.key.split("/")[1] for info in find_garbage(runs).scraps}
    assert found == {f"train.{'0' * 32}"}


def test_a_job_that_cannot_be_asked_for_holds_its_run_for_a_while(tmp_path: Path) -> None:
    runs = Runs(Store(str(tmp_path)))
    run = opened(runs)
    for age, is_held in ((LOST / 2, True), (LOST * 2, False)):
        began = datetime.fromtimestamp(time.time() - age, UTC).isoformat()
        runs.start(run, replace(beginning(f"train_{is_held}"), started=began, engine="ray", process=GONE))
    before = find_garbage(runs, keep=1, spare=0).before
    assert time.time() - LOST < before < time.time() - LOST / 2, "by the younger one alone"
