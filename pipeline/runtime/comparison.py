"""Two runs side by side: parameters, data, metrics, code and environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.runtime.code import CodeState, changed_files
from pipeline.runtime.manifest import GOOD, SUCCEEDED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

RUN, PARAMETERS, DATA, METRICS, CODE, ENVIRONMENT = "run", "parameters", "data", "metrics", "code", "environment"
CHOSEN = "chosen by hand"

RecordPair = tuple[StepRecord | None, StepRecord | None]


@dataclass(frozen=True)
class ComparisonRow:
    """One value of both runs, or of one of them.

    Attributes:
        section: `run`, `parameters`, `data`, `chosen by hand`, `metrics`, `code` or `environment`.
        name: Such as `model_train.epochs`.
        left: The value in the left run; None where it has none.
        right: The value in the right run.
    """

    section: str
    name: str
    left: Any
    right: Any

    @property
    def differs(self) -> bool:
        """Whether the runs differ in it."""
        return bool(self.left != self.right)

    @property
    def is_metric(self) -> bool:
        """Whether it is a metric of a step."""
        return self.section == METRICS

    @property
    def is_always_shown(self) -> bool:
        """Whether it is shown even where the runs are equal."""
        return self.section in (METRICS, CHOSEN)

    @property
    def difference(self) -> float | None:
        """Right minus left, of two numbers."""
        numbers = [value for value in (self.left, self.right) if isinstance(value, int | float)]
        if len(numbers) < 2 or any(isinstance(value, bool) for value in numbers):
            return None
        return numbers[1] - numbers[0]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        left: Id of the left run.
        right: Id of the right run.
        rows: All compared values, by section.
        files: The lines of `git diff --stat` between the commits; None where the repository lacks one of them.
    """

    left: str
    right: str
    rows: tuple[ComparisonRow, ...]
    files: tuple[str, ...] | None


def compare(left: RunManifest, right: RunManifest, files: tuple[str, ...] | None = None) -> Comparison:
    """Compare two runs by each step's newest success, or by its newest attempt where there is no success."""
    runs = (left, right)
    steps = dict.fromkeys(record.step for run in runs for record in run.attempts)
    records: dict[str, RecordPair] = {step: (_newest(left, step), _newest(right, step)) for step in steps}
    shared = {step: pair for step, pair in records.items() if all(pair)}
    run_values: dict[str, Callable[[RunManifest], Any]] = {
        "pipeline": lambda run: run.pipeline,
        "mode": lambda run: run.mode,
        "config": lambda run: run.config_file,
    }
    code_values = {"commit": _commit, "changed files": _changed_files, "changes": _changes_digest}
    rows = [
        *_run_rows(RUN, runs, run_values),
        *(ComparisonRow(RUN, step, *map(_outcome, pair)) for step, pair in records.items()),
        *_step_rows(PARAMETERS, shared, lambda record: record.parameters),
        *_data_rows(records),
        *_rows(CHOSEN, *(_chosen_inputs([pair[side] for pair in records.values()]) for side in (0, 1))),
        *_step_rows(METRICS, records, lambda record: record.metrics),
        *_run_rows(CODE, runs, code_values),
        *_step_rows(CODE, shared, lambda record: {"notebook": record.notebook_digest, "modules": record.code_digest}),
        *_rows(ENVIRONMENT, *map(_environment, runs)),
    ]
    return Comparison(left.run, right.run, tuple(rows), files)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as JSON, by section."""
    sections: dict[str, dict[str, Any]] = {}
    for row in comparison.rows:
        values = {"left": row.left, "right": row.right, "differs": row.differs}
        if row.is_metric:
            values["difference"] = row.difference
        sections.setdefault(row.section, {})[row.name] = values
    files = None if comparison.files is None else list(comparison.files)
    return {"left": comparison.left, "right": comparison.right, **sections, "files": files}


def _newest(run: RunManifest, step: str) -> StepRecord | None:
    return run.success(step) or next(reversed(run.of(step)), None)


def _outcome(record: StepRecord | None) -> str | None:
    """The status; a reused step counts as succeeded."""
    return None if record is None else SUCCEEDED if record.status in GOOD else record.status


def _rows(section: str, left: Mapping[str, Any], right: Mapping[str, Any]) -> list[ComparisonRow]:
    return [ComparisonRow(section, name, left.get(name), right.get(name)) for name in {**left, **right}]


def _run_rows(
    section: str, runs: tuple[RunManifest, RunManifest], values: Mapping[str, Callable[[RunManifest], Any]]
) -> list[ComparisonRow]:
    return [ComparisonRow(section, name, *map(value, runs)) for name, value in values.items()]


def _step_rows(
    section: str, records: Mapping[str, RecordPair], values: Callable[[StepRecord], Mapping[str, Any]]
) -> list[ComparisonRow]:
    return [
        ComparisonRow(section, f"{step}.{row.name}", row.left, row.right)
        for step, pair in records.items()
        for row in _rows(section, *(values(record) if record else {} for record in pair))
    ]


def _data_rows(records: Mapping[str, RecordPair]) -> list[ComparisonRow]:
    """Each entity's version, and where a step read another version of it, that one too."""
    made: list[dict[str, Artifact]] = [{}, {}]
    for pair in records.values():
        for outputs, record in zip(made, pair, strict=True):
            outputs.update(record.outputs if record else {})
    rows = _rows(DATA, *({name: _described(artifact) for name, artifact in outputs.items()} for outputs in made))
    for step, pair in records.items():
        read = [record.inputs if record else {} for record in pair]
        for entity in {**read[0], **read[1]}:
            versions = [inputs.get(entity) for inputs in read]
            if any(one and one != outputs.get(entity) for one, outputs in zip(versions, made, strict=True)):
                described = [_described(one) if one else None for one in versions]
                rows.append(ComparisonRow(DATA, f"{entity} that {step} read", *described))
    return rows


def _described(artifact: Artifact) -> dict[str, Any]:
    return {"digest": artifact.digest, "files": artifact.files, "size": artifact.size}


def _chosen_inputs(records: Sequence[StepRecord | None]) -> dict[str, str]:
    """The inputs of a run that a person named: `STEP: ENTITY` to the source."""
    chosen: dict[str, str] = {}
    for record in filter(None, records):
        chosen |= record.chosen_before
        chosen |= {f"{record.step}: {entity}": source for entity, source in record.chosen.items()}
    return chosen


def _commit(run: RunManifest) -> str:
    commit = str(run.code.get("commit", ""))
    return f"{commit or 'none'}{' with changes' if run.code.get('dirty') else ''}"


def _changed_files(run: RunManifest) -> list[str]:
    code = {"commit": "", "dirty": False, "diff": "", "untracked": {}, **run.code}
    return changed_files(CodeState(*(code[name] for name in ("commit", "dirty", "diff", "untracked"))))


def _changes_digest(run: RunManifest) -> str:
    """Tells different changes to the same files apart."""
    changes = [run.code.get("diff"), run.code.get("untracked")]
    return sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest() if any(changes) else "none"


def _environment(run: RunManifest) -> dict[str, str]:
    """The environments of all attempts: a run may have continued on another machine."""
    found: dict[str, dict[str, None]] = {}
    for record in run.attempts:
        for name, value in record.environment.items():
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}
