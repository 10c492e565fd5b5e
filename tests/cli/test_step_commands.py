"""The command lines: what they take, refuse, print, and end with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import step_commands
from pipeline.runtime.manifest import SCHEMA, new_run_id
from pipeline.runtime.notebook import read_steps


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["frist"], "did you mean 'first'?", id="step"),
        pytest.param(["zzz"], "one of first, second, third", id="step like none"),
        pytest.param(["--set", "first.txt=a"], "did you mean 'text'?", id="parameter"),
        pytest.param(["--set", "frist.text=a"], "did you mean 'first'?", id="step of a parameter"),
        pytest.param(["--set", "first.times=a"], "int, such as 1", id="type"),
        pytest.param(["--set", "first.times=1.5"], "int, such as 1", id="float for int"),
        pytest.param(["--set", "third.score=high"], "float, such as 0.5", id="text for float"),
        pytest.param(["--set", "second.loud=1"], "bool, such as False", id="int for bool"),
        pytest.param(["--set", "first.times"], "STEP.NAME=VALUE", id="no value"),
        pytest.param(["--set", "times=1"], "STEP.NAME=VALUE", id="no step"),
        pytest.param(["--set", "first.=1"], "STEP.NAME=VALUE", id="no name"),
        pytest.param(["--set", "first.times=[1"], "YAML", id="no yaml"),
        pytest.param(["first", "--set", "text=http://a:b@c/"], "credentials", id="password"),
        pytest.param(["--config", "configs/dmo.yaml"], "did you mean", id="config"),
        pytest.param(["--nonsense"], "", id="option"),
        pytest.param(["first", "second"], "", id="two steps"),
    ],
)
def test_a_wrong_call_ends_with_2_before_anything_starts(toy: Any, arguments: list[str], says: str) -> None:
    outcome = toy.step(*arguments)
    assert outcome.code == 2
    assert says in outcome.log
    assert not (toy.root / ".store").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["second"], 1, "python step.dev.py first", id="nothing has run"),
        pytest.param(["third", "--run", "20260101T000000000Z-abcdef"], 1, "python -m pipeline runs", id="no such run"),
        pytest.param(["third", "--run", "../../x"], 1, "there is no run", id="run that is a path"),
    ],
)
def test_a_missing_upstream_is_told_and_opens_no_run(toy: Any, arguments: list[str], code: int, says: str) -> None:
    outcome = toy.step(*arguments)
    assert outcome.code == code
    assert says in outcome.log
    assert toy.look("runs").out == "no runs yet\n"


def test_a_foreign_kernel_or_a_bad_config_ends_with_1(toy: Any) -> None:
    path = toy.root / "steps" / "third.ipynb"
    good = path.read_text()
    path.write_text(good.replace('"python3"', '"ir"'))
    assert toy.step().code == 1
    assert "kernel 'ir'" in toy.step("first").log
    path.write_text(good)
    (toy.root / "configs" / "demo.yaml").write_text("name: toy\nparametres: {}\n")
    assert "did you mean 'parameters'" in toy.step().log
    assert not (toy.root / ".store").exists()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("first.text=1", "text", "1"),
        ("first.text=", "text", ""),
        ("first.text=a=b [c", "text", "a=b [c"),
        ("first.times=2", "times", 2),
        ("text=x", "text", "x"),
    ],
)
def test_values_are_read_by_their_type(toy: Any, text: str, name: str, value: Any) -> None:
    steps = read_steps(toy.root / "steps")
    overrides = step_commands._overrides([text], "first", steps)
    assert overrides == {"first": {name: value}}
    assert steps["first"].resolve(overrides["first"])[name] == value
    assert (
        steps["third"].resolve(step_commands._overrides(["third.score=1e-3"], None, steps)["third"])["score"] == 0.001
    )


def test_help_shows_the_steps_and_a_steps_own_parameters(toy: Any) -> None:
    outcome = toy.step("--help")
    assert outcome.code == 0
    assert re.search(r"first +The first step\n +second +The second step\n", outcome.out)
    assert "--set STEP.NAME=VALUE" in outcome.out
    outcome = toy.step("second", "--help")
    assert outcome.code == 0
    assert "The second step\n\nreads   letters\nwrites  words\n" in outcome.out
    assert re.search(r'^  act   str   "go"  +go, fail, refuse', outcome.out, re.MULTILINE)
    assert re.search(r"^  loud  bool  false  in capital letters", outcome.out, re.MULTILINE)
    assert "reads   the outside world" in toy.step("first", "-h").out
    assert not (toy.root / ".store").exists()


# --- which run, which config -----------------------------------------------------------------------------------------


def other_config(toy: Any, name: str = "other") -> None:
    (toy.root / "configs" / f"{name}.yaml").write_text(f"name: {name}\nparameters: {{first: {{text: hallo}}}}\n")


def test_a_joined_run_brings_its_config_and_another_pipelines_run_is_not_joined(ran: Any) -> None:
    demo = ran.manifest()["run"]
    other_config(ran)
    assert ran.step("first", "--config", "configs/other.yaml").code == 0
    manifest = ran.manifest()
    assert (manifest["pipeline"], manifest["config_file"]) == ("other", "configs/other.yaml")
    assert manifest["steps"]["first"]["status"] == "reused", "the same work, whoever asks for it"
    assert ran.step("second").code == 0
    assert set(ran.manifest(manifest["run"])["steps"]) == {"first", "second"}
    assert ran.step("third", "--config", "configs/demo.yaml").code == 0
    assert len(ran.manifest(demo)["steps"]["third"]["earlier_attempts"]) == 1
    assert set(ran.manifest(manifest["run"])["steps"]) == {"first", "second"}
    outcome = ran.step("second", "--config", "configs/demo.yaml", "--run", manifest["run"])
    assert outcome.code == 2
    assert "belongs to the pipeline 'other'" in outcome.log
    assert ran.step("second", "--run", demo).code == 0


def test_only_a_first_step_or_none_opens_a_run(ran: Any) -> None:
    def count() -> int:
        return len(json.loads(ran.look("runs", "--json").out))

    assert count() == 1
    ran.step("second")
    ran.step("third")
    assert count() == 1
    ran.step("first")
    assert count() == 2
    ran.step()
    assert count() == 3
    ran.step("first", "--run", ran.manifest()["run"])
    assert count() == 3


def test_a_config_is_found_from_where_the_user_stands_and_noted_relative_to_the_project(
    ran: Any, tmp_path: Path
) -> None:
    from pipeline.cli import step_commands

    other_config(ran)
    elsewhere = tmp_path / "mine.yaml"
    shutil.copy(ran.root / "configs" / "other.yaml", elsewhere)
    before = Path.cwd()
    try:
        os.chdir(ran.root / "configs")
        assert step_commands.main("dev", ["first", "--config", "other.yaml"], ran.root) == 0
        assert ran.manifest()["config_file"] == "configs/other.yaml"
        os.chdir(tmp_path)
        assert step_commands.main("dev", ["first", "--config", "mine.yaml"], ran.root) == 0
        assert ran.manifest()["config_file"] == str(elsewhere)
        assert step_commands.main("dev", ["second"], ran.root) == 0
    finally:
        os.chdir(before)


# --- looking ---------------------------------------------------------------------------------------------------------


def test_show_prints_the_manifest_as_it_is_kept(ran: Any) -> None:
    manifest = ran.manifest()
    kept = ran.root / ".store/default/dev/runs" / manifest["run"] / "manifest.json"
    assert json.loads(kept.read_text()) == manifest == ran.manifest(manifest["run"])
    assert manifest["schema"] == SCHEMA
    text = ran.look("show").out
    assert f"run       {manifest['run']}\npipeline  toy, dev, zone default\nconfig    configs/demo.yaml" in text
    assert re.search(r"^  <-  letters  [0-9a-f]{12}  2  files +0\.0 MB\n  ->  words ", text, re.MULTILINE)
    assert re.search(r"^ +length  5$", text, re.MULTILINE)
    assert manifest["steps"]["second"]["report"] in text


def test_runs_are_listed_oldest_first_and_a_broken_one_hides_no_other(ran: Any) -> None:
    first = ran.manifest()["run"]
    ran.step()
    second = ran.manifest()["run"]
    broken, newer = new_run_id(), new_run_id()
    for run, content in ((broken, "[]"), (newer, json.dumps({"schema": 99}))):
        folder = ran.root / ".store/default/dev/runs" / run
        folder.mkdir()
        (folder / "run.json").write_text(content)
    (ran.root / ".store/default/dev/runs" / new_run_id()).mkdir()
    lines = ran.look("runs").out.splitlines()
    assert [line.split()[0] for line in lines] == ["run", first, second, *sorted([broken, newer])]
    assert lines[0].split() == ["run", "pipeline", "commit", "first", "second", "third"]
    assert lines[2].split()[-3:] == ["reused"] * 3
    assert "newer version" in next(line for line in lines if line.startswith(newer))
    rows = json.loads(ran.look("runs", "--json").out)
    assert rows[0] == {
        "run": first,
        "mode": "dev",
        "pipeline": "toy",
        "steps": {"first": "succeeded", "second": "succeeded", "third": "succeeded"},
    }
    assert {row["run"] for row in rows if "error" in row} == {broken, newer}


def test_status_says_what_is_stale_and_why(ran: Any) -> None:
    assert ran.states() == {"first": "done", "second": "done", "third": "done"}
    config = ran.root / "configs" / "demo.yaml"
    config.write_text(config.read_text().replace("text: hallo", "text: hello"))
    notebook = ran.root / "steps" / "second.ipynb"
    notebook.write_text(notebook.read_text().replace("so far so good", "so far so bad"))
    shutil.rmtree(ran.root / ".store/default/dev/artifacts/page")
    rows = json.loads(ran.look("status", "--json").out)["steps"]
    assert rows == [
        {"step": "first", "state": "stale", "why": "parameters changed: text"},
        {"step": "second", "state": "stale", "why": "the notebook changed"},
        {"step": "third", "state": "stale", "why": "its outputs are gone from the store"},
    ]
    text = ran.look("status").out
    assert re.search(r"^  second  stale  the notebook changed$", text, re.MULTILINE)


def test_status_does_not_hold_the_command_lines_values_against_a_run(ran: Any) -> None:
    ran.step("--set", "second.loud=true", "--set", "first.text=hallo")
    assert ran.states() == {"first": "done", "second": "done", "third": "done"}
    ran.step("second", "--set", "second.loud=false")
    rows = {row["step"]: row for row in json.loads(ran.look("status", "--json").out)["steps"]}
    assert rows["second"]["state"] == "done"
    assert (rows["third"]["state"], rows["third"]["why"]) == ("stale", "inputs changed")


def test_what_a_run_was_opened_with_holds_for_its_later_steps(toy: Any) -> None:
    assert toy.step("first", "--set", "second.loud=true").code == 0
    done = toy.step("second", "--set", "third.minimum=0.1")
    assert done.code == 0
    assert "--set third.… is not used" in done.log
    assert toy.manifest()["steps"]["second"]["parameters"]["loud"] is True


def test_the_graph_is_drawn_from_the_files(toy: Any) -> None:
    text = toy.look("graph").out
    assert text.startswith("flowchart LR\n")
    for line in ("first --> letters([letters])", "letters --> second", "words --> third", "third --> page([page])"):
        assert f"    {line}\n" in text
    steps = json.loads(toy.look("graph", "--json").out)
    assert [step["step"] for step in steps] == ["first", "second", "third"]
    assert steps[2]["reads"] == ["letters", "words"]
    assert steps[0]["parameters"][1] == {"name": "times", "type": "int", "default": 1, "help": "how often"}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["show"], 1, "there is no dev run yet", id="no run"),
        pytest.param(["status", "--mode", "prod"], 1, "python step.prod.py", id="no prod run"),
        pytest.param(["show", "zzz"], 1, "there is no run 'zzz'", id="unknown run"),
        pytest.param(["shw"], 2, "", id="unknown command"),
        pytest.param([], 2, "", id="no command"),
        pytest.param(["runs", "--config", "zzz.yaml"], 2, "no such config", id="unknown config"),
    ],
)
def test_a_wrong_look_is_refused(toy: Any, arguments: list[str], code: int, says: str) -> None:
    outcome = toy.look(*arguments)
    assert outcome.code == code
    assert says in outcome.log


# --- as processes ----------------------------------------------------------------------------------------------------


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_scripts_and_the_module_are_these_command_lines(ran: Any) -> None:
    done = python(ran.root, "step.dev.py")
    assert (done.returncode, done.stdout.count("reused")) == (0, 3)
    assert f"page     {ran.root}/out/dev/toy/page" in done.stdout
    done = python(ran.root, "step.prod.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: prod needs a commit\n")
    done = python(ran.root / "steps", "-m", "pipeline", "status", "--json")
    assert json.loads(done.stdout)["steps"][0]["state"] == "done"
    done = python(Path("/"), "-m", "pipeline", "runs")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: this is not a project's folder")
    assert python(ran.root, "step.dev.py", "--set", "first.x=1").returncode == 2


LOADED = """
import runpy, sys
try:
    runpy.run_path("step.dev.py")
