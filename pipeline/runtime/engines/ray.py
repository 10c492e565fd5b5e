"""Executes each attempt as a job of a Ray cluster, and follows it.

A job's status is asked for, never concluded from its output: where a network is cut, output just stops. A job whose
machine died has no result; the next try goes on from what the step had left to resume from. A command that is killed
leaves its job, and the next command follows it in its place.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import replace

from pipeline.errors import PipelineError, StepError, StoreError, UsageError
from pipeline.files import write_atomically
from pipeline.runtime.code import environment
from pipeline.runtime.engines.code_archive import code_archive
from pipeline.runtime.engines.engine import Assignment
from pipeline.runtime.engines.environments import refuse_environment
from pipeline.runtime.engines.job_files import PROBES, JobFiles
from pipeline.runtime.engines.ray_cluster import RayCluster, RayJob, UnreachableError
from pipeline.runtime.manifest import INTERRUPTED, RUNNING, RunManifest, StepRecord
from pipeline.runtime.notebook import StepNotebook
from pipeline.runtime.process import is_alive, this_process
from pipeline.runtime.project import Project
from pipeline.runtime.store.artifact_store import Store

NAME = "ray"
POLLING = 1.0  # seconds
LOGS = 10.0  # seconds between two looks at `step.logs`
WAITING = 10.0  # seconds that a job may wait for a machine before that is told
MOST_LOST = 5  # tries: a step that brings down its machine would go on for ever
STOPPING = 40.0  # seconds that a step has to stop, keep its notebook and say so
PROBING = 120.0  # seconds in which a machine says what it has

RAYS_OWN = re.compile(r"^Running entrypoint for job .*\n?", re.MULTILINE)  # a line of each job's output

log = logging.getLogger(__name__)


class RayEngine:
    """A Ray cluster; see `engine.Engine`."""

    name = NAME

    def __init__(self, project: Project) -> None:
        self._project = project
        self._store = project.runs.store
        self._cluster = RayCluster()
        self._fetched = 0.0  # when `step.logs` were, on the clock of `time.monotonic`
        self._archive = b""  # the code, as it was when the step began

    def check(self, steps: Iterable[StepNotebook]) -> None:
        """Refuse steps that the cluster cannot run, before anything is queued."""
        session, machines = self._cluster.session(), self._cluster.machines().values()
        for step in steps:
            asked = self._project.config.machine(step.name)
            if asked.nodes > 1 and "step.machines" not in step.content:
                raise UsageError(
                    f"{step.name} asks for {asked.nodes} machines, and its notebook uses one",
                    where=step.path,
                    expected="a notebook that uses step.machines",
                    remedy=f"remove 'nodes' from machines: {step.name}",
                )
            fitting = sum(asked.fits(has) for has in machines)
            if fitting < asked.nodes:
                than = f"the cluster has, with {fitting} of that size" if fitting else "any machine of the cluster has"
                raise UsageError(
                    f"{step.name} asks for more than {than}: {asked}",
                    where=self._cluster.address,
                    expected=f"at most one of: {'; '.join(sorted({str(has) for has in machines}))}",
                    remedy=f"ask for less in machines: {step.name}, or start a larger machine",
                )
        self._probe(session)

    def left_behind(self, manifest: RunManifest, planned: StepRecord) -> StepRecord | None:
        """The attempt at this very work that a killed command left to its job."""
        for record in reversed(manifest.of(planned.step)):
            is_same = record.engine == NAME and record.status == RUNNING and record.fingerprint == planned.fingerprint
            if is_same and not is_alive(JobFiles(self._store, manifest.run, record).watcher()):
                return record
        return None

    def execute(self, step: StepNotebook, assignment: Assignment, *, fresh: bool) -> tuple[StepRecord, int]:
        """Execute an attempt on the cluster, or follow the job that is at it already."""
        assignment = replace(assignment, machine=self._project.config.machine(step.name))
        files = JobFiles(self._store, assignment.run, assignment.record)
        files.watch(this_process())
        files.ask(assignment)
        if fresh:
            files.forget_resume()
        number, lost = 1, 0
        try:
            while True:
                self._submit(files, number, assignment)
                job, ended = self._follow(files, number, assignment)
                if ended:
                    return ended
                if job is None or not job.waited_in_vain:
                    lost += 1
                    log.warning("the machine of job %s is gone; the step goes on elsewhere", files.name(number))
                if lost == MOST_LOST:
                    raise StepError(
                        f"{step.name} lost its machine {lost} times",
                        where=files.name(number),
                        expected="a machine that outlives the step",
                        remedy=f"see what ends it, such as a lack of memory: ray job logs {files.name(number)}",
                    )
                number += 1
        except KeyboardInterrupt as stop:
            number_of_signal = int(stop.args[0] if stop.args else signal.SIGINT)
            return self._stop(files, number, assignment.record), number_of_signal

    def forget(self, record: StepRecord) -> None:
        """Remove from the store what the next attempt at the same work would resume from."""
        JobFiles(self._store, "", record).forget_resume()

    def _probe(self, session: str) -> None:
        """Let the head say which packages it has, once in the cluster's life; it needs the store for that."""
        expected, store = environment(), self._store
        basis = json.dumps([session, expected, store.url]).encode()
        note, digest = self._project.root / ".cache" / "cluster", hashlib.sha256(basis).hexdigest()
        if note.is_file() and note.read_text(encoding="utf-8") == digest:
            return
        name = f"probe-{secrets.token_hex(8)}"
        key = f"{PROBES}{name}"
        code = self._cluster.upload(code_archive(self._project.root))
        self._cluster.submit(name, _command(store.url, key, *expected), code, None)
        end = time.monotonic() + PROBING
        while not ((job := self._cluster.job(name)) and job.is_over) and time.monotonic() < end:
            time.sleep(POLLING / 2)
        try:
            found = json.loads(store.files.read(key))
        except FileNotFoundError as error:
            raise self._failed(name, job, "the cluster's machines cannot run a step") from error
        store.files.remove(key, float("inf"))
        refuse_environment(expected, found, self._cluster.address)
        note.parent.mkdir(exist_ok=True)
        write_atomically(note, digest)

    def _submit(self, files: JobFiles, number: int, assignment: Assignment) -> None:
        """Submit a try, unless a killed command has done so."""
        if files.started(number) or self._cluster.job(files.name(number)):
            return
        record = assignment.record
        command = _command(self._store.url, assignment.run, record.step, str(record.attempt), str(number))
        self._archive = self._archive or code_archive(self._project.root)
        code = self._cluster.upload(self._archive)
        self._cluster.submit(files.name(number), command, code, self._project.config.machine(record.step))

    def _follow(
        self, files: JobFiles, number: int, assignment: Assignment
    ) -> tuple[RayJob | None, tuple[StepRecord, int] | None]:
        """Follow a job to its end; the job as it is then, if the cluster knows it, and its result, if it has one."""
        name, step, began = files.name(number), assignment.record.step, time.monotonic()
        shown, place, is_told, is_away = 0, None, False, False
        while True:
            time.sleep(POLLING)
            try:
                job = self._cluster.job(name)
                shown += self._show(name, shown)
                if not place and (place := files.started(number)):
                    log.info("%s runs on %s: job %s", step, _host(place), name)
                ended = files.ended(number) if job is None or job.is_over else None
                self._fetch_logs(files, assignment, at_once=job is None or job.is_over)
            except (UnreachableError, StoreError) as error:  # the job goes on meanwhile
                if not is_away:
                    log.warning("%s; it is asked again until it does", error.problem)
                is_away = True
                continue
            is_away = False
            if job is None or job.is_over:
                is_lost = job is None or job.waited_in_vain or job.is_lost(began=bool(files.started(number)))
                if not ended and not is_lost:
                    raise self._failed(name, job, f"the job of {step} ended without a result")
                return job, ended
            if job.status == "PENDING" and not is_told and time.monotonic() - began > WAITING:
                log.info("%s waits for a machine with %s: job %s", step, self._project.config.machine(step), name)
                is_told = True

    def _fetch_logs(self, files: JobFiles, assignment: Assignment, *, at_once: bool) -> None:
        """Bring `step.logs` up to date on this machine, now and then."""
        if at_once or time.monotonic() - self._fetched > LOGS:
            files.fetch_logs(self._project.root / ".cache" / "logs" / assignment.made_by)
            self._fetched = time.monotonic()

    def _show(self, name: str, shown: int) -> int:
        """Print what a job has printed since, without Ray's own line."""
        text = self._cluster.log(name)
        sys.stderr.write(RAYS_OWN.sub("", text[shown:]))
        sys.stderr.flush()
        return len(text[shown:])

    def _stop(self, files: JobFiles, number: int, record: StepRecord) -> StepRecord:
        """Let a job interrupt its kernel and say how it ended; one that does not is stopped from outside."""
        name = files.name(number)
        log.warning("stopping job %s; Ctrl-C again leaves at once", name)
        try:
            if files.started(number):
                files.stop(number)
                end = time.monotonic() + STOPPING
                while time.monotonic() < end and (job := self._cluster.job(name)) and not job.is_over:
                    time.sleep(POLLING / 2)
                if ended := files.ended(number):
                    return ended[0]
        finally:
            self._cluster.stop(name)
        return replace(record, status=INTERRUPTED, error="stopped", error_kind=KeyboardInterrupt.__name__)

    def _failed(self, name: str, job: RayJob | None, problem: str) -> StepError:
        said = [line for line in self._cluster.log(name).splitlines() if line.strip()][-3:]
        message = job.message.strip().partition("\n")[0] if job else "the cluster does not know it"
        return StepError(
            problem,
            where=f"job {name}",
            expected="Python, the packages, the store and its credentials on each machine of the cluster",
            remedy="; ".join([f"see docs/cluster.md. {message}", *said])[:1500],
        )


