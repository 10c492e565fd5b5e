"""What a run came to, from its records alone: its state, its leading metric with an interval, and its gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import GateError
from pipeline.runtime.manifest import (
    FAILED,
    GOOD,
    INTERRUPTED,
    KILLED,
    RUNNING,
    WITH_LIMITS,
    RunManifest,
    StepRecord,
)
from pipeline.runtime.process import is_alive

COMPLETE, INCOMPLETE = "complete", "incomplete"
ENDS = ("low", "high")  # of a metric's interval, the metrics NAME_low and NAME_high


VERBS = {FAILED: "failed", INTERRUPTED: "was stopped", KILLED: "was killed", RUNNING: "has not ended"}


@dataclass(frozen=True)
class RunState:
    """`complete`, `incomplete`, or the state of the step that a run is at, such as `failed`."""

    word: str
    step: str = ""  # none of a complete or incomplete run


@dataclass(frozen=True)
class LeadingMetric:
    """The first metric of a run's last step, and its interval where the step recorded one as NAME_low and NAME_high."""

    name: str
    value: Any
    low: float | None
    high: float | None


def run_state(manifest: RunManifest, steps: Sequence[str]) -> RunState:
    """The state of a run of these steps, by each step's newest attempt.

    A run is incomplete if steps have not run, although none failed and nobody is at work on it.
    """
    latest = [attempts[-1] for step in steps if (attempts := manifest.of(step))]
    if open_or_bad := [record for record in latest if record.status not in GOOD]:
        newest = max(open_or_bad, key=lambda record: (record.status == RUNNING, record.started))
        return RunState(newest.state, newest.step)
    waiting = [step for step in steps if not manifest.of(step)]
    if not waiting:
        return RunState(COMPLETE)
    is_next = waiting[0] in manifest.asked and is_alive(manifest.process)
    return RunState(RUNNING, waiting[0]) if is_next else RunState(INCOMPLETE)


def shortcomings(manifest: RunManifest, steps: Sequence[str]) -> list[str]:
    """A line for each step that has no success, or none as its newest attempt: `fit failed: no such luck`."""
    lines = []
    for step in steps:
        record = attempts[-1] if (attempts := manifest.of(step)) else None
        if record is None:
            lines.append(f"{step} has not run")
        elif record.status not in GOOD:
            why = record.error.partition("\n")[0] if record.status == FAILED else ""
            lines.append(": ".join(filter(None, [f"{step} {VERBS[record.state]}", why])))
    return lines


def leading_metric(manifest: RunManifest, step: str) -> LeadingMetric | None:
    """The first metric of a step, by its newest attempt that recorded any."""
    metrics = _metrics(manifest, step)
    name = next(iter(metrics), None)
    if name is None:
        return None
    low, high = (_number(metrics.get(f"{name}_{end}")) for end in ENDS)
    return LeadingMetric(name, metrics[name], low, high)


def gate_outcome(manifest: RunManifest, steps: Sequence[str]) -> str | None:
    """`failed` if a step missed its gate, else the outcome of the last step, where it is that of the run as it is now.

    None without one, in an old record, and where another attempt has not succeeded since, or what was judged was made
    anew.
    """
    latest = [attempts[-1] for step in steps if (attempts := manifest.of(step))]
    if any(record.status == FAILED and record.error_kind == GateError.__name__ for record in latest):
        return FAILED
    last = manifest.success(steps[-1])
    is_known = last and last.schema >= WITH_LIMITS and all(record.status in GOOD for record in latest)
    return last.gate if last and is_known and not judged_another(manifest, last) else None


def judged_another(manifest: RunManifest, record: StepRecord) -> bool:
    """Whether a step judged another artifact than the run has now; one that was chosen by hand is not the run's."""
    now = manifest.output(record.judged)
    return now is not None and record.judged not in record.chosen and record.inputs[record.judged].digest != now.digest


def main_metrics(record: StepRecord, *, numbers_only: bool = False) -> list[str]:
    """The first two metrics, as text: a notebook commits them in the order of their importance.

    The ends of an interval are no metrics of their own.
    """
    ends = {f"{name}_{end}" for name in record.metrics for end in ENDS}
    first = [each for each in record.metrics.items() if each[0] not in ends][:2]
    return [f"{name} {metric_text(value)}" for name, value in first if not (numbers_only and isinstance(value, str))]


def metric_text(value: Any) -> str:
    """A metric with four significant digits."""
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _metrics(manifest: RunManifest, step: str) -> dict[str, Any]:
    return next((record.metrics for record in reversed(manifest.of(step)) if record.metrics), {})


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
