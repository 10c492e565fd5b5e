"""Notebooks as they ran, opened and executed by a real kernel from their own folder, as Jupyter does it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient


def opened(toy: Any, *arguments: str) -> dict[str, Any]:
    outcome = toy.look("open", *arguments, "--json")
    assert (outcome.code, outcome.log) == (0, "")
    content: dict[str, Any] = json.loads(outcome.out)
    return content


def execute(place: str) -> str:
    """Run all cells of a notebook in a kernel that works in the notebook's folder; what they printed."""
    path = Path(place)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    return "".join(
        output.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs
    )


def made(toy: Any, run: str, attempt: str, entity: str) -> str:
    """What an opened notebook wrote."""
    folder = toy.root / ".cache" / "opened" / run / attempt / "outputs" / entity
    [file] = [path for path in folder.rglob("*.txt") if path.is_file()]
    return file.read_text()


def stored(toy: Any) -> list[Path]:
    return sorted(path for path in (toy.root / ".store").rglob("*") if path.is_file())


def test_after_newer_runs_and_edits_it_has_the_inputs_and_parameters_of_then(toy: Any) -> None:
    assert toy.step("--set", "first.text=then", "--set", "second.loud=true").code == 0
    run = toy.manifest()["run"]
    cells = toy.cells_of("second")
    toy.notebook("second", [*cells[:7], ("", 'text = "edited"'), *cells[7:]])
    assert toy.step("--set", "first.text=now").code == 0
    before = stored(toy)
    content = opened(toy, run, "second")
    place = str(toy.root / "out" / "opened" / run / "second.001.ipynb")
    assert content == {"notebook": place, "attempt": f"{run}/second/1", "fresh": True, "changed": True}
    for _ in range(2):  # as often as one likes
        said = execute(content["notebook"])
        assert made(toy, run, "second.001", "words") == "THEN"
    assert "opened by hand: the outputs stay in" in said
    assert "publish with" not in said, "what a step publishes is its notebook in steps/"
    assert stored(toy) == before
    assert len(toy.runs()) == 2
    assert toy.manifest()["run"] != run


def test_what_a_person_did_in_it_stays(ran: Any) -> None:
    content = opened(ran, "latest", "third")
    path = Path(content["notebook"])
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].source = '(step.work / "mine.txt").write_text("mine")'
    nbformat.write(notebook, path)
    edited = path.read_bytes()
    outcome = ran.look("open", "latest", "third")
    assert "it was opened before, and keeps your changes" in outcome.out
    assert path.read_bytes() == edited
    execute(str(path))
    assert (ran.root / ".cache/opened" / ran.manifest()["run"] / "third.001" / "mine.txt").read_text() == "mine"
    path.unlink()
    assert opened(ran, "latest", "third")["fresh"]


def test_the_printed_lines(ran: Any) -> None:
    run = ran.manifest()["run"]
    for name in ("second", "third"):
        (ran.root / "steps" / f"{name}.ipynb").unlink()
    lines = ran.look("open", "latest", "second").out.splitlines()
    place = f"out/opened/{run}/second.001.ipynb"
    changed = "the step has changed since: its cells run with today's code; with the code of then: "
    assert lines[:2] == [f"{run}/second/1 is in {place}", f"{changed}python -m pipeline rerun {run}"]
    programs = Path(sys.executable).parent
    assert ("make .venv/.lab" in lines[2]) == (not (programs / "jupyter-lab").exists())
    command = shlex.split(lines[-1])
    assert command[:4] == [str(programs / "jupyter"), "lab", "--ip", "127.0.0.1"]
    assert ("--allow-root" in command) == (os.geteuid() == 0)
    assert command[-1] == place, "nothing on the way is hidden, which Jupyter would refuse to show"
    command = [sys.executable, "-m", "pipeline", "open", "latest", "second"]
    below = subprocess.run(command, cwd=ran.root / "steps", capture_output=True, text=True, check=True).stdout
    assert Path(shlex.split(below.splitlines()[-1])[-1]) == ran.root / place, "from any folder of the project"


def test_a_step_without_inputs_and_a_reused_attempt(ran: Any) -> None:
    origin = ran.manifest()["run"]
    execute(opened(ran, "latest", "first")["notebook"])
    assert made(ran, origin, "first.001", "letters") == "hallo"
    assert ran.step().code == 0
    content = opened(ran, "latest", "second")
    assert content["attempt"] == f"{ran.manifest()['run']}/second/1" != f"{origin}/second/1"
    kept = json.loads((ran.root / f".store/default/dev/runs/{origin}/notebooks/second.001.ipynb").read_text())
    assert json.loads(Path(content["notebook"]).read_text())["cells"][1:] == kept["cells"], "those of the one that ran"
    execute(content["notebook"])


def test_an_attempt_of_prod_and_a_notebook_of_an_older_format(toy: Any) -> None:
    path = toy.root / "steps" / "first.ipynb"
    notebook = json.loads(path.read_text())
    notebook["nbformat_minor"] = 4
    for cell in notebook["cells"]:
        cell.pop("id")
    path.write_text(json.dumps(notebook))
    toy.commit()
    assert toy.step("first", mode="prod").code == 0
    run = toy.manifest("--mode", "prod")["run"]
    content = opened(toy, "latest", "first", "--mode", "prod")
    nbformat.validate(json.loads(Path(content["notebook"]).read_text()))
    execute(content["notebook"])
    assert made(toy, run, "first.001", "letters") == "servus"


def test_what_is_not_there_is_said(ran: Any) -> None:
    run = ran.manifest()["run"]
    kept = ran.root / f".store/default/dev/runs/{run}/notebooks/third.001.ipynb"
    content = kept.read_bytes()
    kept.unlink()
    assert "no notebook is kept" in ran.look("open", "latest", "third").log
    kept.write_bytes(content)
    [marker] = (ran.root / ".store/default/dev/artifacts/words").iterdir()
    marker.unlink()
    ran.look("open", "latest", "third").fails(f"the artifact words {marker.name[:12]} is not in the store")
    assert not (ran.root / "out" / "opened").exists()
