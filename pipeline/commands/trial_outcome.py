"""What the run of a trial came to: the figures of its evaluation, and the time of its training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.cli.trials import Trial
from pipeline.commands.compare_command import TEST_SET, evaluation_of
from pipeline.runtime.code import hardware
from pipeline.runtime.manifest import KILLED, RunManifest, StepRecord
from pipeline.runtime.project import Project
from pipeline.runtime.resolving import makers

if TYPE_CHECKING:
    from pipeline.evaluation.trial_figures import TrialFigures

MODEL = "obj_detect_inference_files"
SEARCHED = "eval_mAP"
"""The metric of the training by which a search goes: on the eval set, so that the test set chooses nothing."""


def searched_metric(trial: Trial) -> float | None:
    """What a search wants to be high; None of a trial that failed."""
    if trial.manifest is None or not trial.has_ended:
        return None
    trainings = [record for record in trial.manifest.attempts if MODEL in record.outputs]
    return trainings[-1].metrics.get(SEARCHED) if trainings else None


def trial_figures(project: Project, trial: Trial, values: Mapping[str, str]) -> TrialFigures:
    """The figures of a trial; `values` are the parameters that tell it from the others."""
    from pipeline.evaluation.trial_figures import TrialFigures

    run = trial.manifest
    if run is None:
        return TrialFigures(trial.number, values, problem=trial.problem)
    found = _training(project, run) | (_evaluation(project, run) if trial.has_ended else {})
    return TrialFigures(trial.number, values, run=run.run, problem=trial.problem, **found)


def _evaluation(project: Project, run: RunManifest) -> dict[str, Any]:
    record = evaluation_of(run)
    if record is None:
        return {}
    metrics = record.metrics
    return {
        "gate": record.gate,
        "map": metrics.get("mAP"),
        "map_low": metrics.get("mAP_low"),
        "map_high": metrics.get("mAP_high"),
        "latency_p50_ms": metrics.get("latency_p50_ms"),
        "latency_p95_ms": metrics.get("latency_p95_ms"),
        "test_set": record.inputs[TEST_SET].digest,
        "test_images": metrics.get("images", 0),
        "hardware": hardware(_origin(project, run, record)[1].environment),
    }


def _training(project: Project, run: RunManifest) -> dict[str, Any]:
    """The time of a training, over all attempts that it took."""
    record = next((record for record in reversed(run.attempts) if MODEL in record.outputs), None)
    if record is None:
        return {}
    source, made = _origin(project, run, record)
    attempts = [each for each in source.of(made.step) if each.fingerprint == made.fingerprint]
    attempts = [each for each in attempts if each.attempt <= made.attempt]
    return {
        "train_seconds": sum(each.seconds for each in attempts),
        "is_train_longer": any(each.status == KILLED for each in attempts),
    }


def _origin(project: Project, run: RunManifest, record: StepRecord) -> tuple[RunManifest, StepRecord]:
    """The attempt whose outputs an attempt has, and its run; itself where that is gone."""
    made = [each for each in makers(project.runs, run) if each[1].step == record.step] if record.reused_from else []
    return made[-1] if made else (run, record)