def are_at_work(store: Store, attempts: Iterable[tuple[str, StepRecord]]) -> list[bool | None]:
    """Whether a command or a job is at work on each attempt without an end; None if that is unknown.

    A cluster that does not answer is asked once.
    """
    cluster, is_silent, found = None, False, list[bool | None]()
    for run, record in attempts:
        files, is_going_on = JobFiles(store, run, record), False
        is_watched = is_alive(files.watcher())
        if not is_watched and not is_silent:
            try:
                cluster = cluster or RayCluster(attempts=1)
                is_going_on = _is_going_on(cluster, files)
            except PipelineError:  # no address, no token, or it does not answer
                is_silent = True
        found.append(True if is_watched or is_going_on else None if is_silent else is_watched)
    return found


def _is_going_on(cluster: RayCluster, files: JobFiles) -> bool:
    """Whether a job of an attempt has not ended."""
    number = 1
    while job := cluster.job(files.name(number)):
        if not job.is_over:
            return True
        number += 1
    return False


def place_of(store: Store, run: str, record: StepRecord) -> str:
    """The machine and the job of an attempt without an end."""
    files = JobFiles(store, run, record)
    number = max(files.tries(), 1)
    place = files.started(number)
    return f"{f'on {_host(place)}' if place else 'waits for a machine'}, job {files.name(number)}"


def _command(*arguments: str) -> str:
    return shlex.join(["python", "-m", "pipeline.runtime.engines.ray_job", *arguments])


def _host(place: dict[str, dict[str, str]]) -> str:
    return place["process"]["host"].partition(" ")[0]
