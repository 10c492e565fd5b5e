"""Two runs side by side: parameters, data, metrics, code and environment."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.runtime.code import CodeState, changed_files
from pipeline.runtime.manifest import GOOD, SUCCEEDED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

RUN, PARAMETERS, DATA, METRICS, CODE, ENVIRONMENT = "run", "parameters", "data", "metrics", "code", "environment"

Pairs = Mapping[str, tuple[StepRecord | None, StepRecord | None]]  # of each step, what tells of it in both runs


@dataclass(frozen=True)
class Row:
    """One thing that both runs have, or one of them.

    Attributes:
        section: `run`, `parameters`, `data`, `metrics`, `code` or `environment`.
        name: Such as `model_train.epochs`.
        left: Its value in the one run; None where it has none.
        right: In the other.
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
    def difference(self) -> float | None:
        """Right less left, of two numbers."""
        numbers = [value for value in (self.left, self.right) if isinstance(value, int | float)]
        if len(numbers) < 2 or any(isinstance(value, bool) for value in numbers):
            return None
        return numbers[1] - numbers[0]


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        left: Id of the one run.
        right: Of the other.
        rows: All that was compared, by section.
        files: What `git diff --stat` says of the two commits; None where the repository does not have both.
    """

    left: str
    right: str
    rows: tuple[Row, ...]
    files: tuple[str, ...] | None


def compare(left: RunManifest, right: RunManifest, files: tuple[str, ...] | None = None) -> Comparison:
    """Put two runs side by side; of each step its newest success, or where there is none its newest attempt.

    Args:
        left: The one run.
        right: The other.
        files: What changed between their commits.
    """
    runs = (left, right)
    steps = list(dict.fromkeys(record.step for run in runs for record in run.attempts))
    records = {step: (_telling(left, step), _telling(right, step)) for step in steps}
    shared = {step: pair for step, pair in records.items() if all(pair)}
    rows = [
        *_of_runs(RUN, runs, {"pipeline": lambda run: run.pipeline, "mode": lambda run: run.mode}),
        *_of_runs(RUN, runs, {"config": lambda run: run.config_file}),
        *(Row(RUN, step, *map(_outcome, pair)) for step, pair in records.items()),
        *_of_steps(PARAMETERS, shared, lambda record: record.parameters),
        *_data(records),
        *_of_steps(METRICS, records, lambda record: record.metrics),
        *_of_runs(CODE, runs, {"commit": _commit, "changed files": _changed_files, "changes": _changes}),
        *_of_steps(CODE, shared, _digests),
        *_tables(ENVIRONMENT, *(_environment(run) for run in runs)),
    ]
    return Comparison(left.run, right.run, tuple(rows), files)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison for programs: all of it, by section."""
    sections: dict[str, dict[str, Any]] = {}
    for row in comparison.rows:
        told = {"left": row.left, "right": row.right, "differs": row.differs}
        if row.section == METRICS:
            told["difference"] = row.difference
        sections.setdefault(row.section, {})[row.name] = told
    files = None if comparison.files is None else list(comparison.files)
    return {"left": comparison.left, "right": comparison.right, **sections, "files": files}


def _telling(run: RunManifest, step: str) -> StepRecord | None:
    return run.success(step) or next(reversed(run.of(step)), None)


def _outcome(record: StepRecord | None) -> str | None:
    """To have been reused is to have succeeded."""
    return None if record is None else SUCCEEDED if record.status in GOOD else record.status


def _of_runs(
    section: str, runs: tuple[RunManifest, RunManifest], what: dict[str, Callable[[RunManifest], Any]]
) -> list[Row]:
    return [Row(section, name, *(get(run) for run in runs)) for name, get in what.items()]


def _of_steps(
    section: str,
    records: Pairs,
    get: Callable[[StepRecord], dict[str, Any]],
) -> list[Row]:
    return [
        Row(section, f"{step}.{row.name}", row.left, row.right)
        for step, pair in records.items()
        for row in _tables(section, *(get(record) if record else {} for record in pair))
    ]


def _tables(section: str, left: dict[str, Any], right: dict[str, Any]) -> list[Row]:
    return [Row(section, name, left.get(name), right.get(name)) for name in {**left, **right}]


def _data(records: Pairs) -> list[Row]:
    """What each entity stood for, and where a step read another version of it, that too."""
    made: list[dict[str, Artifact]] = [{}, {}]
    for pair in records.values():
        for side, record in zip(made, pair, strict=True):
            side.update(record.outputs if record else {})
    rows = _tables(DATA, *({name: _described(artifact) for name, artifact in side.items()} for side in made))
    for step, pair in records.items():
        read = [record.inputs if record else {} for record in pair]
        for entity in {**read[0], **read[1]}:
            own = [(inputs.get(entity), outputs.get(entity)) for inputs, outputs in zip(read, made, strict=True)]
            if any(one and one != other for one, other in own):
                rows.append(
                    Row(DATA, f"{entity} that {step} read", *(_described(one) if one else None for one, _ in own))
                )
    return rows


def _described(artifact: Artifact) -> dict[str, Any]:
    return {"digest": artifact.digest, "files": artifact.files, "size": artifact.size}


def _commit(run: RunManifest) -> str:
    commit = str(run.code.get("commit", ""))
    return f"{commit or 'none'}{' with changes' if run.code.get('dirty') else ''}"


def _changed_files(run: RunManifest) -> list[str]:
    given = {"commit": "", "dirty": False, "diff": "", "untracked": {}, **run.code}
    return changed_files(CodeState(*(given[name] for name in ("commit", "dirty", "diff", "untracked"))))


def _changes(run: RunManifest) -> str:
    """Tells other changes to the same files."""
    changes = [run.code.get("diff"), run.code.get("untracked")]
    return sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest() if any(changes) else "none"


def _digests(record: StepRecord) -> dict[str, str]:
    return {"notebook": record.notebook_digest, "modules": record.code_digest}


def _environment(run: RunManifest) -> dict[str, str]:
    """Of all its attempts: a run may have been continued on another machine."""
    found: dict[str, dict[str, None]] = {}
    for record in run.attempts:
        for name, value in record.environment.items():
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}
