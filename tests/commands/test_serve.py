"""`python -m pipeline serve`: in the foreground, and with newer runs taking over."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import requests
from cases import cases
from ports import free_ports

from pipeline.cli.command import CommandContext
from pipeline.commands.named_service import RunService, find_service

DARK = cv2.imencode(".png", np.full((64, 64, 3), 100, np.uint8))[1].tobytes()


def said(process: subprocess.Popen[str]) -> list[str]:
    """The lines that the command prints once it serves."""
    assert process.stdout
    lines = [process.stdout.readline() for _ in range(4)]
    assert lines[-1].strip() == "stop  Ctrl-C", process.communicate()[1]
    threading.Thread(target=process.stderr.read if process.stderr else None, daemon=True).start()
    return lines


def url_of(lines: list[str]) -> str:
    [url] = re.findall(r"http://\S+$", lines[0].strip())
    return str(url)


def label(url: str) -> str:
    answer = requests.post(f"{url}/predict", files={"images": DARK}, timeout=30)
    return str(answer.json()[0]["detections"][0]["label"]) if answer.ok else f"HTTP {answer.status_code}"


def ends(process: subprocess.Popen[str], number: int, code: int) -> None:
    """It ends within seconds, and nothing of it is left."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(timeout=20) == code
    assert family
    assert not [each for each in psutil.wait_procs(family, timeout=3)[1] if each.status() != psutil.STATUS_ZOMBIE]


@cases("number, code", {"Ctrl-C": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)})
def test_a_bento_is_served_until_it_is_stopped(started: Any, bento: Path, number: int, code: int) -> None:
    [port] = free_ports()
    process = started("serve", str(bento), "--port", str(port))
    lines = said(process)
    assert lines[0] == f"serving {bento} at http://127.0.0.1:{port}\n"
    assert lines[1] == f"  page  http://127.0.0.1:{port}/\n"
    assert label(url_of(lines)) == "dark"
    curl = shlex.split(lines[2].removeprefix("  try   "))
    assert "{" in subprocess.run([*curl, "-s"], capture_output=True, text=True, check=True).stdout
    ends(process, number, code)


def test_a_run_tells_the_service_its_name(packing: Any, bento: Path, started: Any) -> None:
    assert packing.step("--set", f"pack.source={bento}").code == 0
    process = started("serve", "--port", "0", cwd=packing.root, DETECTOR_API_KEY="a secret")
    run = packing.manifest()["run"]
    lines = said(process)
    assert lines[0].startswith(f"serving run {run} at http://127.0.0.1:")
    assert "$DETECTOR_API_KEY" in lines[2]
    assert "a secret" not in "".join(lines)
    environments = [each.environ() for each in psutil.Process(process.pid).children()]
    assert [each.get("DETECTOR_RUN") for each in environments] == [run]
    assert {each.get("BENTOML_DO_NOT_TRACK") for each in environments} == {"true"}
    ends(process, signal.SIGINT, 130)
    assert not packing.left_over()


