"""The packed service, started as its users start it: `bentoml serve` in its own process, on loopback."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests

from pipeline.errors import MissingError, StepError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_PORT_TRIES = 5
_GRACE_SECONDS = 15.0
_TAIL_LINES = 25
_STARTUP_FAILED = "Application startup failed"  # BentoML would start the worker again and again
_PORT_TAKEN = ("Address already in use", "Could not bind")

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
    """A service that answers requests.

    Attributes:
        url: Its address, without a trailing slash.
        pid: The process id of `bentoml serve`, which leads the server's process group.
        log_path: The file with its output.
    """

    url: str
    pid: int
    log_path: Path


@contextmanager
def serve(bento: Path, *, log_path: Path | None = None, timeout: float = 120.0) -> Iterator[RunningService]:
    """Serve a built Bento while the `with` block runs, and stop all its processes however the block ends.

    Args:
        bento: The built Bento: the folder with its `bento.yaml`.
        log_path: File for the server's output; without it the output is removed with the server.
        timeout: Seconds until `/readyz` must have answered.

    Yields:
        The running server, ready for requests.

    Raises:
        MissingError: There is no such folder.
        StepError: The server ended or was not ready in time; the message holds the last lines of its log.
    """
    folder = bento.resolve()
    if not folder.is_dir():
        raise MissingError("there is no Bento to serve", where=folder, expected="the folder of a built Bento")
    with tempfile.TemporaryDirectory(prefix="bento-server-", ignore_cleanup_errors=True) as home:
        output = log_path or Path(home) / "server.log"
        output.parent.mkdir(parents=True, exist_ok=True)
        with _running(folder, output, Path(home), timeout) as service:
            yield service


@contextmanager
def _running(folder: Path, output: Path, home: Path, timeout: float) -> Iterator[RunningService]:
    for _ in range(_PORT_TRIES):
        port = _free_port()
        started = time.monotonic()
        process = _start(folder, port, output, home)
        try:
            if not _is_ready(process, port, output, timeout):
                continue
            url = f"http://{HOST}:{port}"
            log.info("serving %s at %s after %.1f s", folder.name, url, time.monotonic() - started)
            yield RunningService(url, process.pid, output)
            return
        finally:
            _stop(process)
    raise _failure(f"other processes took {_PORT_TRIES} ports, one after the other", output)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, port: int, output: Path, home: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENTOML_")}
    environment |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    # the Bento is an artifact: nothing may be written into its folder
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", _LAUNCHER, "serve", str(folder), "--host", HOST, "--port", str(port)]
    with output.open("wb") as stream:
        return subprocess.Popen(
            command,
            cwd=home,  # a `service.py` or `bentoml.py` in the working directory would hide the Bento's
            env=environment,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _is_ready(process: subprocess.Popen[bytes], port: int, output: Path, timeout: float) -> bool:
    """Wait for the server; False if another process took the port before the server did."""
    deadline = time.monotonic() + timeout
    with requests.Session() as session:
        session.trust_env = False  # a proxy from the environment cannot reach this machine's loopback
        while not (_listens(process, port) and _answers(session, port)):
            code = process.poll()
            if code is not None:
                if any(sign in _tail(output, 200) for sign in _PORT_TAKEN):
                    return False
                raise _failure(f"the server ended with exit code {code} before it was ready", output)
            if _STARTUP_FAILED in _tail(output, 200):
                raise _failure("the service does not start", output)
            if time.monotonic() > deadline:
                raise _failure(f"the server was not ready within {timeout:g} s", output)
            time.sleep(0.1)
    return True


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether this server has the port, and not another that would answer in its place."""
    try:
        sockets = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)


def _answers(session: requests.Session, port: int) -> bool:
    try:
        return bool(session.get(f"http://{HOST}:{port}/readyz", timeout=5).status_code == requests.codes.ok)
    except requests.RequestException:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's group, and its workers: BentoML gives each of them a session of its own."""
    workers: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        workers = psutil.Process(process.pid).children(recursive=True)
    _signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        log.warning("the server did not stop within %g s and is killed", _GRACE_SECONDS)
    finally:  # after a second Ctrl-C too
        _signal_group(process.pid, signal.SIGKILL)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()
    psutil.wait_procs(workers, timeout=5)


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended
        os.killpg(leader, number)


def _tail(output: Path, lines: int) -> str:
    return "\n".join(output.read_text("utf-8", errors="replace").splitlines()[-lines:])


def _failure(problem: str, output: Path) -> StepError:
    return StepError(
        f"{problem}; its last lines:\n{_tail(output, _TAIL_LINES)}",
        remedy="run `bentoml serve` on the Bento's folder to see it fail, then pack the model again",
    )
