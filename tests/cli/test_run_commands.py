"""The commands of `python -m pipeline`: their arguments, errors and output. Their findings are tested by module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.command import COMMANDS

pytestmark = pytest.mark.usefixtures("in_process")

EACH = {
    "status": ["status"],
    "runs": ["runs"],
    "show": ["show"],
    "graph": ["graph"],
    "log": ["log", "second"],
    "compare": ["compare", "latest"],
    "lineage": ["lineage", "words"],
    "export": ["export"],
    "verify": ["verify"],
    "gc": ["gc"],
    "open": ["open", "second"],
}


def test_every_command_prints_text_and_json_and_has_help(ran: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for name, arguments in EACH.items():
        text, content, help_text = ran.look(*arguments), ran.look(*arguments, "--json"), ran.look(name, "--help")
        assert (text.code, text.log, content.code, content.log, help_text.code) == (0, "", 0, "", 0)
        assert text.out.strip()
        assert "\x1b" not in text.out
        json.loads(content.out)
        for expected in ("--mode", "--config", "--json", COMMANDS[name][0].split()[0]):
            assert expected in help_text.out
    assert {*EACH, "rerun"} == COMMANDS.keys()


def test_every_command_takes_a_run_by_any_of_its_names(ran: Any) -> None:
    run = ran.manifest()["run"]
    for arguments in (["show"], ["status"], ["log", "first"], ["export"]):
        expected = ran.look(*arguments).out
        assert {ran.look(*arguments, name).out for name in ("latest", "latest~0", run, run[:15], run[-6:])} == {
            expected
        }


def test_step_and_run_are_taken_in_either_order(ran: Any) -> None:
    old = ran.manifest()["run"]
    ran.step()
    for name in (old, "latest~1", old[-6:]):
        for command_name, key in (("log", "run"), ("open", "attempt")):
            outcomes = [
                json.loads(ran.look(command_name, *order, "--json").out)
                for order in (("second", name), (name, "second"))
            ]
            assert [outcome[key].startswith(old) for outcome in outcomes] == [True, True]
    assert "no step is named" in ran.look("log", "latest").log
    (ran.root / "steps" / "third.ipynb").unlink()
    assert ran.look("log", "latest~1", "third").code == 0, "a step that was removed since"


def test_a_named_config_selects_its_own_runs(ran: Any) -> None:
    (ran.root / "configs" / "other.yaml").write_text("name: other\n")
    own = ran.manifest()["run"]
    ran.step("first", "--config", "configs/other.yaml")
    assert ran.manifest()["run"] != own
    assert ran.manifest("--config", "configs/demo.yaml")["run"] == own
    assert json.loads(ran.look("log", "first", "--config", "configs/demo.yaml", "--json").out)["run"] == own
    content = json.loads(ran.look("compare", own, "--config", "configs/other.yaml", "--json").out)
    assert (content["left"], content["right"]) == (own, ran.manifest()["run"])


WRONG = {
    "step": (["log", "scond"], 2, "did you mean 'second'?"),
    "no step": (["log"], 2, "no step is named"),
    "attempt": (["log", "second", "--attempt", "2"], 1, "expected: one of 1"),
    "run": (["log", "second", "zzz"], 1, "there is no run 'zzz'"),
    "nothing to compare": (["compare"], 2, ""),
    "run before the first": (["compare", "latest~1"], 1, "there is no run 'latest~1'"),
    "artifact": (["lineage", "wrods"], 2, "did you mean 'words'?"),
    "digest": (["lineage", "000000"], 1, "one of letters/"),
    "output": (["export", "--output", "no/such/folder/x"], 1, "FileNotFound"),
    "command": (["shw"], 2, ""),
    "no command": ([], 2, ""),
    "config": (["runs", "--config", "zzz.yaml"], 2, "no such config"),
}


def test_a_wrong_call_is_refused_with_the_nearest_right_one(ran: Any) -> None:
    for name, (arguments, code, message) in WRONG.items():
        outcome = ran.look(*arguments)
        assert (outcome.code, outcome.out) == (code, ""), name
        assert message in outcome.log, name


def test_without_a_run_every_command_names_the_command_that_makes_one(toy: Any) -> None:
    for arguments in (
        ["show"],
        ["status"],
        ["log", "second"],
        ["compare", "latest~1"],
        ["lineage", "words"],
        ["export"],
    ):
        outcome = toy.look(*arguments, "--mode", "prod")
        assert outcome.code == 1
        assert "there is no prod run yet" in outcome.log
        assert "python step.prod.py" in outcome.log


def test_an_export_is_a_file_of_lines_or_nothing(ran: Any, tmp_path: Path) -> None:
    path = tmp_path / "statements.jsonl"
    assert ran.look("export", "--output", str(path)).out == f"3 lines in {path}\n"
    assert path.read_text() == ran.look("export").out
    assert [json.loads(line) for line in path.read_text().splitlines()] == json.loads(ran.look("export", "--json").out)
    notebook = ran.root / "steps" / "first.ipynb"
    notebook.write_text(notebook.read_text().replace("text * times", "nothing_such"))
    ran.step("first")
    outcome = ran.look("export")
    assert (outcome.code, outcome.out) == (0, "")


LOADED = """
import json, sys
from pipeline.cli.entry import run_command
codes = [run_command(arguments) for arguments in json.loads(sys.argv[1])]
heavy = {"torch", "papermill", "nbformat", "nbconvert", "nbclient", "rich", "cv2", "numpy", "matplotlib", "fsspec"}
sys.stderr.write(f"{sum(codes)} {heavy & set(sys.modules)}")
"""


def test_no_command_imports_anything_heavy(ran: Any) -> None:
    command_line = [sys.executable, "-c", LOADED, json.dumps([*EACH.values()])]
    done = subprocess.run(command_line, cwd=ran.root, capture_output=True, text=True, check=True)
    assert done.stderr == "0 set()"
