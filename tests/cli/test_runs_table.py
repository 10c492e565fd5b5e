"""The table of runs: its width, its columns, sorting and filtering."""

from __future__ import annotations

import csv
import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from records import artifact, attempt, failed, run_id, run_of

from pipeline.cli.run_rows import COLUMNS, RunRow, filter_rows, metric_name, run_rows, sort_rows, with_ends
from pipeline.cli.runs_table import WIDTH, runs_csv, runs_table
from pipeline.errors import UsageError
from pipeline.runtime.engines import ray
from pipeline.runtime.engines.job_files import JobFiles
from pipeline.runtime.engines.ray_cluster import ADDRESS, RayCluster, RayJob, UnreachableError
from pipeline.runtime.manifest import RunManifest
from pipeline.runtime.process import Process, this_process
from pipeline.runtime.run_summary import LeadingMetric, RunState
from pipeline.runtime.store.artifact_store import Store

STEPS = ("data_load", "model_train", "model_eval")
DATA = artifact("data")
LOAD = attempt("data_load", (), (DATA,))
TRAIN = attempt("model_train", (DATA,), parameters={"epochs": 1, "learning_rate": 0.1, "seed": 0})


def judged(value: Any = 0.7189, *, limits: tuple[str, ...] = ("mAP",), **metrics: Any) -> Any:
    metrics = {"mAP": value, "mAP_low": 0.681, "mAP_high": 0.752, **metrics}
    return replace(attempt("model_eval", (DATA,), metrics=metrics), limits=dict.fromkeys(limits, True))


def trained(**parameters: Any) -> Any:
    return replace(TRAIN, parameters={**TRAIN.parameters, **parameters})


RUNS: list[tuple[str, str, RunManifest | str]] = [
    ("dev", run_id(1), run_of(1, LOAD, TRAIN, judged(), pipeline="demo")),
    ("dev", run_id(2), run_of(2, LOAD, trained(epochs=2), failed("model_eval"), pipeline="demo")),
    ("dev", run_id(3), run_of(3, LOAD, failed("model_train", error_kind="GateError"), pipeline="street")),
    ("dev", run_id(4), run_of(4, LOAD, trained(epochs=2, seed=1), judged(0.5, limits=()), pipeline="demo")),
    ("dev", run_id(5), "a record cannot be read: it is no JSON"),
    ("prod", run_id(6), run_of(6, LOAD, TRAIN, judged(0.9, mAP_low=None, mAP_high=None), mode="prod", pipeline="demo")),
]
ROWS = run_rows(RUNS, STEPS)
GONE = replace(this_process(), began="1")


@cases(
    "watcher, job, state",
    {
        "a command follows it": (this_process(), "FAILED", "running"),
        "its job goes on": (GONE, "RUNNING", "running"),
        "its job has ended": (GONE, "FAILED", "killed"),
        "no job is known": (GONE, "", "killed"),
        "it may be followed elsewhere": (Process("far", "", 1), "", "unknown"),
        "the cluster does not answer": (GONE, None, "unknown"),
    },
)
def test_an_abandoned_attempt_of_an_engine_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Process, job: str | None, state: str
) -> None:
    def answer(_: RayCluster, name: str) -> RayJob | None:
        if job is None:
            raise UnreachableError("the cluster does not answer")
        return RayJob(job, "", "", None) if job and name.endswith("-1") else None

    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:9")
    monkeypatch.setattr(RayCluster, "job", answer)
    store, fit = Store(str(tmp_path)), replace(TRAIN, status="running", ended="", engine="ray")
    JobFiles(store, run_id(1), fit).watch(watcher)
    ended = run_of(2, LOAD, fit, replace(TRAIN, attempt=2), judged())
    found = with_ends(store, [(run_id(1), run_of(1, LOAD, fit)), (run_id(2), ended), (run_id(3), "unreadable")])
    newest, other, row = run_rows([("dev", *each) for each in found], STEPS)
    assert (row.state, row.steps) == (RunState(state, "model_train"), {"data_load": "succeeded", "model_train": state})
    assert (other.state.word, newest.state.word) == ("complete", "unreadable")
    assert f"{state} " in runs_table([row], "mAP")


def test_no_cluster_is_asked_where_every_attempt_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "are_at_work", lambda *_: pytest.fail("it was asked"))
    runs = [(run, manifest) for _, run, manifest in RUNS]
    assert with_ends(Store(str(tmp_path)), runs) == runs


def numbers(rows: list[RunRow]) -> list[int]:
    """Of the made runs."""
    ids = {run: number for number, (_, run, _) in enumerate(RUNS, 1)}
    return [ids[row.run] for row in rows]


