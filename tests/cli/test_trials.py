"""Trials are ordinary runs: data is made once, what has ended is not run again, and a failure stops no other trial."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.usefixtures("in_process")

SWEEP = ("sweep", "configs/demo.yaml")


def tried(toy: Any, *over: str) -> Any:
    return toy.look(*SWEEP, *(f"--over={text}" for text in over))


def states(toy: Any) -> list[dict[str, str]]:
    """The state of each step, of each run."""
    return [row["steps"] for row in toy.runs()]


def test_a_trial_is_a_run_with_values_set_and_what_they_leave_as_it_is_is_reused(toy: Any) -> None:
    outcome = tried(toy, "third.score=0.1,0.2", "second.loud=true")
    assert outcome.code == 0
    assert "trial 2 of 2  third.score=0.2\nrun 2" in outcome.log
    assert states(toy) == [
        dict.fromkeys(("first", "second", "third"), "succeeded"),
        {"first": "reused", "second": "reused", "third": "succeeded"},
    ]
    assert toy.manifest()["config"]["set"] == {"third": {"score": 0.2}, "second": {"loud": True}}
    assert not (toy.root / "out").exists(), "trials do not replace each other's deliverables"


def test_what_has_ended_is_found_by_any_sweep_and_by_no_other_code(toy: Any) -> None:
    assert tried(toy, "first.times=1,2").code == 0
    outcome = tried(toy, "first.times=2,3,1")
    assert (outcome.code, outcome.log.count("has ended"), len(toy.runs())) == (0, 2, 3)
    notebook = toy.root / "steps" / "third.ipynb"
    notebook.write_text(notebook.read_text().replace("step.commit", "step . commit"))
    outcome = tried(toy, "first.times=1")
    assert ("has ended" in outcome.log, len(toy.runs())) == (False, 4)
    assert states(toy)[-1] == {"first": "reused", "second": "reused", "third": "succeeded"}


def test_a_run_of_the_same_command_line_is_a_trial_too(toy: Any) -> None:
    assert toy.step("--config", "configs/demo.yaml", "--set", "first.times=2").code == 0
    assert "has ended" in tried(toy, "first.times=2").log
    assert len(toy.runs()) == 1


def test_a_failed_trial_is_told_and_the_sweep_goes_on(toy: Any) -> None:
    outcome = tried(toy, "second.act=fail,go")
    assert outcome.code == 1
    assert "no such luck" in outcome.log
    assert "trial 1: second: " in outcome.out
    assert "no such luck" in outcome.out
    assert [row["state"]["word"] for row in toy.runs()] == ["failed", "complete"]
    again = tried(toy, "second.act=fail,go")
    assert ("continued" in again.log, again.log.count("has ended"), len(toy.runs())) == (True, 1, 2)


def test_a_missed_gate_is_told_and_not_judged_again(toy: Any) -> None:
    for is_again in (False, True):
        outcome = tried(toy, "third.minimum=0.9,0.1")
        assert outcome.code == 1
        assert "trial 1: third: the quality gate is not passed: score 0.5, at least 0.9" in " ".join(
            outcome.out.split()
        )
        assert outcome.log.count("has ended") == (2 if is_again else 0)
    assert len(toy.runs()) == 2


def test_prod_trials_need_a_clean_commit(toy: Any) -> None:
    toy.commit()
    (toy.root / "configs" / "demo.yaml").write_text("name: toy\n")
    outcome = toy.look(*SWEEP, "--over=first.times=1", "--mode", "prod")
    assert outcome.code in (1, 2)
    assert "commit" in outcome.log
    assert not (toy.root / ".store").exists()


def test_all_trials_are_compared_with_what_was_there_before_the_sweep(toy: Any) -> None:
    notebook = toy.root / "steps" / "third.ipynb"
    notebook.write_text(notebook.read_text().replace('\\"page\\"])', '\\"page\\"], earlier=[\\"words\\"])'))
    assert toy.step().code == 0
    words = toy.manifest()["steps"]["second"]["outputs"]["words"]["digest"]
    assert tried(toy, "first.text=one,two").code == 0
    *_, first, second = (row["run"] for row in toy.runs())
    for run in (first, second):
        assert toy.manifest(run)["steps"]["third"]["inputs"]["earlier_words"]["digest"] == words
    command = ("--config", "configs/demo.yaml", "--set", "first.text=two", "--earlier-than", first)
    assert toy.step(*command).code == 0
    assert set(toy.statuses().values()) == {"reused"}
