"""The whole runtime with its store on S3, from two checkouts as from two machines."""

from __future__ import annotations

import json
import secrets
import signal
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def machines(s3: str, new_toy: Any, tmp_path: Path) -> tuple[Any, Any]:
    """Two checkouts of one project that name one store."""
    store = f"{s3}/{secrets.token_hex(6)}"
    found = []
    for name in ("here", "there"):
        toy = new_toy(tmp_path / name)
        config = toy.root / "configs" / "demo.yaml"
        config.write_text(f"{config.read_text()}store: {store}\n")
        found.append(toy)
    return found[0], found[1]


def test_a_run_made_on_one_machine_is_known_on_the_other(machines: tuple[Any, Any], in_process: None) -> None:
    here, there = machines
    outcome = here.step()
    assert outcome.code == 0, outcome.log
    manifest = here.manifest()
    for step in manifest["steps"].values():
        assert all(artifact["url"].startswith("s3://") for artifact in step["outputs"].values())
    assert (here.root / "out/dev/toy/book/deep/book.txt").read_text() == "hallo"
    assert there.manifest() == manifest
    assert there.states() == {"first": "done", "second": "done", "third": "done"}
    outcome = there.step()
    assert outcome.code == 0
    assert outcome.out.count(f"from {manifest['run']}/") == 3, "what the other machine made is reused"
    assert (there.root / "out/dev/toy/book/deep/book.txt").read_text() == "hallo"
    assert there.look("verify").out.startswith("all is as it was recorded: 2 runs, 4 artifacts")
    assert "there is nothing to free" in there.look("gc").out
    assert "words" in there.look("lineage", "book").out
    assert len(here.runs()) == 2
    assert there.step("first", "--set", "text=anew").code == 0
    outcome = here.step("third", "--force", "--run", manifest["run"])
    assert outcome.code == 0, outcome.log
    assert there.step("first", "--set", "text=anew", "--run", manifest["run"]).code == 0
    here.step("third", "--force", "--run", manifest["run"]).fails("third do not agree: second is out of date")


@pytest.mark.slow
def test_the_notebook_of_a_run_is_kept_on_s3(machines: tuple[Any, Any]) -> None:
    here, there = machines
    assert here.step().code == 0
    assert all(step["notebook"].startswith("s3://") for step in there.manifest()["steps"].values())
    assert "so far so good" in there.look("log", "second").out
    assert there.look("open", "latest", "second").code == 0


@pytest.mark.slow
def test_a_step_that_runs_on_another_machine_is_told_and_left_alone(machines: tuple[Any, Any]) -> None:
    here, there = machines
    process = here.spawn("--set", "second.act=sleep")
    here.kernel()
    running = here.manifest()["run"]
    seen = json.loads(there.look("status", "--json").out)["steps"][1]
    assert (seen["state"], there.look("status").code) == ("running", 0)
    other = there.spawn("--set", "second.act=sleep")
    there.kernel()
    assert there.manifest()["run"] != running, "what may be at work elsewhere is not continued"
    for each in (process, other):
        each.send_signal(signal.SIGINT)
        each.communicate(timeout=60)
    assert [row["steps"]["second"] for row in here.runs()] == ["interrupted", "interrupted"]


@pytest.mark.slow
def test_a_store_that_goes_away_while_a_step_runs_loses_nothing(machines: tuple[Any, Any], s3: str) -> None:
    here, _ = machines
    assert here.step("first").code == 0
    before = here.manifest()
    process = here.spawn("second", "--set", "act=sleep", AWS_ENDPOINT_URL="http://127.0.0.1:9")
    _, told = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "error: the store could not" in told
    assert "Traceback" not in told
    assert here.manifest() == before
    assert here.step("second").code == 0
