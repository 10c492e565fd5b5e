"""The runs of a project side by side: what each came to and what changed, sorted and filtered."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt, ne
from typing import Any

from pipeline.errors import UsageError, did_you_mean
from pipeline.runtime.comparison import changes
from pipeline.runtime.engines.choice import are_at_work
from pipeline.runtime.manifest import FAILED, INTERRUPTED, KILLED, NO_VERDICT, PASSED, RUNNING, RunManifest, run_time
from pipeline.runtime.project import MODES, check_name
from pipeline.runtime.resolving import short_names
from pipeline.runtime.run_summary import (
    COMPLETE,
    INCOMPLETE,
    LeadingMetric,
    RunState,
    gate_outcome,
    leading_metric,
    run_state,
)
from pipeline.runtime.store.artifact_store import Store

UNREADABLE = "unreadable"
UNKNOWN = "unknown"  # whether anything is still at work on a step, which nothing here can tell
NONE = "-"  # a missing value
RUN, AGE, MODE, PIPELINE, STATUS, GATE, CHANGED = "run", "age", "mode", "pipeline", "status", "gate", "changed"
COLUMNS = (RUN, AGE, MODE, PIPELINE, STATUS, GATE, CHANGED)  # and that of the metric
WORDS = {  # the words of a column that may occur, whatever the runs at hand
    MODE: MODES,
    STATUS: (COMPLETE, INCOMPLETE, RUNNING, UNKNOWN, FAILED, INTERRUPTED, KILLED, UNREADABLE),
    GATE: (PASSED, FAILED, NO_VERDICT, NONE),
}
SHOWN = 10  # words that an error names
SIGNS = {"=": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
FILTER = re.compile(r"\s*(?P<column>[^\s=!<>]+)\s*(?P<sign>!=|<=|>=|=|<|>)\s*(?P<value>.*?)\s*")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")


@dataclass(frozen=True)
class RunRow:
    """One run; of a run that cannot be read only what its id says, and why."""

    run: str
    name: str  # short, and no other run's
    mode: str
    created: str  # UTC, ISO 8601
    age: float  # seconds
    state: RunState
    pipeline: str = NONE
    metric: LeadingMetric | None = None
    gate: str | None = None
    before: str = ""  # the run before of the same pipeline and mode
    changed: tuple[str, ...] | None = None  # since the run before; None without one
    steps: dict[str, str] | None = None  # state of each step's newest attempt
    error: str = ""


def with_ends(store: Store, runs: Iterable[tuple[str, RunManifest | str]]) -> list[tuple[str, RunManifest | str]]:
    """The runs of a store, in which attempts of an engine that only seem to run are killed, or unknown.

    A job outlives its command, and may have ended without it. Its engine is asked only about the newest attempts at
    steps, and only where they have no end.
    """
    every = list(runs)
    open_attempts = [
        (run, record)
        for run, manifest in every
        if isinstance(manifest, RunManifest)
        for record in manifest.attempts
        if record.engine and record.status == RUNNING and record == manifest.of(record.step)[-1]
    ]
    words = {True: RUNNING, False: KILLED, None: UNKNOWN}
    at_work = zip(open_attempts, are_at_work(store, open_attempts), strict=True)
    status = {(run, record.made_by): words[is_at_work] for (run, record), is_at_work in at_work}
    return [(run, manifest if isinstance(manifest, str) else _with_status(manifest, status)) for run, manifest in every]


def _with_status(manifest: RunManifest, status: Mapping[tuple[str, str], str]) -> RunManifest:
    attempts = [
        replace(each, status=status.get((manifest.run, each.made_by), each.status)) for each in manifest.attempts
    ]
    return replace(manifest, attempts=tuple(attempts))


def run_rows(runs: Iterable[tuple[str, str, RunManifest | str]], steps: Sequence[str]) -> list[RunRow]:
    """A row for each run, newest first.

    Args:
        runs: The mode, id and manifest of each run, or one line on why it cannot be read; of each mode oldest first.
        steps: All steps, in their order.
    """
    given, now = list(runs), datetime.now(UTC)
    names, rows = short_names([run for _, run, _ in given]), []
    newest: dict[tuple[str, str], RunManifest] = {}
    for mode, run, manifest in given:
        created = run_time(run)
        known = (run, names[run], mode, created, (now - datetime.fromisoformat(created)).total_seconds())
        if isinstance(manifest, str):
            rows.append(RunRow(*known, RunState(UNREADABLE), error=manifest))
            continue
        before = newest.get((mode, manifest.pipeline))
        newest[mode, manifest.pipeline] = manifest
        rows.append(
            RunRow(
                *known,
                run_state(manifest, steps),
                manifest.pipeline,
                leading_metric(manifest, steps[-1]),
                gate_outcome(manifest, steps),
                before.run if before else "",
                tuple(changes(before, manifest)) if before else None,
                {step: manifest.of(step)[-1].state for step in dict.fromkeys(each.step for each in manifest.attempts)},
            )
        )
    return sorted(rows, key=lambda row: row.run, reverse=True)


def metric_name(rows: Iterable[RunRow]) -> str:
    """The column of the leading metric: its name in the newest run that has one, told apart from the other columns."""
    name = next((row.metric.name for row in rows if row.metric), "metric")
    return f"metric_{name}" if name in COLUMNS else name


def row_json(row: RunRow) -> dict[str, Any]:
    """A row as JSON, without the age, which is another at each call."""
    return {name: value for name, value in asdict(row).items() if name != "age"}


def columns(metric: str) -> list[str]:
    """The names of the columns, in their order."""
    return [RUN, AGE, MODE, PIPELINE, STATUS, metric, GATE, CHANGED]


def sort_rows(rows: Sequence[RunRow], typed: str, metric: str) -> list[RunRow]:
    """Sort rows by a column: the youngest or greatest first, words by the alphabet, missing values last."""
    column = _column(typed, metric)
    if column in (RUN, AGE):
        return sorted(rows, key=lambda row: row.run, reverse=True)
    if column == metric:
        return sorted(rows, key=lambda row: math.inf if (value := _value(row)) is None else -value)
    return sorted(rows, key=lambda row: (_words(row)[column] in ((), (NONE,)), _words(row)[column]))


def filter_rows(rows: Sequence[RunRow], typed: Sequence[str], metric: str) -> list[RunRow]:
    """The rows for which every condition holds, such as `status=failed`, `mAP>0.7` or `age<7d`.

    A condition is COLUMN, a sign of `= != < <= > >=`, and a value: a number for the metric, a duration in s, m, h or d
    for the age, and otherwise, after `=` or `!=`, one of the words in the column. Case does not matter.
    """
    for text in typed:
        condition = FILTER.fullmatch(text)
        if not condition or not condition["value"]:
            raise UsageError(f"--filter {text}", expected="COLUMN=VALUE", remedy="--filter status=failed")
        column, sign, value = _column(condition["column"], metric), condition["sign"], condition["value"]
        if column in (AGE, metric):
            limit = _duration(value) if column == AGE else _limit(value)
            numbers = [(row, row.age if column == AGE else _value(row)) for row in rows]
            rows = [row for row, number in numbers if number is not None and SIGNS[sign](number, limit)]
        else:
            rows = _with_word(rows, column, sign, value)
    return list(rows)


def _with_word(rows: Sequence[RunRow], column: str, sign: str, value: str) -> list[RunRow]:
    if sign not in ("=", "!="):
        raise UsageError(f"--filter {column}{sign}{value}", expected=f"{column}={value} or {column}!={value}")
    words = [[word.casefold() for word in _words(row)[column]] for row in rows]
    known = dict.fromkeys([*WORDS.get(column, ()), *(word for each in words for word in each)])
    if rows and value.casefold() not in known:
        remedy = did_you_mean(value, known, cutoff=0.4)
        named = ", ".join(list(known)[:SHOWN]) + (" …" if len(known) > SHOWN else "")
        raise UsageError(f"no run has '{value}' in the column {column}", expected=f"one of {named}", remedy=remedy)
    return [row for row, each in zip(rows, words, strict=True) if (value.casefold() in each) == (sign == "=")]


def _words(row: RunRow) -> Mapping[str, tuple[str, ...]]:
    """The words in each column that has words."""
    return {
        RUN: (row.name, row.run),
        MODE: (row.mode,),
        PIPELINE: (row.pipeline,),
        STATUS: tuple(filter(None, (row.state.word, row.state.step))),
        GATE: (row.gate or NONE,),
        CHANGED: row.changed if row.changed is not None else (NONE,),
    }


def _column(typed: str, metric: str) -> str:
    """The name of a column, typed in any case."""
    known = {name.casefold(): name for name in columns(metric)}
    if typed.casefold() not in known:
        check_name("column", typed, known.values())
    return known[typed.casefold()]


def _value(row: RunRow) -> float | None:
    """The metric, if it is a number."""
    value = row.metric.value if row.metric else None
    return value if isinstance(value, int | float) else None


def _duration(typed: str) -> float:
    if found := DURATION.fullmatch(typed):
        return float(found[1]) * SECONDS[found[2]]
    raise UsageError(f"'{typed}' is no age", expected="a number and s, m, h or d", remedy="--filter 'age<7d'")


def _limit(typed: str) -> float:
    try:
        return float(typed)
    except ValueError:
        raise UsageError(f"'{typed}' is no number", where="--filter", expected="a number such as 0.7") from None