def test_a_run_is_compared_with_the_one_before_of_its_pipeline_and_mode() -> None:
    assert numbers(ROWS) == [6, 5, 4, 3, 2, 1], "newest first"
    before = {row.run: (row.before, row.changed) for row in ROWS}
    assert before[run_id(1)] == ("", None)
    assert before[run_id(2)] == (run_id(1), ("epochs",))
    assert before[run_id(3)] == ("", None), "the first of its pipeline"
    assert before[run_id(4)] == (run_id(2), ("seed",))
    assert before[run_id(6)] == ("", None), "the first in prod"


def test_the_table_shows_what_each_run_came_to() -> None:
    rows = [
        replace(row, age=age) for row, age in zip(ROWS, (5, 61, 7200, 49 * 3600, 30 * 86400, 400 * 86400), strict=True)
    ]
    names = {row.run: row.name for row in rows}
    assert runs_table(rows, "mAP").splitlines() == [
        "run    age  mode  pipeline  status              mAP              gate    changed",
        f"{names[run_id(6)]}    5s  prod  demo      complete            0.900            passed  -",
        f"{names[run_id(5)]}    1m  dev   -         unreadable          -                -       -",
        f"{names[run_id(4)]}    2h  dev   demo      complete            0.500 0.68-0.75  none    seed",
        f"{names[run_id(3)]}    2d  dev   street    failed at …l_train  -                failed  -",
        f"{names[run_id(2)]}   30d  dev   demo      failed at …el_eval  -                -       epochs",
        f"{names[run_id(1)]}  400d  dev   demo      complete            0.719 0.68-0.75  passed  -",
        f"{names[run_id(5)]}: a record cannot be read: it is no JSON",
    ]


NAMES = st.text("abcdefgh_", min_size=1, max_size=40)
NUMBERS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.lists(
        st.builds(
            RunRow,
            run=st.just(run_id(1)),
            name=st.text("0123456789abcdef", min_size=4, max_size=10),
            mode=st.sampled_from(["dev", "prod"]),
            created=st.just("2026-01-01T00:00:01Z"),
            age=st.floats(0, 9_999 * 86400),
            state=st.builds(
                RunState, st.sampled_from(["complete", "failed", "running", "interrupted"]), NAMES | st.just("")
            ),
            pipeline=NAMES,
            metric=st.none() | st.builds(LeadingMetric, NAMES, NUMBERS | NAMES, NUMBERS, NUMBERS),
            gate=st.sampled_from([None, "passed", "failed", "none"]),
            changed=st.none() | st.lists(NAMES, max_size=12, unique=True).map(tuple),
            error=st.just("") | st.text("ab ", max_size=300),
        ),
        min_size=1,
        max_size=4,
    ),
    NAMES.map(lambda name: f"metric_{name}" if name in COLUMNS else name),
)
def test_no_line_is_wider_than_the_screen(rows: list[RunRow], metric: str) -> None:
    for line in runs_table(rows, metric).splitlines():
        assert len(line) <= WIDTH or " " not in line.strip(), line


def test_a_metric_that_is_called_like_a_column_has_one_of_its_own() -> None:
    rows = [replace(ROWS[0], metric=LeadingMetric("age", 31.5, None, None))]
    assert metric_name(rows) == "metric_age"
    assert runs_table(rows, metric_name(rows)).splitlines()[0].split()[5] == "metric_age"
    assert filter_rows(rows, ["metric_age>31"], metric_name(rows)) == rows


def shown(changed: tuple[str, ...]) -> str:
    """Of a run whose other columns leave little room."""
    row = replace(ROWS[2], state=RunState("failed", "model_train"), pipeline="street_cameras", changed=changed)
    return runs_table([row, ROWS[0]], "mAP").splitlines()[1].rpartition("  ")[2]


def test_of_many_changes_the_first_are_named_and_the_others_counted() -> None:
    assert shown(()) == "nothing"
    assert shown(("epochs", "code")) == "epochs +1"
    assert shown(("learning_rate",)) == "learning…"
    assert shown(("learning_rate", "seed", "code")) == "learn… +2"
    wide = runs_table([replace(ROWS[2], changed=("data", "epochs", "code"))], "mAP")
    assert wide.endswith("data epochs code"), "as many as there is room for"


SORTED = {
    "run": [6, 5, 4, 3, 2, 1],
    "age": [6, 5, 4, 3, 2, 1],
    "mAP": [6, 1, 4, 5, 3, 2],
    "map": [6, 1, 4, 5, 3, 2],
    "mode": [5, 4, 3, 2, 1, 6],
    "pipeline": [6, 4, 2, 1, 3, 5],
    "gate": [3, 4, 6, 1, 5, 2],
    "changed": [2, 4, 6, 5, 3, 1],
}


