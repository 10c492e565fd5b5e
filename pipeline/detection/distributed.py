"""A session on several devices: torchrun starts a process for each, and this one shows how far they are.

    python -m pipeline.detection.distributed job.json

is what each of them runs; mmengine's launcher `pytorch` then joins them.
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
from pipeline.detection.session import Job, Outcome, is_out_of_memory, rank, run

log = logging.getLogger(__name__)

GRACE = 45.0  # seconds that torchrun has to end in; it gives its processes 30
OUT_OF_MEMORY = "OutOfMemory"
TAIL = 100  # lines of their output that an error shows; torchrun's own report takes 40
STOPPED_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def run_on_devices(job: Job, tell: Callable[[int, int, str], None]) -> Outcome:
    """Run a session in as many processes as it wants devices, and wait for it.

    Args:
        job: What to do.
        tell: As for `session.run`.

    Raises:
        StepError: One of the processes failed.
        torch.OutOfMemoryError: One of them ran out of memory.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "job.json"
        job.write(path)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={job.setting.devices}",
        ]
        command += ["--module", __spec__.name if __spec__ else __name__, str(path)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(job.setting.devices),
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
        said: deque[str] = deque(maxlen=TAIL)
        reader = threading.Thread(target=_drain, args=(process, said), daemon=True)
        reader.start()
        try:
            for line in process.stdout or ():
                _told(line, tell)
            process.wait()
        finally:
            _end(process)
        reader.join(GRACE)
        return _outcome(Path(place), process.returncode, said)


def _outcome(place: Path, code: int, said: deque[str]) -> Outcome:
    told = sorted(place.glob("error.*.json"))
    if told:
        found = json.loads(told[0].read_text(encoding="utf-8"))
        if found["kind"] == OUT_OF_MEMORY:
            raise torch.OutOfMemoryError(found["message"])
        error = getattr(errors, found["kind"])(found["message"])
        error.problem = found["message"].partition("\n")[0]  # the details are in the message already
        raise error
    if code or not (place / "outcome.json").is_file():
        raise errors.StepError(
            f"a process of the training ended with exit code {code}",
            where="\n".join(["torchrun, whose last words were:", *said]),
            remedy="train on one device (devices=1) to see whether it is the training or the devices",
        )
    return Outcome.from_json((place / "outcome.json").read_text(encoding="utf-8"))


def main() -> None:
    """One of the processes."""
    path = Path(sys.argv[1])
    job = Job.read(path)
    if not torch.cuda.is_available():
        # mmengine's launcher would choose a GPU; it leaves a group alone that is there already
        torch.distributed.init_process_group("gloo")
    out = sys.stdout  # a session puts something else in its place
    if rank() == 0:
        own = logging.getLogger("pipeline")
        own.setLevel(logging.INFO)
        own.addHandler(_Relay(out))
    try:
        outcome = run(job, partial(_print, out))
        if rank() == 0:
            (path.parent / "outcome.json").write_text(outcome.to_json(), encoding="utf-8")
    except (errors.PipelineError, RuntimeError) as error:
        if not isinstance(error, errors.PipelineError) and not is_out_of_memory(error):
            raise
        kind = OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__
        told = json.dumps({"kind": kind, "message": str(error)})
        (path.parent / f"error.{rank()}.json").write_text(told, encoding="utf-8")
        sys.exit(1)
    torch.distributed.destroy_process_group()


class _Relay(logging.Handler):
    """Passes on, as lines of JSON, what the first process logs: the others would say the same."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self.out = out

    def emit(self, record: logging.LogRecord) -> None:
        self.out.write(json.dumps({"level": record.levelno, "log": record.getMessage()}) + "\n")
        self.out.flush()


def _print(out: TextIO, step: int, steps: int, line: str) -> None:
    out.write(json.dumps({"step": step, "steps": steps, "line": line}) + "\n")
    out.flush()


def _told(line: str, tell: Callable[[int, int, str], None]) -> None:
    try:
        values = json.loads(line)
        if "log" in values:
            log.log(values["level"], "%s", values["log"])
            return
        tell(values["step"], values["steps"], values["line"])
    except (ValueError, TypeError, KeyError):  # a library's own print
        log.debug("%s", line.rstrip())


def _drain(process: subprocess.Popen[str], said: deque[str]) -> None:
    for line in process.stderr or ():
        said.append(line.rstrip())


def _end(process: subprocess.Popen[str]) -> None:
    """Make sure that nothing runs on: torchrun passes the signal to its processes."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _environment(devices: int) -> dict[str, str]:
    """Of this process, with the cores shared out where the CPU does the work; torchrun would give each process one."""
    return {"OMP_NUM_THREADS": str(max(1, cores() // devices)), **os.environ}


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end_with_parent() -> None:
    """Have torchrun told to end when this process is killed, which could not tell it itself."""
    ctypes.CDLL(None).prctl(STOPPED_WITH_PARENT, signal.SIGTERM)


if __name__ == "__main__":
    main()
