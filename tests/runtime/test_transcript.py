"""What a notebook printed, from wherever its run left it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import Any

from pipeline.runtime.process import work_folder


def test_each_cell_is_shown_under_the_name_it_had_while_it_ran(ran: Any) -> None:
    lines = ran.look("log", "second").out.splitlines()
    run = ran.manifest()["run"]
    assert lines[0].startswith(f"second, attempt 1 of run {run}: succeeded, ")
    names = ["imports", "parameters", "injected-parameters", "interface", *["Work on."] * 4, "Publish."]
    assert [line.split("s  ", 1)[1] for line in lines if line.startswith("  ") and "s  " in line] == names
    assert "      so far so good" in lines
    content = ran.json("log", "second")
    assert (content["status"], content["source"]) == ("succeeded", f"{run}/second/1")
    assert {cell["state"] for cell in content["cells"]} == {"completed"}
    ran.step()
    text = ran.look("log", "second").out
    assert f"the output of {run}/second/1, whose work it reused" in text
    assert "so far so good" in text


def test_a_failure_is_shown_as_far_as_it_came(ran: Any) -> None:
    ran.step("second", "--set", "act=fail")
    text = ran.look("log", "second").out
    assert "second, attempt 2 of run" in text
    assert 'ValueError("no such luck")' in text
    assert "\x1b" not in text
    assert text.splitlines()[-1] == "  3 more cells did not run"
    assert "so far so good" in ran.look("log", "second", "--attempt", "1").out


def test_an_attempt_is_shown_while_it_runs_and_after_it_was_killed(ran: Any) -> None:
    process = ran.spawn("second", "--set", "act=sleep")
    kernel = ran.kernel()
    ran.wait_for(lambda: any("so far so good" in cell["text"] for cell in ran.json("log", "second")["cells"]))
    assert ran.json("log", "second")["status"] == "running"
    text = ran.look("log", "second").out
    assert ": running, since 20" in text
    assert text.endswith(" more cells to come\n")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert ran.json("log", "second")["status"] == "killed"
    text = ran.look("log", "second").out
    assert "its output when the notebook was last saved" in text
    assert " running  Work on." in text
    os.kill(kernel, signal.SIGKILL)
    shutil.rmtree(ran.root / ".cache" / "work")
    ran.look("log", "second").fails("second/2, which is recorded as killed", "python step.dev.py second --run")


def test_a_notebook_that_is_not_saved_yet_or_being_written_is_no_error(ran: Any) -> None:
    run = ran.manifest()["run"]
    with work_folder(ran.root / ".cache" / "work", "step", "second") as work:  # as if it were at work there
        (ran.root / f".store/default/dev/runs/{run}/attempts/second.001.ended.json").unlink()
        (work / "context.json").write_text(json.dumps({"made_by": f"{run}/second/1"}))
        assert ran.json("log", "second")["cells"] == []
        (work / "second.ipynb").write_text('{"cells": [')
        assert ran.json("log", "second")["cells"] == []


def test_a_damaged_notebook_is_named(ran: Any) -> None:
    kept = ran.root / ".store/default/dev/runs" / ran.manifest()["run"] / "notebooks" / "second.001.ipynb"
    for content in (b"{", b"[]", b'{"cells": [1]}', b"\xff"):
        kept.write_bytes(content)
        ran.look("log", "second").fails(str(kept))
    kept.unlink()
    ran.look("log", "second").fails("no notebook is kept of", "--force")
