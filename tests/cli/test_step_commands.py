"""The command lines: what they take, refuse, print, and end with."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.cli import step_commands
from pipeline.runtime.manifest import SCHEMA, new_run_id
from pipeline.runtime.notebook import read_steps

pytestmark = pytest.mark.usefixtures("in_process")

WRONG = {
    "step": (["frist"], "did you mean 'first'?"),
    "parameter": (["--set", "first.txt=a"], "did you mean 'text'?"),
    "step of a parameter": (["--set", "frist.text=a"], "did you mean 'first'?"),
    "no value": (["--set", "first.times"], "STEP.NAME=VALUE"),
    "no step": (["--set", "times=1"], "STEP.NAME=VALUE"),
    "no name": (["--set", "first.=1"], "STEP.NAME=VALUE"),
    "no YAML": (["--set", "first.times=[1"], "YAML"),
    "config": (["--config", "configs/dmo.yaml"], "did you mean"),
    "option": (["--nonsense"], ""),
    "two steps": (["first", "second"], ""),
}


def test_a_wrong_call_ends_with_2_before_anything_starts(toy: Any) -> None:
    for arguments, message in WRONG.values():
        toy.step(*arguments).fails(message, code=2)
    assert not (toy.root / ".store").exists()


def test_a_missing_upstream_is_told_and_opens_no_run(toy: Any) -> None:
    toy.step("second").fails("python step.dev.py first")
    toy.step("third", "--run", "20260101T000000000Z-abcdef").fails("python -m pipeline runs")
    assert toy.look("runs").out == "no runs yet\n"


def test_values_are_read_by_their_type(toy: Any) -> None:
    steps = read_steps(toy.root / "steps")
    texts = {"first.text=1": "1", "first.text=": "", "first.text=a=b [c": "a=b [c", "text=x": "x"}
    for typed, text in texts.items():
        assert step_commands.parse_overrides([typed], "first", steps) == {"first": {"text": text}}
    assert step_commands.parse_overrides(["first.times=2"], "first", steps) == {"first": {"times": 2}}
    overrides = step_commands.parse_overrides(["third.score=1e-3"], None, steps)
    assert steps["third"].resolve(overrides["third"])["score"] == 0.001


def test_help_shows_the_steps_and_a_steps_own_parameters(toy: Any) -> None:
    outcome = toy.step("--help")
    assert outcome.code == 0
    assert re.search(r"first +The first step\n +second +The second step\n", outcome.out)
    assert "--set STEP.NAME=VALUE" in outcome.out
    outcome = toy.step("second", "--help")
    assert outcome.code == 0
    assert "The second step\n\nreads   letters\nwrites  words\n" in outcome.out
    assert '\n  act: str = "go"\n      what to do; one of go, fail, refuse' in outcome.out
    assert "\n  loud: bool = false\n      in capital letters\n" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80
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
    demo_config = ("--config", "configs/demo.yaml")
    assert ran.step("third", *demo_config).code == 0
    assert len(ran.manifest(demo)["steps"]["third"]["earlier_attempts"]) == 1
    assert set(ran.manifest(manifest["run"])["steps"]) == {"first", "second"}
    ran.step("second", *demo_config, "--run", manifest["run"]).fails("belongs to the pipeline 'other'", code=2)
    assert ran.step("second", "--run", demo).code == 0


def test_with_a_config_latest_counts_the_runs_of_its_pipeline(ran: Any, tmp_path: Path) -> None:
    demo = ran.manifest()["run"]
    other_config(ran)
    assert ran.step("--config", "configs/other.yaml").code == 0
    other = ran.manifest()["run"]
    of_demo = ("--config", "configs/demo.yaml")
    assert ran.step("second", *of_demo, "--run", "latest", "--input", "letters=latest").code == 0
    assert ran.manifest(demo)["steps"]["second"]["chosen"] == {"letters": demo}
    assert ran.step("third", "--run", "latest").log.splitlines()[0] == "config configs/other.yaml"
    assert ran.look("get", "latest/book", str(tmp_path / "book"), *of_demo).code == 0
    ran.look("get", "latest~1/book", str(tmp_path / "none")).fails("'other' has fewer")
    assert (ran.manifest("latest")["run"], ran.manifest("latest", *of_demo)["run"]) == (other, demo)


def test_only_a_first_step_or_none_opens_a_run(ran: Any) -> None:
    counts = []
    for arguments in (["second"], ["third"], ["first"], [], ["first", "--run", "latest"]):
        ran.step(*arguments)
        counts.append(len(ran.runs()))
    assert counts == [1, 1, 2, 3, 3]


def test_without_config_the_config_is_named_first_and_another_of_the_newest_run_is_asked_for(ran: Any) -> None:
    assert ran.step("second").log.splitlines()[0] == "config configs/demo.yaml"
    other_config(ran)
    assert not ran.step("first", "--config", "configs/other.yaml").log.startswith("config ")
    count = len(ran.runs())
    for arguments in ([], ["first"], ["first", "--force"]):
        ran.step(*arguments).fails("do:       --config configs/other.yaml, or --config configs/demo.yaml", code=2)
    assert len(ran.runs()) == count
    assert ran.step("second").log.splitlines()[0] == "config configs/other.yaml", "the joined run's"
    assert ran.step("--config", "configs/demo.yaml").code == 0
    assert ran.step().code == 0


def test_a_config_is_found_from_where_the_user_stands_and_noted_relative_to_the_project(
    ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_config(ran)
    elsewhere = tmp_path / "mine.yaml"
    shutil.copy(ran.root / "configs" / "other.yaml", elsewhere)
    monkeypatch.chdir(ran.root / "configs")
    assert step_commands.main("dev", ["first", "--config", "other.yaml"], ran.root) == 0
    assert ran.manifest()["config_file"] == "configs/other.yaml"
    monkeypatch.chdir(tmp_path)
    assert step_commands.main("dev", ["first", "--config", "mine.yaml"], ran.root) == 0
    assert ran.manifest()["config_file"] == str(elsewhere)
    assert step_commands.main("dev", ["second"], ran.root) == 0


# --- looking ---------------------------------------------------------------------------------------------------------


def test_show_prints_the_manifest_with_the_paths_of_now(ran: Any) -> None:
    manifest = ran.manifest()  # the project was copied after it ran
    kept = ran.root / ".store/default/dev/runs" / manifest["run"] / "manifest.json"
    places = [step[name] for step in manifest["steps"].values() for name in ("notebook", "report")]
    places += [artifact["url"] for step in manifest["steps"].values() for artifact in step["outputs"].values()]
    assert len(places) == 10
    for place in places:
        path = Path(unquote(urlsplit(place).path))
        assert path.is_relative_to(ran.root)
        assert path.is_file()
    assert ran.look("verify").code == 0, "which renders the manifest anew"
    assert json.loads(kept.read_text()) == manifest == ran.manifest(manifest["run"])
    assert manifest["schema"] == SCHEMA
    text = ran.look("show").out
    assert f"run       {manifest['run']}\npipeline  toy, dev, zone default\nconfig    configs/demo.yaml" in text
    assert re.search(r"^  <-  letters  [0-9a-f]{12}  2  files +0\.0 MB\n  ->  words ", text, re.MULTILINE)
    assert re.search(r"^ +length  5$", text, re.MULTILINE)
    assert manifest["steps"]["second"]["report"] in text


def test_runs_are_listed_newest_first_and_a_broken_one_hides_no_other(ran: Any) -> None:
    first = ran.manifest()["run"]
    ran.step("--set", "third.score=0.6")
    second = ran.manifest()["run"]
    broken, newer = new_run_id(), new_run_id()
    for run, content in ((broken, "[]"), (newer, json.dumps({"schema": 99}))):
        folder = ran.root / ".store/default/dev/runs" / run
        folder.mkdir()
        (folder / "run.json").write_text(content)
    (ran.root / ".store/default/dev/runs" / new_run_id()).mkdir()
    rows = ran.json("runs")
    assert [row["run"] for row in rows] == [*sorted([broken, newer], reverse=True), second, first]
    assert {row["run"] for row in rows if row["error"]} == {broken, newer}
    steps = dict.fromkeys(("first", "second", "third"), "succeeded")
    assert (rows[3]["mode"], rows[3]["pipeline"], rows[3]["steps"]) == ("dev", "toy", steps)
    assert (rows[2]["before"], rows[2]["changed"]) == (first, ["score"])
    lines = ran.look("runs").out.splitlines()
    assert lines[0].split() == ["run", "age", "mode", "pipeline", "status", "score", "gate", "changed"]
    cells = [line.split() for line in lines[1:5]]
    assert [(each[2], each[4]) for each in cells] == [("dev", "unreadable")] * 2 + [("dev", "complete")] * 2
    assert [each[3:] for each in cells[2:]] == [
        ["toy", "complete", each, "none", last] for each, last in (("0.600", "score"), ("0.500", "-"))
    ]
    for row, line in zip(rows, lines[1:5], strict=True):
        assert line.startswith(row["name"])
        if not row["error"]:
            assert ran.json("show", row["name"])["run"] == row["run"], "the short name is a run's name"
    assert any("newer version" in line for line in lines[5:])


def test_status_says_what_is_stale_and_why(ran: Any) -> None:
    assert ran.states() == {"first": "done", "second": "done", "third": "done"}
    config = ran.root / "configs" / "demo.yaml"
    config.write_text(config.read_text().replace("text: hallo", "text: hello"))
    notebook = ran.root / "steps" / "second.ipynb"
    notebook.write_text(notebook.read_text().replace("so far so good", "so far so bad"))
    shutil.rmtree(ran.root / ".store/default/dev/artifacts/page")
    rows = ran.json("status")["steps"]
    assert rows == [
        {"step": "first", "state": "stale", "why": "parameters changed: text"},
        {"step": "second", "state": "stale", "why": "the notebook changed"},
        {"step": "third", "state": "stale", "why": "its outputs are gone from the store"},
    ]
    assert "\n  second  stale  the notebook changed\n" in ran.look("status").out


def test_status_does_not_hold_the_command_lines_values_against_a_run(ran: Any) -> None:
    ran.step("--set", "second.loud=true", "--set", "first.text=hallo")
    assert ran.states() == {"first": "done", "second": "done", "third": "done"}
    ran.step("second", "--set", "second.loud=false")
    _, second, third = ran.json("status")["steps"]
    assert second["state"] == "done"
    assert (third["state"], third["why"]) == ("stale", "inputs changed")


def test_what_a_run_was_opened_with_holds_for_its_later_steps(toy: Any) -> None:
    assert toy.step("first", "--set", "second.loud=true").code == 0
    assert "--set third.… is not used" in toy.step("second", "--set", "third.minimum=0.1").log
    assert toy.manifest()["steps"]["second"]["parameters"]["loud"] is True


def test_the_graph_is_drawn_from_the_files(toy: Any) -> None:
    text = toy.look("graph").out
    assert text.startswith("flowchart LR\n")
    for line in ("first --> letters([letters])", "letters --> second", "words --> third", "third --> page([page])"):
        assert f"    {line}\n" in text
    steps = toy.json("graph")
    assert [step["step"] for step in steps] == ["first", "second", "third"]
    assert steps[2]["reads"] == ["letters", "words"]
    assert steps[0]["parameters"][1]["help"] == "how often; at least 1"


# --- as processes ----------------------------------------------------------------------------------------------------


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_scripts_and_the_module_are_these_command_lines(ran: Any) -> None:
    done = python(ran.root, "step.dev.py")
    assert (done.returncode, done.stdout.count("reused")) == (0, 3)
    assert f"page     {ran.root}/out/dev/toy/page" in done.stdout
    done = python(ran.root, "step.prod.py")
    assert (done.returncode, done.stdout) == (1, "")
    assert "\nerror: prod needs a commit\n" in done.stderr
    done = python(ran.root / "steps", "-m", "pipeline", "status", "--json")
    assert json.loads(done.stdout)["steps"][0]["state"] == "done"
    done = python(Path("/"), "-m", "pipeline", "runs")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: this is not a project's folder")
    for arguments in (["step.dev.py"], ["step.prod.py"], ["-m", "pipeline"]):
        done = python(ran.root, *arguments, "--version")
        assert (done.returncode, re.fullmatch(r"detection-pipeline \S+\n", done.stdout) is not None) == (0, True)


def test_outside_of_the_virtual_environment_one_line_says_to_activate_it(
    ran: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate = "activate the virtual environment (source .venv/bin/activate), or run .venv/bin/python"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # stands for the checkout that holds the scripts
    for arguments in (["step.dev.py", "--force"], ["-m", "pipeline", "status"]):
        done = python(ran.root, "-S", *arguments)  # without site-packages
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "does not have " in done.stderr
        assert done.stderr.endswith(f"{activate}\n")
    monkeypatch.setattr(step_commands, "environment", lambda: {"python": "3.11.7", "torch": "not installed"})
    ran.step("--force").fails("packages are missing: torch", activate, code=2)
    assert len(ran.runs()) == 1


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
    shell = ["bash", "-o", "pipefail", "-c", command]
    done = subprocess.run(shell, cwd=ran.root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


def test_a_store_that_cannot_be_written_is_told(ran: Any) -> None:
    shutil.rmtree(ran.root / ".store")
    (ran.root / ".store").write_text("in the way")
    ran.step("first").fails("error: the store could not list a folder: Not a directory")


def test_on_a_terminal_there_is_one_live_line_a_step(ran: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    command = f"{sys.executable} step.dev.py second --force; {sys.executable} step.dev.py third --force"
    for name, value in {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(name, value)
    terminal = ["script", "-qec", command, "/dev/null"]
    done = subprocess.run(terminal, cwd=ran.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "\x1b[?25l" in done.stdout, "the cursor is hidden"
    assert "\x1b[?25h" in done.stdout, "and comes back"
    assert re.search(r"second  cell \d/9", done.stdout)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", done.stdout)
    assert re.search(r"second  succeeded +\d\.\d s  length 5", plain)
    assert len(re.findall(r"third   succeeded", plain)) == 1
    assert len(re.findall(r"second  succeeded", plain)) == 1
