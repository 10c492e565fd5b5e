"""Telling a running process from one that is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runtime import process as process_module
from pipeline.runtime.process import NOBODY, Process, is_alive, this_process

PRINT = "from pipeline.runtime.process import this_process as t; from dataclasses import asdict; import json; "
PRINT += "print(json.dumps(asdict(t())), flush=True); input()"


HIDDEN = """
import sys
from pipeline.runtime.process import Process, is_alive, this_process
import os
this_process()  # what it imports must be read before
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(is_alive(Process(*sys.argv[1:3], int(sys.argv[3]), sys.argv[4])))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount /proc so that it hides processes")
def test_a_process_that_one_may_not_see_is_not_taken_for_dead() -> None:
    mine = this_process()
    arguments = [mine.host, mine.boot, str(mine.pid), mine.began]
    command = ["unshare", "-m", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"]
    done = subprocess.run(
        [*command, sys.executable, "-c", HIDDEN, *arguments], capture_output=True, text=True, check=False
    )
    if "mount" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.strip() == "None", done.stderr


def test_another_is_alive_until_it_ends() -> None:
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
        pytest.param(this_process(), True, id="this one"),
        pytest.param(replace(this_process(), began="1"), False, id="its number is another's now"),
        pytest.param(replace(this_process(), host="elsewhere"), None, id="on another machine"),
        pytest.param(NOBODY, None, id="not recorded"),
    ],
)
def test_what_can_be_known_of_others(process: Process, alive: bool | None) -> None:
    assert is_alive(process) is alive


def test_before_a_restart_only_a_machine_with_an_id_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = replace(this_process(), boot="another")
    monkeypatch.setattr(process_module, "MACHINE", tmp_path / "id")
    assert is_alive(process) is None
    (tmp_path / "id").touch()
    assert is_alive(process) is False
