"""The packed service as a real process: started, answering, and gone afterwards however the block ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
import pytest
import requests
from cases import cases

from pipeline.client import service_process as server_module
from pipeline.client.service_process import serve
from pipeline.errors import MissingError, StepError


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def all_gone(processes: Iterable[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=5)
    return not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]


def test_it_answers_and_nothing_of_it_survives_an_interruption(
    bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("BENTOML_PORT", "1")
    log = tmp_path / "server.log"
    processes = []
    with contextlib.suppress(KeyboardInterrupt), serve(bento, log_path=log) as server:
        processes = family(server.pid)
        assert os.getpgid(server.pid) == server.pid != os.getpgid(0)
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(server.url + "/readyz", timeout=5).ok
        raise KeyboardInterrupt
    assert len(processes) > 1
    assert all_gone(processes)
    assert log.read_text()


@pytest.mark.slow
def test_workers_of_a_leader_that_was_killed_are_stopped_too(bento: Path) -> None:
    with serve(bento) as server:
        processes = family(server.pid)
        os.kill(server.pid, signal.SIGKILL)
    assert all_gone(processes)


@pytest.mark.slow
def test_it_does_not_outlive_a_killed_parent(bento: Path) -> None:
    script = "import pathlib, sys, time; from pipeline.client.service_process import serve\n"
    script += "with serve(pathlib.Path(sys.argv[1])) as server: print(server.pid, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script, bento], stdout=subprocess.PIPE, text=True) as parent:
        processes = family(int(parent.stdout.readline()))
        parent.kill()
    assert len(processes) > 1
    assert all_gone(processes)


@pytest.mark.slow
def test_one_that_ignores_the_polite_request_is_killed(bento: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_GRACE_SECONDS", 0.5)
    with serve(bento) as server:
        processes = family(server.pid)
        for process in processes:
            process.suspend()
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert all_gone(processes)


def dying(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "bentofile.yaml").write_text("service: 'absent:Service'\n")


def without_model(folder: Path) -> None:
    (model,) = folder.rglob("model.onnx")
    model.write_bytes(b"broken")


def without_test_image(folder: Path) -> None:
    (image,) = folder.rglob("test_image.*")
    image.unlink()


@cases(
    "spoil, timeout, error, message",
    {
        "dies": (dying, 60, StepError, r"(?s)exit code.*absent"),
        "cannot load its model": (without_model, 60, StepError, r"(?s)exit code 1.*model\.onnx"),
        "has no test image": (without_test_image, 60, StepError, r"(?s)does not start.*test_image"),
        "is not ready in time": (lambda folder: None, 0.01, StepError, r"not ready within 0\.01 s"),
        "is not there": (shutil.rmtree, 60, MissingError, "nowhere"),
    },
)
def test_a_service_that_does_not_start_is_told(
    bento: Path, tmp_path: Path, spoil: Callable, timeout: float, error: type[Exception], message: str
) -> None:
    broken = tmp_path / "nowhere"
    shutil.copytree(bento, broken)
    spoil(broken)
    with pytest.raises(error, match=message), serve(broken, timeout=timeout):
        pass
