"""What a run came to: its state, its leading metric and its gate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cases import cases
from records import artifact, attempt, failed, reused, run_id, run_of

from pipeline.runtime.manifest import INTERRUPTED, RUNNING, RunManifest
from pipeline.runtime.process import Process, this_process
from pipeline.runtime.run_summary import (
    LeadingMetric,
    gate_outcome,
    leading_metric,
    main_metrics,
    run_state,
    shortcomings,
)

STEPS = ("load", "fit", "judge")
LOAD, FIT, JUDGE = (attempt(step) for step in STEPS)
GONE = replace(this_process(), pid=2**22 + 1)  # no process has this number
RUNS = replace(JUDGE, status=RUNNING, ended="", process=this_process())


@cases(
    "manifest, state",
    {
        "each step succeeded": (run_of(1, LOAD, FIT, JUDGE), ("complete", "")),
        "one was reused": (run_of(1, LOAD, reused(FIT, run_id(0)), JUDGE), ("complete", "")),
        "one failed": (run_of(1, LOAD, failed("fit")), ("failed", "fit")),
        "it failed at first": (run_of(1, LOAD, failed("fit"), replace(FIT, attempt=2), JUDGE), ("complete", "")),
        "it failed when it was run again": (run_of(1, LOAD, FIT, JUDGE, failed("fit", attempt=2)), ("failed", "fit")),
        "it was stopped": (run_of(1, LOAD, replace(FIT, status=INTERRUPTED)), ("interrupted", "fit")),
        "it runs": (run_of(1, LOAD, FIT, RUNS), ("running", "judge")),
        "its process is gone": (run_of(1, LOAD, FIT, replace(RUNS, process=GONE)), ("killed", "judge")),
        "its process is on another machine": (
            run_of(1, replace(RUNS, process=Process("far", "", 1))),
            ("running", "judge"),
        ),
        "two failed": (
            run_of(1, failed("load", started="2026-01-01T00:00:09.000Z"), failed("fit")),
            ("failed", "load"),
        ),
        "steps are left": (run_of(1, LOAD), ("incomplete", "")),
        "its process is between two steps": (
            run_of(1, LOAD, asked=STEPS, process=this_process()),
            ("running", "fit"),
        ),
        "the next step was not asked for": (
            run_of(1, LOAD, asked=("load",), process=this_process()),
            ("incomplete", ""),
        ),
        "its process went between two steps": (run_of(1, LOAD, asked=STEPS, process=GONE), ("incomplete", "")),
        "nothing ran": (run_of(1), ("incomplete", "")),
        "of a step that is no more": (run_of(1, LOAD, FIT, JUDGE, failed("old")), ("complete", "")),
    },
)
def test_the_state_of_a_run_is_that_of_the_step_it_is_at(manifest: RunManifest, state: tuple[str, str]) -> None:
    found = run_state(manifest, STEPS)
    assert (found.word, found.step) == state


SHORT = {
    "complete": (run_of(1, LOAD, FIT, JUDGE), []),
    "failed": (run_of(1, LOAD, failed("fit")), ["fit failed: ValueError: no such luck", "judge has not run"]),
    "failed when run again": (
        run_of(1, LOAD, FIT, JUDGE, failed("judge", attempt=2)),
        ["judge failed: ValueError: no such luck"],
    ),
    "stopped": (run_of(1, LOAD, FIT, replace(JUDGE, status=INTERRUPTED)), ["judge was stopped"]),
    "running": (run_of(1, LOAD, FIT, RUNS), ["judge has not ended"]),
    "killed": (run_of(1, LOAD, FIT, replace(RUNS, process=GONE)), ["judge was killed"]),
}


@cases("manifest, lines", SHORT)
def test_what_a_run_lacks_is_told_by_step(manifest: RunManifest, lines: list[str]) -> None:
    assert shortcomings(manifest, STEPS) == lines


def judged(metrics: dict[str, Any], **changes: Any) -> RunManifest:
    return run_of(1, LOAD, FIT, replace(JUDGE, metrics=metrics, **changes))


@cases(
    "manifest, metric",
    {
        "with an interval": (
            judged({"mAP": 0.7, "mAP_low": 0.6, "mAP_high": 0.8}),
            LeadingMetric("mAP", 0.7, 0.6, 0.8),
        ),
        "without one": (judged({"mAP": 0.7, "images": 3}), LeadingMetric("mAP", 0.7, None, None)),
        "with one that is not defined": (
            judged({"mAP": 0.7, "mAP_low": None, "mAP_high": None}),
            LeadingMetric("mAP", 0.7, None, None),
        ),
        "not defined": (judged({"mAP": None}), LeadingMetric("mAP", None, None, None)),
        "below the gate": (
            judged({"mAP": 0.1}, status="failed", error_kind="GateError"),
            LeadingMetric("mAP", 0.1, None, None),
        ),
        "of the success before a failure": (
            run_of(1, replace(JUDGE, metrics={"mAP": 0.7}), failed("judge", attempt=2)),
            LeadingMetric("mAP", 0.7, None, None),
        ),
        "of another step": (run_of(1, replace(FIT, metrics={"loss": 1.0})), None),
        "none": (run_of(1), None),
    },
)
def test_the_leading_metric_is_the_first_of_the_last_step(manifest: RunManifest, metric: LeadingMetric | None) -> None:
    assert leading_metric(manifest, STEPS[-1]) == metric


PASSED = replace(JUDGE, limits={"a": True})
MODEL, NEWER = (attempt("fit", (), (artifact("model", str(number)),), attempt=number) for number in (1, 2))
OF_MODEL = attempt("judge", (artifact("model"),), judged="model", limits={"a": True})
CHOSEN = replace(OF_MODEL, chosen={"model": run_id(0)})


@pytest.mark.parametrize(
    ("manifest", "outcome"),
    [
        pytest.param(judged({}, limits={"a": True, "b": None}), "passed", id="passed"),
        pytest.param(judged({}, limits={"a": None}), "none", id="no limit that decides"),
        pytest.param(judged({}), "none", id="no limit"),
        pytest.param(judged({"mAP": 0.7}, status="failed", error_kind="GateError"), "failed", id="failed"),
        pytest.param(judged({"mAP": 0.7}, schema=3), None, id="an old record does not say"),
        pytest.param(run_of(1, LOAD, failed("fit", error_kind="GateError")), "failed", id="of an earlier step"),
        pytest.param(run_of(1, LOAD, failed("fit")), None, id="a step failed otherwise"),
        pytest.param(run_of(1, LOAD, FIT, PASSED, failed("judge", attempt=2)), None, id="it failed when run again"),
        pytest.param(run_of(1, LOAD, FIT, PASSED, failed("fit", attempt=2)), None, id="an earlier step failed since"),
        pytest.param(run_of(1, LOAD, FIT, PASSED, replace(RUNS, attempt=2)), None, id="it runs again"),
        pytest.param(run_of(1, MODEL, OF_MODEL), "passed", id="of the model that the run has"),
        pytest.param(run_of(1, MODEL, OF_MODEL, NEWER), None, id="of a model before"),
        pytest.param(run_of(1, MODEL, CHOSEN, NEWER), "passed", id="of a model chosen by hand"),
    ],
)
def test_the_gate_is_what_the_record_says(manifest: RunManifest, outcome: str | None) -> None:
    assert gate_outcome(manifest, STEPS) == outcome


def test_the_main_metrics_are_the_first_two_without_the_ends_of_intervals() -> None:
    metrics = {"mAP": 0.71891, "mAP_low": 0.6, "mAP_high": None, "kind": "x", "images": 3}
    record = replace(JUDGE, metrics=metrics)
    assert main_metrics(record) == ["mAP 0.7189", "kind x"]
    assert main_metrics(record, numbers_only=True) == ["mAP 0.7189"]
