"""The packed service, started as its users start it: `bentoml serve` in its own process, on loopback."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil
import requests

from pipeline.errors import MissingError, StepError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_GRACE_SECONDS = 15.0
_TAIL_LINES = 25
_STARTUP_FAILED = "Application startup failed"  # BentoML would start the worker again and again

# `python -m bentoml` that also stops when its standard input ends. This process holds the other end, so the server does
# not outlive a kernel or a test run that is killed.
_LAUNCHER = """
import os, runpy, signal, sys, threading

def stop_with_parent():
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=stop_with_parent, daemon=True).start()
runpy.run_module("bentoml", run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class RunningService:
    """A service that answers: its address, the process id of `bentoml serve`, and the file with its output."""

    url: str
    pid: int
    log_path: Path


@contextmanager
def serve(
    bento: Path,
    *,
    log_path: Path | None = None,
    timeout: float = 120.0,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[RunningService]:
    """Serve a built Bento while the `with` block runs, and stop all its processes however the block ends.

    `log_path` is for the server's output, which is else removed with it. Within `timeout` seconds it must be ready.
    `environment` has the settings of the service: those of this process do not reach it, so that an evaluation is the
    same whatever is set.

    Raises:
        MissingError: There is no such folder.
        StepError: The server ended or was not ready in time; the message holds the last lines of its log.
    """
    folder = bento.resolve()
    if not folder.is_dir():
        raise MissingError("there is no Bento to serve", where=folder, expected="the folder of a built Bento")
    with tempfile.TemporaryDirectory(prefix="bento-server-", ignore_cleanup_errors=True) as home:
        output = log_path or Path(home, "server.log")
        own = {name: value for name, value in os.environ.items() if not name.startswith(("BENTOML_", "DETECTOR_"))}
        own |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": home, "PYTHONUNBUFFERED": "1"}
        own["PYTHONDONTWRITEBYTECODE"] = "1"  # the Bento is an artifact: nothing may be written into its folder
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, "serve", str(folder), "--host", HOST, "--port", "0"],
                cwd=home,  # a `service.py` or `bentoml.py` in the working directory would hide the Bento's
                env={**own, **environment},
                stdin=subprocess.PIPE,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            url = _wait_until_ready(process, output, timeout)
            log.info("serving %s at %s", folder.name, url)
            yield RunningService(url, process.pid, output)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    with requests.Session() as session:
        session.trust_env = False  # a proxy from the environment cannot reach this machine's loopback
        while True:
            for port in _ports(process):
                with contextlib.suppress(requests.RequestException):
                    if session.get(f"http://{HOST}:{port}/readyz", timeout=5).ok:
                        return f"http://{HOST}:{port}"
            if process.poll() is not None:
                raise _failure(f"the server ended with exit code {process.returncode} before it was ready", output)
            if _STARTUP_FAILED in output.read_text("utf-8", errors="replace"):
                raise _failure("the service does not start", output)
            if time.monotonic() > deadline:
                raise _failure(f"the server was not ready within {timeout:g} s", output)
            time.sleep(0.1)


def _workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _ports(process: subprocess.Popen[bytes]) -> list[int]:
    """Where the worker listens; its parent has other ports too. The system chose them, so nobody else has them."""
    try:
        sockets = [each for worker in _workers(process) for each in worker.net_connections("tcp")]
    except psutil.Error:
        return []
    return [each.laddr.port for each in sockets if each.status == psutil.CONN_LISTEN]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers; BentoML gives each of these a session of its own."""
    workers = _workers(process)
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("the server did not stop within %g s and is killed", _GRACE_SECONDS)
    finally:  # after a second Ctrl-C too
        process.kill()
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        process.communicate()
        psutil.wait_procs(workers, timeout=5)


def _failure(problem: str, output: Path) -> StepError:
    lines = output.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return StepError(
        "\n".join([f"{problem}; its last lines:", *lines]),
        remedy="run `bentoml serve` on the Bento's folder to see it fail, then pack the model again",
    )
