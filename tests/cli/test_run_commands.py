"""The commands that look at runs: what they take, refuse and print. What each finds out is tested beside its module."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.run_command import COMMANDS, Answer, Look, argument, command

EACH = {
    "status": ["status"],
    "runs": ["runs"],
    "show": ["show"],
    "graph": ["graph"],
    "log": ["log", "second"],
    "compare": ["compare", "latest"],
    "lineage": ["lineage", "words"],
    "export": ["export", "--format", "openlineage"],
    "verify": ["verify"],
    "gc": ["gc"],
    "open": ["open", "latest", "second"],
}


@pytest.mark.parametrize("arguments", EACH.values(), ids=EACH)
def test_every_command_prints_text_and_json(ran: Any, arguments: list[str]) -> None:
    text = ran.look(*arguments)
    assert (text.code, text.log) == (0, "")
    assert "\x1b" not in text.out
    assert text.out.strip()
    content = ran.look(*arguments, "--json")
    assert (content.code, content.log) == (0, "")
    json.loads(content.out)


@pytest.mark.parametrize("arguments", EACH.values(), ids=EACH)
def test_every_command_has_help(toy: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    outcome = toy.look(arguments[0], "--help")
    assert outcome.code == 0
    for name in ("--mode", "--config", "--json", COMMANDS[arguments[0]].help.split()[0]):
        assert name in outcome.out


@pytest.mark.parametrize("name", ["latest", "latest~0", "id", "head", "tail"])
@pytest.mark.parametrize("arguments", [["show"], ["status"], ["log", "first"], ["export", "--format", "intoto"]])
def test_every_command_takes_a_run_by_any_of_its_names(ran: Any, arguments: list[str], name: str) -> None:
    run = ran.manifest()["run"]
    typed = {"id": run, "head": run[:15], "tail": run[-6:]}.get(name, name)
    assert ran.look(*arguments, typed).out == ran.look(*arguments).out


def test_a_named_config_asks_for_its_own_runs(ran: Any) -> None:
    (ran.root / "configs" / "other.yaml").write_text("name: other\n")
    own = ran.manifest()["run"]
    ran.step("first", "--config", "configs/other.yaml")
    assert ran.manifest()["run"] != own
    assert ran.manifest("--config", "configs/demo.yaml")["run"] == own
    assert json.loads(ran.look("log", "first", "--config", "configs/demo.yaml", "--json").out)["run"] == own
    content = json.loads(ran.look("compare", own, "--config", "configs/other.yaml", "--json").out)
    assert (content["left"], content["right"]) == (own, ran.manifest()["run"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["log", "scond"], 2, "did you mean 'second'?", id="step"),
        pytest.param(["log"], 2, "", id="no step"),
        pytest.param(["log", "second", "--attempt", "2"], 1, "expected: one of 1", id="attempt"),
        pytest.param(["log", "second", "zzz"], 1, "there is no run 'zzz'", id="run"),
        pytest.param(["compare"], 2, "", id="nothing to compare"),
        pytest.param(["compare", "latest~1"], 1, "latest: there is one run", id="run before the first"),
        pytest.param(["lineage", "wrods"], 2, "did you mean 'words'?", id="artifact"),
        pytest.param(["lineage", "000000"], 1, "one of letters, words, book, page", id="digest"),
        pytest.param(["export"], 2, "", id="no format"),
        pytest.param(["export", "--format", "rocrate"], 2, "", id="format"),
        pytest.param(["export", "--format", "intoto", "--output", "no/such/folder/x"], 1, "FileNotFound", id="output"),
    ],
)
def test_a_wrong_look_is_refused_with_the_nearest_right_one(
    ran: Any, arguments: list[str], code: int, says: str
) -> None:
    outcome = ran.look(*arguments)
    assert outcome.code == code
    assert says in outcome.log
    assert outcome.out == ""


@pytest.mark.parametrize(
    "arguments",
    [["log", "second"], ["compare", "latest~1"], ["lineage", "words"], ["export", "--format", "intoto"]],
    ids=lambda arguments: arguments[0],
)
def test_where_nothing_has_run_it_is_said(toy: Any, arguments: list[str]) -> None:
    outcome = toy.look(*arguments, "--mode", "prod")
    assert outcome.code == 1
    assert "there is no prod run yet" in outcome.log
    assert "python step.prod.py" in outcome.log


def test_a_step_that_did_not_run_and_one_that_is_no_more(ran: Any) -> None:
    ran.step("first")
    outcome = ran.look("log", "third")
    assert outcome.code == 1
    assert "third has not run in run" in outcome.log
    for name in ("second", "third"):
        (ran.root / "steps" / f"{name}.ipynb").unlink()
    assert "so far so good" in ran.look("log", "second", "latest~1").out


def test_an_export_is_a_file_of_lines_or_nothing(ran: Any, tmp_path: Path) -> None:
    place = tmp_path / "events.jsonl"
    outcome = ran.look("export", "--format", "openlineage", "--output", str(place))
    assert outcome.out == f"6 lines in {place}\n"
    assert place.read_text() == ran.look("export", "--format", "openlineage").out
    assert [json.loads(line) for line in place.read_text().splitlines()] == json.loads(
        ran.look("export", "--format", "openlineage", "--json").out
    )
    ran.step("first", "--set", "text=")
    (ran.root / "steps" / "first.ipynb").write_text(
        (ran.root / "steps" / "first.ipynb").read_text().replace("text * times", "nothing_such")
    )
    ran.step("first")
    outcome = ran.look("export", "--format", "intoto")
    assert (outcome.code, outcome.out) == (0, "")


def test_a_command_is_one_function(ran: Any) -> None:
    @command("greet", "say hello", argument("--loud", action="store_true"))
    def _greet(look: Look) -> Answer:
        words = "HELLO" if look.asked.loud else "hello"
        return Answer({"words": words, "steps": list(look.steps)}, words, code=1)

    try:
        outcome = ran.look("greet", "--loud")
        assert (outcome.code, outcome.out) == (1, "HELLO\n")
        assert json.loads(ran.look("greet", "--json").out) == {"words": "hello", "steps": ["first", "second", "third"]}
    finally:
        del COMMANDS["greet"]


LOADED = """
import sys
from pipeline.cli.run_commands import inspect
sys.stdout.write(str(inspect(sys.argv[1:])))
heavy = {"torch", "papermill", "nbformat", "nbconvert", "nbclient", "rich", "cv2", "numpy", "matplotlib", "fsspec"}
sys.stderr.write(" ".join(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", EACH.values(), ids=EACH)
def test_to_look_imports_nothing_heavy(ran: Any, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], cwd=ran.root, capture_output=True, text=True, check=True
    )
    assert (done.stdout[-1], done.stderr) == ("0", "")
