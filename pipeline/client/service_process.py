"""The packed service, started as its users start it: `bentoml serve` in its own process, on loopback."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

import psutil
import requests

from pipeline.errors import MissingError, StepError, UsageError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_NOT_PASSED_ON = ("BENTOML_", "DETECTOR_")
_GRACE_SECONDS = 15.0
_TAIL_LINES = 25
_LONGEST_LOG = 1 << 20  # bytes of a log that is also shown
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

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, and something listens at the address."""
        try:
            if psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE:
                return False
            address = urlsplit(self.url)
            with socket.create_connection((address.hostname or HOST, address.port or 0), timeout=5):
                return True
        except (psutil.NoSuchProcess, ConnectionRefusedError):
            return False
        except OSError:  # it is busy, or this process has too many open files
            return True

    @property
    def memory(self) -> int:
        """Bytes of memory that its processes have for themselves, so that would be free without them."""
        server = psutil.Process(self.pid)
        return sum(each.memory_full_info().uss for each in [server, *server.children(recursive=True)])

    def answers(self, timeout: float = 10.0) -> bool:
        """Whether it answers at all within so many seconds."""
        with requests.Session() as session:
            session.trust_env = False  # a proxy from the environment cannot reach this machine's loopback
            try:
                return session.get(self.url + "/livez", timeout=timeout).ok
            except requests.RequestException:
                return False


def check_port(host: str, port: int) -> None:
    """Raise a `UsageError` where no server can listen at the address."""
    try:
        listening_socket(host, port).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise UsageError(
            f"port {port} is in use" if taken else f"no server can listen at {host} port {port}: {error.strerror}",
            where=host,
            remedy="stop the other server, or choose another port" if taken else "check the host and the port",
        ) from None


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at the address, which is taken as soon as the server before has gone."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def reached_at(host: str, port: int) -> str:
    """The URL at which this machine reaches a server that listens at a host, which may be all of them."""
    name = {"0.0.0.0": HOST, "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@contextmanager
def serve(
    bento: Path,
    *,
    log_path: Path | None = None,
    timeout: float = 120.0,
    host: str = HOST,
    port: int = 0,
    environment: Mapping[str, str] | None = None,
    echo: BinaryIO | None = None,
) -> Iterator[RunningService]:
    """Serve a built Bento while the `with` block runs, and stop all its processes however the block ends.

    Args:
        bento: Its folder.
        log_path: For the server's output, which is else removed with it.
        timeout: Seconds within which it must be ready.
        host: The address it listens at.
        port: 0 for one that is free.
        environment: Further variables for the server, such as its settings. Those of this process do not reach it, so
            that an evaluation is the same whatever is set.
        echo: Where the server's output is written as it comes. The log has then only its beginning.

    Raises:
        MissingError: There is no such folder.
        StepError: The server ended or was not ready in time; the message holds the last lines of its log.
    """
    folder = bento.resolve()
    if not folder.is_dir():
        raise MissingError("there is no Bento to serve", where=folder, expected="the folder of a built Bento")
    with tempfile.TemporaryDirectory(prefix="bento-server-", ignore_cleanup_errors=True) as home:
        output = log_path or Path(home, "server.log")
        variables = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_PASSED_ON)}
        variables |= {"BENTOML_DO_NOT_TRACK": "true", "BENTOML_HOME": home, "PYTHONUNBUFFERED": "1"}
        variables["PYTHONDONTWRITEBYTECODE"] = "1"  # the Bento is an artifact: nothing may be written into its folder
        variables |= environment or {}
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, "serve", str(folder), "--host", host, "--port", str(port)],
                cwd=home,  # a `service.py` or `bentoml.py` in the working directory would hide the Bento's
                env=variables,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if echo else stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if echo:
            threading.Thread(target=_copy, args=(process.stdout, output, echo), daemon=True).start()
        try:
            url = _wait_until_ready(process, output, timeout, host)
            log.debug("serving %s at %s", folder.name, url)
            yield RunningService(url, process.pid, output)
        finally:
            _stop(process)


def _copy(source: IO[bytes], output: Path, echo: BinaryIO) -> None:
    """Copy the server's output line by line; the file has no more than its beginning, since a server runs for long."""
    with output.open("ab", buffering=0) as stream:
        for line in source:
            if stream.tell() < _LONGEST_LOG:
                stream.write(line)
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                echo.write(line)
                echo.flush()


def _wait_until_ready(process: subprocess.Popen[bytes], output: Path, timeout: float, host: str) -> str:
    deadline = time.monotonic() + timeout
    with requests.Session() as session:
        session.trust_env = False  # a proxy from the environment cannot reach this machine's loopback
        while True:
            for port in _ports(process):
                with contextlib.suppress(requests.RequestException):
                    if session.get(f"{reached_at(host, port)}/readyz", timeout=5).ok:
                        return reached_at(host, port)
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
        if process.stdin:
            process.stdin.close()
        process.wait()
        psutil.wait_procs(workers, timeout=5)


def _failure(problem: str, output: Path) -> StepError:
    lines = output.read_text("utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    return StepError(
        "\n".join([f"{problem}; its last lines:", *lines]),
        remedy="run `bentoml serve` on the Bento's folder to see it fail, then pack the model again",
    )
