"""Two runs side by side: parameters, data, metrics, code and environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from pipeline.runtime.git import changed_files
from pipeline.runtime.manifest import GOOD, SUCCEEDED, RunManifest, StepRecord
from pipeline.runtime.store.artifact_store import Artifact

RUN, PARAMETERS, DATA, METRICS, CODE, ENVIRONMENT = "run", "parameters", "data", "metrics", "code", "environment"
CHOSEN = "chosen by hand"
SECTIONS = (RUN, PARAMETERS, DATA, CHOSEN, METRICS, CODE, ENVIRONMENT)

Values = dict[tuple[str, str], Any]  # by section and name


@dataclass(frozen=True)
class ComparisonRow:
    """One value, such as `model_train.epochs`, in both runs; None in the one that has none."""

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
        """Right minus left, of a metric that is a number in both runs."""
        both = (self.left, self.right)
        is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in both)
        return float(self.right - self.left) if is_number and self.section == METRICS else None


@dataclass(frozen=True)
class Comparison:
    """The ids of two runs, all compared values by section, and the lines of `git diff --stat`, if they are known."""

    left: str
    right: str
    rows: tuple[ComparisonRow, ...]
    files: tuple[str, ...] | None


def compare(left: RunManifest, right: RunManifest, files: tuple[str, ...] | None = None) -> Comparison:
    """Compare two runs by each step's newest success, or by its newest attempt where there is no success.

    Parameters and code are compared for steps of both runs only.
    """
    records = [
        {record.step: run.success(record.step) or run.of(record.step)[-1] for record in run.attempts}
        for run in (left, right)
    ]
    shared = records[0].keys() & records[1].keys()
    one, other = (_values(run, of_run, shared) for run, of_run in zip((left, right), records, strict=True))
    keys = sorted({**one, **other}, key=lambda key: SECTIONS.index(key[0]))
    rows = tuple(ComparisonRow(*key, one.get(key), other.get(key)) for key in keys)
    return Comparison(left.run, right.run, rows, files)


def changes(before: RunManifest, after: RunManifest) -> list[str]:
    """What a run was made from otherwise than the run before it, in few words.

    `data` stands for what steps took from the outside world and inputs chosen by hand, then come the names of
    parameters, `code` for notebooks and the modules they import, and `environment` for Python and packages. What steps
    made of these is no change of its own.
    """
    differing = [row for row in compare(before, after).rows if row.differs]
    records = [record for run in (before, after) for record in run.attempts]
    loaded = {entity for record in records if not record.inputs for entity in record.outputs}
    data = any(
        row.section == CHOSEN or (row.section == DATA and row.name in loaded and row.left and row.right)
        for row in differing
    )
    parameters = [row.name.partition(".")[2] for row in differing if row.section == PARAMETERS]
    code = any(row.section == CODE and "." in row.name for row in differing)  # of a step: a commit may change only docs
    environment = any(row.section == ENVIRONMENT and row.left and row.right for row in differing)
    words = {DATA: data, **dict.fromkeys(parameters, True), CODE: code, ENVIRONMENT: environment}
    return [word for word, applies in words.items() if applies]


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as JSON, by section."""
    sections: dict[str, dict[str, Any]] = {}
    for row in comparison.rows:
        values = {"left": row.left, "right": row.right, "differs": row.differs}
        values |= {"difference": row.difference} if row.section == METRICS else {}
        sections.setdefault(row.section, {})[row.name] = values
    return {"left": comparison.left, "right": comparison.right, **sections, "files": comparison.files}


def _values(run: RunManifest, records: Mapping[str, StepRecord], shared: set[str]) -> Values:
    """All that is compared of a run."""
    changes = [run.code.get("diff"), run.code.get("untracked")]  # tells different changes to the same files apart
    commit = run.code.get("commit") or "none"
    values: Values = {
        (RUN, "pipeline"): run.pipeline,
        (RUN, "mode"): run.mode,
        (RUN, "config"): run.config_file,
        (CODE, "commit"): f"{commit}{' with changes' if run.code.get('dirty') else ''}",
        (CODE, "changed files"): changed_files(run.code),
        (CODE, "changes"): sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest() if any(changes) else "none",
    }
    made = {name: artifact for record in records.values() for name, artifact in record.outputs.items()}
    values |= {(DATA, name): _described(artifact) for name, artifact in made.items()}
    for step, record in records.items():
        values[RUN, step] = SUCCEEDED if record.status in GOOD else record.status  # reused is no difference
        values |= {(METRICS, f"{step}.{name}"): value for name, value in record.metrics.items()}
        values |= {(CHOSEN, name): source for name, source in record.chosen_before.items()}
        values |= {(CHOSEN, f"{step}: {entity}"): source for entity, source in record.chosen.items()}
        for entity, artifact in record.inputs.items():
            if artifact != made.get(entity):  # not the run's own
                values[DATA, f"{entity} that {step} read"] = _described(artifact)
        if step in shared:
            values |= {(PARAMETERS, f"{step}.{name}"): value for name, value in record.parameters.items()}
            values[CODE, f"{step}.notebook"] = record.notebook_digest
            values[CODE, f"{step}.modules"] = record.code_digest
    for name in dict.fromkeys(name for record in run.attempts for name in record.environment):
        found = [record.environment[name] for record in run.attempts if name in record.environment]
        values[ENVIRONMENT, name] = ", ".join(dict.fromkeys(found))  # a run may have continued on another machine
    return values


def _described(artifact: Artifact) -> dict[str, Any]:
    return {"digest": artifact.digest, "files": artifact.files, "size": artifact.size}
