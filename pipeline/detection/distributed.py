"""A session on several devices: torchrun starts a process for each, and this process shows their progress.

Each process runs `python -m pipeline.detection.distributed job.json`; mmengine's launcher `pytorch` joins them.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TextIO

import torch

from pipeline import errors
from pipeline.detection.session import SessionResult, TrainingJob, is_out_of_memory, rank, run

log = logging.getLogger(__name__)

GRACE = 45.0  # seconds until torchrun is killed; it gives its processes 30 to end
OUT_OF_MEMORY = "OutOfMemory"
TAIL = 100  # lines of the processes' output in an error; torchrun's own report takes 40
STOPPED_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def run_on_devices(job: TrainingJob, report: Callable[[int, int, str], None]) -> SessionResult:
    """Run a session with a process per device, and wait for it.

    Args:
        job: What to do.
        report: As for `session.run`.

    Raises:
        StepError: A process failed; where it raised a `PipelineError`, that error.
        torch.OutOfMemoryError: A process ran out of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "job.json"
        job.write(path)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={job.execution.devices}",
        ]
        command += ["--module", __spec__.name if __spec__ else __name__, str(path)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(job.execution.devices),
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        tail: deque[str] = deque(maxlen=TAIL)
        reader = threading.Thread(target=_drain, args=(process, tail), daemon=True)
        reader.start()
        try:
            for line in process.stdout or ():
                _receive(line, report)
            process.wait()
        finally:
            _end(process)
        reader.join(GRACE)
        return _result(Path(folder), process.returncode, tail)


def _result(folder: Path, code: int, tail: deque[str]) -> SessionResult:
    reports = sorted(folder.glob("error.*.json"))
    if reports:
        found = json.loads(reports[0].read_text(encoding="utf-8"))
        if found["kind"] == OUT_OF_MEMORY:
            raise torch.OutOfMemoryError(found["message"])
        raise getattr(errors, found["kind"])(found["message"])
    if code or not (folder / "result.json").is_file():
        raise errors.StepError(
            f"a process of the training ended with exit code {code}",
            where="\n".join(["torchrun, whose last lines were:", *tail]),
            remedy="train with devices=1 to see whether the training or the devices cause it",
        )
    return SessionResult.from_json((folder / "result.json").read_text(encoding="utf-8"))


def main() -> None:
    """Run one of the processes."""
    path = Path(sys.argv[1])
    job = TrainingJob.read(path)
    if not torch.cuda.is_available():
        # mmengine's launcher would choose a GPU; it does not change an existing group
        torch.distributed.init_process_group("gloo")
    out = sys.stdout  # the session redirects it
    if rank() == 0:
        own = logging.getLogger("pipeline")
        own.setLevel(logging.INFO)
        own.addHandler(_JsonLogHandler(out))
    try:
        result = run(job, partial(_print, out))
        if rank() == 0:
            (path.parent / "result.json").write_text(result.to_json(), encoding="utf-8")
    except (errors.PipelineError, RuntimeError) as error:
        if not isinstance(error, errors.PipelineError) and not is_out_of_memory(error):
            raise
        kind = OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__
        content = json.dumps({"kind": kind, "message": str(error)})
        (path.parent / f"error.{rank()}.json").write_text(content, encoding="utf-8")
        sys.exit(1)
    torch.distributed.destroy_process_group()


class _JsonLogHandler(logging.Handler):
    """Sends the log of the first process as lines of JSON; the others log the same."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.out = out

    def emit(self, record: logging.LogRecord) -> None:
        self.out.write(json.dumps({"level": record.levelno, "log": record.getMessage()}) + "\n")
        self.out.flush()


def _print(out: TextIO, step: int, steps: int, line: str) -> None:
    out.write(json.dumps({"step": step, "steps": steps, "line": line}) + "\n")
    out.flush()


def _receive(line: str, report: Callable[[int, int, str], None]) -> None:
    try:
        values = json.loads(line)
        if "log" in values:
            log.log(values["level"], "%s", values["log"])
            return
        report(values["step"], values["steps"], values["line"])
    except (ValueError, TypeError, KeyError):  # a library's own print
        log.debug("%s", line.rstrip())


def _drain(process: subprocess.Popen[str], tail: deque[str]) -> None:
    for line in process.stderr or ():
        tail.append(line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    """End torchrun, which passes the signal on to its processes."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment(devices: int) -> dict[str, str]:
    """This process's environment, with the cores divided among the processes; torchrun would give each one core."""
    return {"OMP_NUM_THREADS": str(max(1, cores() // devices)), **os.environ}


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """Let the kernel end torchrun when this process is killed."""
    ctypes.CDLL(None).prctl(STOPPED_WITH_PARENT, signal.SIGTERM)


if __name__ == "__main__":
    main()
