"""The command of a job, run as Ray runs it: a process of its own in the folder that has the code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from counting import make_counter
from records import attempt

from pipeline.runtime.code import code_digest, environment
from pipeline.runtime.engines.engine import Assignment
from pipeline.runtime.engines.job_files import PROBES, JobFiles
from pipeline.runtime.executed_notebook import code_cells
from pipeline.runtime.manifest import RUNNING, new_run_id
from pipeline.runtime.notebook import read_notebook
from pipeline.runtime.process import NOBODY
from pipeline.runtime.store.artifact_store import Store

ROOT = Path(__file__).parents[3]


class Job:
    """A job of an attempt that counts seconds."""

    def __init__(self, toy: Any, folder: Path, seconds: int, **changes: Any) -> None:
        self.toy, self.store, self.folder = toy, Store(str(folder / "store")), folder
        self.run = new_run_id()  # of its own: a job that ends takes all processes of that name with it
        step = read_notebook(toy.root / "steps" / "count.ipynb")
        digests = {"notebook_digest": step.digest, "code_digest": code_digest(step.imports)}
        begun = attempt("count", parameters={"seconds": seconds}, status=RUNNING, ended="", process=NOBODY, **digests)
        self.record = replace(begun, environment=environment(), **changes)
        self.files = JobFiles(self.store, self.run, self.record)
        self.files.ask(Assignment(self.run, self.record, "dev", "", "", "", stream=False))
        (folder / "tmp").mkdir()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it; Ray blocks SIGINT in the processes that it starts."""
        command = [sys.executable, "-m", "pipeline.runtime.engines.ray_job", self.store.url]
        return subprocess.Popen(
            [*command, *(arguments or (self.run, "count", "1", "1"))],
            cwd=self.toy.root,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder / "tmp")},
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}),
            start_new_session=True,
        )

    def at_work(self) -> list[int]:
        """Its processes."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.folder / "tmp") and process.status() != "zombie":
                    found.append(process.pid)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def make_job(tmp_path: Path, new_toy: Callable[..., Any]) -> Callable[..., Job]:
    """Makes a job in a project of its own."""
    toy = make_counter(new_toy, tmp_path / "code", "name: counter\n")
    return lambda seconds, **changes: Job(toy, tmp_path, seconds, **changes)


def test_a_job_says_where_it_runs_and_how_it_ended(make_job: Callable[..., Job]) -> None:
    job = make_job(0)
    program = job.start()
    assert program.wait(60) == 0
    place, ended = job.files.started(1), job.files.ended(1)
    assert place
    assert ended
    record, stopped = ended
    assert (record.status, record.error, stopped, record.metrics) == ("succeeded", "", 0, {"begun": 0})
    assert (record.job, record.process.pid) == (f"{job.run}-count-001-1", place["process"]["pid"])
    assert record.process.pid not in (program.pid, 0)
    assert "tidied up" in job.store.files.read(f"runs/{job.run}/notebooks/count.001.ipynb").decode()
    assert (job.store.has(record.outputs["counted"]), bool(record.report)) == (True, True)
    assert list((job.folder / "tmp").iterdir()) == [], "it works in scratch"


def test_other_code_and_other_packages_are_refused(make_job: Callable[..., Job]) -> None:
    job = make_job(0, code_digest="0" * 64)
    job.start().wait(60)
    ended = job.files.ended(1)
    assert ended
    assert (ended[0].status, ended[0].error_kind) == ("failed", "StepError")
    assert "the code that arrived is not that of the record" in ended[0].error


def test_a_machine_says_what_it_has(make_job: Callable[..., Job]) -> None:
    job = make_job(0)
    assert job.start(f"{PROBES}x", "numpy", "no-such-package").wait(60) == 0
    found = json.loads(job.store.files.read(f"{PROBES}x"))
    assert (found["numpy"], found["no-such-package"]) == (environment()["numpy"], "not installed")


def test_a_job_that_is_to_stop_interrupts_its_kernel_and_keeps_what_it_had(make_job: Callable[..., Job]) -> None:
    job = make_job(120)
    program = job.start()
    job.toy.wait_for(lambda: any(job.store.files.find("resume")))
    kept = json.loads(job.store.files.read(f"runs/{job.run}/notebooks/count.001.ipynb"))
    assert "running" in [cell.state for cell in code_cells(kept)], "the notebook is kept while it runs"
    job.files.stop(1)
    assert program.wait(30) == 0
    ended = job.files.ended(1)
    assert ended
    assert (ended[0].status, ended[1]) == ("interrupted", signal.SIGINT)
    job.files.fetch_resume(job.folder / "next")
    job.files.fetch_logs(job.folder / "logs")
    counted = (job.folder / "logs" / "seconds.txt").read_text().split()
    assert (job.folder / "next" / "count").read_text() == counted[-1]


def test_a_job_ends_with_its_supervisor(make_job: Callable[..., Job]) -> None:
    job = make_job(120)
    program = job.start()
    job.toy.wait_for(lambda: any(job.store.files.find("resume")))
    assert len(job.at_work()) >= 3, "the one that Ray starts, the one that works, the kernel"
    os.killpg(program.pid, signal.SIGKILL)  # as Ray does once its supervisor is gone
    program.wait()
    job.toy.wait_for(lambda: not job.at_work(), 10)
    assert (job.files.ended(1), list((job.folder / "tmp").glob("pipeline-job.*"))) == (None, [])
