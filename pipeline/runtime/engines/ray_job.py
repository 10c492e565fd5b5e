"""The command of a job: executes an attempt on a machine of the cluster, in the folder that has the code.

    python -m pipeline.runtime.engines.ray_job STORE RUN STEP ATTEMPT TRY
    python -m pipeline.runtime.engines.ray_job STORE probes/NAME PACKAGE...       write the environment there

The job's own process only starts another, in a session of its own, and waits. When Ray's supervisor dies, Ray kills the
first with its process group, yet not the kernel. The second sees that, or that the head is out of reach, and ends all
processes of the job: nobody follows them any more, and a next try may be at work.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import psutil

from pipeline.errors import PipelineError, StepError
from pipeline.runtime.code import code_digest, environment_with
from pipeline.runtime.engines.attempt import Places, execute_attempt
from pipeline.runtime.engines.environments import refuse_environment
from pipeline.runtime.engines.job_files import ABANDONED, PROBES, JobFiles, read_request
from pipeline.runtime.manifest import FAILED, SUCCEEDED, StepRecord, notebook_key
from pipeline.runtime.notebook import StepNotebook, read_notebook
from pipeline.runtime.process import this_process, work_folder
from pipeline.runtime.store.artifact_store import Store

HEAD = "RAY_ADDRESS"  # the head's address, which Ray tells each job
JOB = "PIPELINE_JOB"  # marks all processes of a job; set for the second process
INTERVAL = 2.0  # seconds between two looks at what has changed, and whether the job is to stop
PATIENCE = 30.0  # seconds that the head may be out of reach; Ray gives up a machine after some ten

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """Run the command, and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    store = Store(arguments[0])
    if arguments[1].startswith(PROBES):
        store.files.replace(arguments[1], json.dumps(environment_with(arguments[2:])).encode())
        return 0
    run, step, attempt, number = arguments[1], arguments[2], int(arguments[3]), int(arguments[4])
    if JOB in os.environ:
        return _work(store, run, step, attempt, number)
    marked = {**os.environ, JOB: f"{run}-{step}-{attempt}-{number}"}
    command = [sys.executable, "-m", "pipeline.runtime.engines.ray_job", *arguments]
    code = subprocess.Popen(command, env=marked, start_new_session=True).wait()
    _end_processes(marked[JOB])
    return code if code >= 0 else 128 - code


def _work(store: Store, run: str, step: str, attempt: int, number: int) -> int:
    # Ray blocks SIGINT in its processes, and the kernel would inherit that
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assignment = read_request(store, run, step, attempt)
    record, stopped = assignment.record, 0
    files = JobFiles(store, run, record)
    found = environment_with(record.environment)
    started = replace(record, process=this_process(), environment=found, job=files.name(number))
    with work_folder(Path(tempfile.gettempdir()), "pipeline-job", step) as scratch:
        threading.Thread(target=_watch, args=(os.getppid(), scratch), daemon=True).start()
        files.start(number, {"job": started.job, "process": asdict(started.process), "environment": found})
        places = Places(Path.cwd(), scratch, scratch / "resume", scratch / "logs")
        mirror = _Mirror(files, number, store, notebook_key(assignment.made_by), places)
        try:
            notebook = _checked(places.root, record, found)
            files.fetch_resume(places.resume)
            mirror.start()
            ended, stopped = execute_attempt(notebook, replace(assignment, record=started), store, places)
        except Exception as error:  # noqa: BLE001, the command that follows the job tells it
            ended = replace(started, status=FAILED, error=str(error), error_kind=type(error).__name__)
        mirror.end(ended)
    files.end(number, ended, stopped)
    return 0


def _checked(root: Path, record: StepRecord, found: dict[str, str]) -> StepNotebook:
    """The notebook, if it, its code and the packages here are those of the record."""
    notebook = read_notebook(root / "steps" / f"{record.step}.ipynb")
    if (notebook.digest, code_digest(notebook.imports)) != (record.notebook_digest, record.code_digest):
        raise StepError(
            "the code that arrived is not that of the record",
            where=root,
            expected=f"code {record.code_digest[:12]}, notebook {record.notebook_digest[:12]}",
            remedy="change no file while a command starts a step, and run the same command again",
        )
    refuse_environment(record.environment, found, socket.gethostname())
    return notebook


class _Mirror:
    """Stores, while the notebook runs, what other machines are to see of it, and stops it when it is asked to."""

    def __init__(self, files: JobFiles, number: int, store: Store, notebook: str, places: Places) -> None:
        self._files, self._number, self._store, self._notebook, self._places = files, number, store, notebook, places
        self._seen: dict[Path, object] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def end(self, record: StepRecord) -> None:
        """Store the last state, unless nobody will need it."""
        self._over.set()
        if self._thread.ident:
            self._thread.join()
        for look in (self._keep_logs, *([] if record.status == SUCCEEDED else [self._keep_resume])):
            with suppress(PipelineError, OSError):
                look()

    def _run(self) -> None:
        is_asked = False
        while not self._over.wait(INTERVAL):
            for look in (self._keep_notebook, self._keep_logs, self._keep_resume):
                try:
                    look()
                except (PipelineError, OSError) as error:  # a file was just being written; or the store is away
                    log.debug("%s: %s", look.__name__, error)
            with suppress(PipelineError, OSError):
                if not is_asked and self._files.is_to_stop(self._number):
                    is_asked = True
                    os.kill(os.getpid(), signal.SIGINT)

    def _keep_notebook(self) -> None:
        for path in (self._places.cache / "work").glob("step.*/*.ipynb"):
            if path.name != "source.ipynb" and self._is_new(path, [path]):
                content = path.read_bytes()
                with suppress(ValueError):  # half of it is written
                    json.loads(content)
                    self._store.files.replace(self._notebook, content)

    def _keep_logs(self) -> None:
        logs = self._places.logs
        for path in logs.rglob("*") if logs.is_dir() else ():
            if path.is_file() and self._is_new(path, [path]):
                self._files.keep_log(path.relative_to(logs).as_posix(), path.read_bytes())

    def _keep_resume(self) -> None:
        resume = self._places.resume
        found = [path for path in resume.rglob("*") if path.is_file()] if resume.is_dir() else []
        if found and self._is_new(resume, found):
            try:
                self._files.keep_resume(resume)
            except (PipelineError, OSError):
                del self._seen[resume]
                raise

    def _is_new(self, name: Path, paths: Sequence[Path]) -> bool:
        """Whether files have changed since the last call."""
        state = {path: (found.st_size, found.st_mtime_ns) for path in paths if (found := path.stat())}
        before, self._seen[name] = self._seen.get(name), state
        return state != before


def _watch(parent: int, scratch: Path) -> None:
    """End the whole job when the process that started this one is gone, or the head is out of reach."""
    host, _, port = os.environ.get(HEAD, "").rpartition(":")
    reached = time.monotonic()
    while os.getppid() == parent and time.monotonic() - reached < PATIENCE:
        time.sleep(1)
        try:
            if host:
                socket.create_connection((host.strip("[]"), int(port)), INTERVAL).close()
            reached = time.monotonic()
        except OSError:
            continue
    log.error("nobody follows this job any more: it ends")
    _end_processes(os.environ[JOB])
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(ABANDONED)


def _end_processes(job: str) -> None:
    """End every process that bears the mark of a job, except this one."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(JOB) == job:
                process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