except SystemExit as stop:
    print(stop.code)
heavy = {"torch", "papermill", "nbformat", "nbconvert", "rich", "cv2", "numpy", "matplotlib", "fsspec"}
print(*heavy & set(sys.modules))
"""


def test_a_run_that_reuses_everything_imports_nothing_heavy(ran: Any) -> None:
    (ran.root / "loaded.py").write_text(LOADED)
    done = python(ran.root, "loaded.py")
    assert done.stdout.splitlines()[-2:] == ["0", ""], done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(ran: Any) -> None:
    command = f"{sys.executable} -m pipeline show --json | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=ran.root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


def test_a_store_that_cannot_be_written_is_told(ran: Any) -> None:
    shutil.rmtree(ran.root / ".store")
    (ran.root / ".store").write_text("in the way")
    outcome = ran.step("first")
    assert outcome.code == 1
    assert "error: the store could not list a folder: Not a directory" in outcome.log


def test_on_a_terminal_there_is_one_live_line_a_step(ran: Any) -> None:
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} step.dev.py second --force", "/dev/null"],
        cwd=ran.root,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
    )
    assert done.returncode == 0, done.stdout
    assert "\x1b[?25l" in done.stdout, "the cursor is hidden"
    assert "\x1b[?25h" in done.stdout, "and comes back"
    assert re.search(r"second  cell \d/9", done.stdout)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", done.stdout)
    assert re.search(r"second  succeeded +\d\.\d s  length 5", plain)
