"""The packed service, started as its users start it: `bentoml serve` in a process of its own, on loopback."""

from __future__ import annotations

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

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
_PORT_TRIES = 5
_GRACE_SECONDS = 15.0
_TAIL_LINES = 25
_STARTUP_FAILED = "Application startup failed"  # BentoML would start the worker again and again
_PORT_TAKEN = ("Address already in use", "Could not bind")

# `python -m bentoml`, which also stops when its standard input ends. The other end is held by this process, so that
# the server does not outlive a kernel or a test run that is killed and cannot clean up.
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
class Server:
    """A running service.

    Attributes:
        url: Its address, without a trailing slash.
        pid: The process id of `bentoml serve`, which leads the server's process group.
        log_path: Where its output goes.
        startup_seconds: From start to the first positive answer of `/readyz`.
    """

    url: str
    pid: int
    log_path: Path
    startup_seconds: float


@contextmanager
def serve(bento_folder: str | Path, *, log_path: str | Path | None = None, timeout: float = 120.0) -> Iterator[Server]:
    """Serve a built Bento while the `with` block runs, and stop all its processes however the block ends.

    Args:
        bento_folder: The built Bento: the folder with its `bento.yaml`.
        log_path: File for the server's output; without it the log lives as long as the server.
        timeout: Seconds until `/readyz` must have answered.

    Yields:
        The running server, ready for requests.

    Raises:
        MissingError: There is no such folder.
        StepError: The server ended or was not ready in time; the message holds the last lines of its log.
    """
    folder = Path(bento_folder).resolve()
    if not folder.is_dir():
        raise MissingError(
            "There is no Bento to serve", where=folder, expected="the folder of a built Bento", remedy="run model_pack"
        )
    with tempfile.TemporaryDirectory(prefix="bento-server-", ignore_cleanup_errors=True) as home:
        log = Path(log_path) if log_path is not None else Path(home) / "server.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with _running(folder, log, Path(home), timeout) as server:
            logger.info("serving %s at %s after %.1f s", folder.name, server.url, server.startup_seconds)
            yield server


@contextmanager
def _running(folder: Path, log: Path, home: Path, timeout: float) -> Iterator[Server]:
    for _ in range(_PORT_TRIES):
        port = _free_port()
        started = time.monotonic()
        process = _start(folder, port, log, home)
        try:
            if not _is_ready(process, port, log, timeout):
                continue
            yield Server(f"http://{HOST}:{port}", process.pid, log, time.monotonic() - started)
            return
        finally:
            _stop(process)
    raise _failure(f"Other processes took {_PORT_TRIES} ports, one after the other", log)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, port: int, log: Path, home: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENTOML_")}
    environment |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    # the folder that is served is an artifact: nothing may be written into it, nor reported from it
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", _LAUNCHER, "serve", str(folder), "--host", HOST, "--port", str(port)]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=home,  # a working directory with a `service.py` or `bentoml.py` of its own would shadow the Bento's
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _is_ready(process: subprocess.Popen[bytes], port: int, log: Path, timeout: float) -> bool:
    """Wait for the server; False says that another process took the port between its choice and its use."""
    deadline = time.monotonic() + timeout
    with requests.Session() as session:
        session.trust_env = False  # a proxy from the environment cannot reach this machine's loopback
        while not (_listens(process, port) and _answers(session, port)):
            code = process.poll()
            if code is not None:
                if any(sign in _tail(log, 200) for sign in _PORT_TAKEN):
                    return False
                raise _failure(f"The server ended with exit code {code} before it was ready", log)
            if _STARTUP_FAILED in _tail(log, 200):
                raise _failure("The service does not start", log)
            if time.monotonic() > deadline:
                raise _failure(f"The server was not ready within {timeout:g} s", log)
            time.sleep(0.1)
    return True


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it is this server that has the port, and not one that would answer in its place."""
    try:
        sockets = psutil.Process(process.pid).net_connections("tcp")
    except psutil.Error:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets)


def _answers(session: requests.Session, port: int) -> bool:
    try:
        return bool(session.get(f"http://{HOST}:{port}/readyz", timeout=5).status_code == requests.codes.ok)
    except requests.RequestException:
        return False


def _descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.Error:
        return []


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server's group, and its workers: BentoML gives each of them a session of its own."""
    workers = _descendants(process)
    _signal_group(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning("the server did not stop within %g s and is killed", _GRACE_SECONDS)
    finally:  # a second Ctrl-C ends the patience, not the clean-up
        _signal_group(process.pid, signal.SIGKILL)
        for worker in workers:
            _kill(worker)
        process.wait()
        if process.stdin:
            process.stdin.close()
    psutil.wait_procs(workers, timeout=5)


def _kill(worker: psutil.Process) -> None:
    try:
        worker.kill()
    except psutil.NoSuchProcess:
        logger.debug("process %d is gone", worker.pid)


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        logger.debug("process group %d is gone", leader)


def _tail(log: Path, lines: int) -> str:
    return "\n".join(log.read_text("utf-8", errors="replace").splitlines()[-lines:])


def _failure(problem: str, log: Path) -> StepError:
    return StepError(
        f"{problem}; its last lines:\n{_tail(log, _TAIL_LINES)}",
        remedy="run `bentoml serve` on the Bento's folder to see it fail, then repack it with model_pack",
    )