def test_a_port_in_use_is_named_before_anything_starts(toy: Any, bento: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for watch in ((), ("--watch",)):
            outcome = toy.look("serve", *([str(bento)] if not watch else []), "--port", str(port), *watch)
            outcome.fails(f"port {port} is in use", code=2)
    toy.look("serve", str(bento), "--host", "192.0.2.1").fails("no server can listen at 192.0.2.1 port 3000", code=2)


@cases(
    "arguments, message, code",
    {
        "a running service": (["http://127.0.0.1:3000"], "cannot be served again", 2),
        "a folder to watch": (["BENTO", "--watch"], "no newer runs to watch for", 2),
        "no port": (["--port", "x"], "", 2),
        "no run": (["--port", "0"], "there is no dev run yet", 1),
        "no run to watch": (["--port", "0", "--watch"], "there is no dev run yet", 1),
    },
)
def test_a_wrong_call_is_refused(toy: Any, bento: Path, arguments: list[str], message: str, code: int) -> None:
    toy.look("serve", *[each.replace("BENTO", str(bento)) for each in arguments]).fails(message, code=code)


def test_a_run_without_a_packed_model_cannot_be_served(packing: Any) -> None:
    assert packing.step("--set", "pack.fails=true").code == 1
    for watch in ((), ("--watch",)):
        problem = "no run is complete" if watch else "there is no dev run with a bento_service yet"
        for named in ((), ("latest",)):
            packing.look("serve", *named, "--port", "0", *watch).fails(problem, "step.dev.py --run")


JUDGE = """\
(step.outputs["verdict"] / "text.txt").write_text("good")
step.commit(metrics={"mAP": 0.1}, limits={"mAP 0.1, at least 0.5": False} if strict else {}, judged="bento_service")"""


@pytest.fixture
def judged(packing: Any, bento: Path) -> Any:
    """A project whose second step judges the service; a first run has a service, and one that failed has none."""
    interface = 'step = Step.open("judge", reads=["bento_service"], writes=["verdict"])'
    cells = [("parameters", "strict: bool = False  # whether there is a gate"), ("interface", interface), ("", JUDGE)]
    packing.notebook("judge", [*packing.cells_of("first")[:2], *cells])
    assert packing.step("pack", "--set", f"pack.source={bento}").code == 0
    return packing


def find(judged: Any, typed: str | None) -> RunService:
    arguments = argparse.Namespace(config=None, mode=None)
    return find_service(CommandContext(arguments, judged.root), typed)


def test_what_speaks_against_a_service_is_told_in_a_line(judged: Any, other_bento: Path) -> None:
    run, cautions = judged.manifest()["run"], []
    for arguments in (["judge"], ["judge", "--set", "strict=true"], ["pack", "--set", f"source={other_bento}"]):
        cautions.append(find(judged, None).caution)
        judged.step(*arguments, "--run", run)
    cautions.append(find(judged, run).caution)
    assert [each.removeprefix(f"run {run}: ") for each in cautions] == [
        "judge has not run",
        "",
        "judge failed: the quality gate is not passed: mAP 0.1, at least 0.5",
        "judge failed: the quality gate is not passed: mAP 0.1, at least 0.5; judge judged another service",
    ]


def test_the_latest_service_is_the_same_for_all_commands(judged: Any, photos: Path) -> None:
    first = judged.manifest()["run"]
    assert judged.step("--set", "pack.fails=true").code == 1
    for typed in (None, "latest"):
        assert find(judged, typed).run.run == first
    outcome = judged.look("predict", "latest", str(photos / "dark.jpg"))
    assert outcome.code == 0
    assert outcome.log.splitlines()[0] == f"warning: run {first}: judge has not run"


def test_a_newer_complete_run_takes_over_without_a_failed_request(
    packing: Any, bento: Path, other_bento: Path, started: Any
) -> None:
    assert packing.step("--set", f"pack.source={bento}").code == 0
    process = started("serve", "--watch", "--port", "0", cwd=packing.root)
    url = url_of(said(process))
    answers, stop = Counter[str](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers[label(url)] += 1
            time.sleep(0.02)

    client = threading.Thread(target=ask)
    client.start()
    try:
        assert packing.step("--set", f"pack.source={other_bento}", "--set", "pack.broken=true").code == 0
        assert packing.step("--set", f"pack.source={other_bento}", "--set", "pack.fails=true").code == 1
        time.sleep(6)  # two rounds, and the broken one ends at once
        assert {*answers} == {"dark"}
        assert packing.step("--set", f"pack.source={other_bento}").code == 0
        packing.wait_for(lambda: answers["night"] > 5, seconds=30)
    finally:
        stop.set()
        client.join()
    assert {*answers} == {"dark", "night"}
    ends(process, signal.SIGTERM, 143)
    assert not packing.left_over()


@pytest.mark.slow
def test_a_service_that_dies_is_started_again(packing: Any, bento: Path, started: Any) -> None:
    assert packing.step("--set", f"pack.source={bento}").code == 0
    process = started("serve", "latest", "--watch", "--port", "0", cwd=packing.root)
    url = url_of(said(process))
    for each in psutil.Process(process.pid).children(recursive=True):
        each.kill()
    assert label(url) == "HTTP 503"
    packing.wait_for(lambda: label(url) == "dark", seconds=30)
    ends(process, signal.SIGINT, 130)


@pytest.mark.slow
def test_without_watch_a_service_that_dies_ends_the_command(started: Any, bento: Path) -> None:
    process = started("serve", str(bento), "--port", "0")
    said(process)
    for each in psutil.Process(process.pid).children(recursive=True):
        each.kill()
    assert process.wait(timeout=20) == 1
