"""Telling a running process from one that is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.process import NOBODY, Process, is_alive, this_process

PRINT = "from pipeline.process import this_process as t; from dataclasses import asdict; import json; "
PRINT += "print(json.dumps(asdict(t())), flush=True); input()"


def test_this_one_is_alive() -> None:
    assert this_process().pid == os.getpid()
    assert is_alive(this_process()) is True


def test_another_is_alive_until_it_ends() -> None:
    import json

    child = subprocess.Popen([sys.executable, "-c", PRINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout
    process = Process(**json.loads(child.stdout.readline()))
    assert process.pid == child.pid
    assert is_alive(process) is True
    child.kill()
    while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert is_alive(process) is False, "a zombie has ended"
    child.communicate()
    assert is_alive(process) is False


@pytest.mark.parametrize(
    ("process", "alive"),
    [
        pytest.param(replace(this_process(), began="1"), False, id="its number is another's now"),
        pytest.param(replace(this_process(), boot="another"), False, id="before the machine was started anew"),
        pytest.param(replace(this_process(), host="elsewhere"), None, id="on another machine"),
        pytest.param(NOBODY, None, id="not recorded"),
    ],
)
def test_what_can_be_known_of_others(process: Process, alive: bool | None) -> None:
    assert is_alive(process) is alive