@pytest.mark.parametrize(("column", "order"), SORTED.items())
def test_rows_are_sorted_by_any_column(column: str, order: list[int]) -> None:
    assert numbers(sort_rows(ROWS, column, "mAP")) == order


FILTERED = {
    "status=failed": [3, 2],
    "status=MODEL_TRAIN": [3],
    "status!=failed": [6, 5, 4, 1],
    "pipeline=street": [3],
    "mode = dev": [5, 4, 3, 2, 1],
    "changed=seed": [4],
    "gate=-": [5, 2],
    "mAP>=0.7": [6, 1],
    "map<0.7": [4],
    "mAP!=0.5": [6, 1],
    "age>1d": [6, 5, 4, 3, 2, 1],
    "age < 3 h": [],
    f"run={run_id(3)}": [3],
}


@pytest.mark.parametrize(("condition", "left"), FILTERED.items())
def test_a_filter_keeps_the_runs_for_which_it_holds(condition: str, left: list[int]) -> None:
    assert numbers(filter_rows(ROWS, [condition], "mAP")) == left


def test_all_filters_must_hold() -> None:
    assert numbers(filter_rows(ROWS, ["status=complete", "mode=dev", "mAP>0.6"], "mAP")) == [1]


WRONG = {
    "statu=failed": "did you mean 'status'?",
    "status=faild": "did you mean 'failed'?",
    "mode=prd": "did you mean 'prod'?",
    "pipeline=stret": "did you mean 'street'?",
    "changed=epoch": "did you mean 'epochs'?",
    "failed": "expected: COLUMN=VALUE",
    "status=": "expected: COLUMN=VALUE",
    "gate>none": "expected: gate=none or gate!=none",
    "mAP>high": "a number such as 0.7",
    "age<7": "a number and s, m, h or d",
}


@pytest.mark.parametrize(("condition", "says"), WRONG.items())
def test_a_wrong_filter_is_refused(condition: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        filter_rows(ROWS, [condition], "mAP")
    assert says in str(refused.value)


def test_csv_has_all_values_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(runs_csv(ROWS, metric_name(ROWS)))))
    assert [row["run"] for row in rows] == [row.run for row in ROWS]
    assert (rows[2]["mAP"], rows[2]["mAP_low"], rows[2]["mAP_high"], rows[2]["gate"]) == (
        "0.5",
        "0.681",
        "0.752",
        "none",
    )
    assert (rows[4]["status"], rows[4]["step"], rows[4]["mAP"], rows[4]["changed"]) == (
        "failed",
        "model_eval",
        "",
        "epochs",
    )
    assert (rows[1]["status"], rows[1]["error"]) == ("unreadable", "a record cannot be read: it is no JSON")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ["", "1"])
def test_colours_are_for_a_terminal_whose_owner_wants_them(monkeypatch: pytest.MonkeyPatch, no_color: str) -> None:
    plain = runs_table(ROWS, "mAP")
    assert "\x1b" not in plain
    for name in ("COLORTERM", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys, "stdout", Terminal())
    drawn = runs_table(ROWS, "mAP")
    assert ("\x1b[32mcomplete" in drawn, "\x1b[31mfailed at" in drawn) == (not no_color, not no_color)
    unstyled = drawn
    for code in ("\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        unstyled = unstyled.replace(code, "")
    assert [line.rstrip() for line in unstyled.splitlines()] == plain.splitlines()


def test_the_command_shows_both_modes_unless_told(ran: Any, in_process: None) -> None:
    ran.commit()
    assert ran.step("--set", "third.score=0.25", mode="prod").code == 0
    assert [row["mode"] for row in ran.json("runs")] == ["prod", "dev"]
    assert [row["mode"] for row in ran.json("runs", "--mode", "dev")] == ["dev"]
    [row] = ran.json("runs", "--filter", "score<0.3")
    assert (row["mode"], row["metric"]) == ("prod", {"name": "score", "value": 0.25, "low": None, "high": None})
    assert [row["mode"] for row in ran.json("runs", "--sort", "score")] == ["dev", "prod"]
    ran.look("show", row["name"]).fails(f"there is no run '{row['name']}'", "use prod mode: it is a prod run")
    assert ran.json("show", row["name"], "--mode", "prod")["run"] == row["run"]
    assert ran.look("runs", "--filter", "status=failed").out == "no run is like that\n"
    assert ran.look("runs", "--csv").out.splitlines()[1].startswith(f"{row['run']},{row['name']},prod,toy,")
    ran.look("runs", "--sort", "scor").fails("did you mean 'score'?", code=2)
