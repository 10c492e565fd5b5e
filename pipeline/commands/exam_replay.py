"""An exam replayed through the REST API of the very service, and how far its predictions are from those recorded."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cli.command import CommandContext
from pipeline.cli.printing import count
from pipeline.commands.recorded_exams import PREDICTIONS, Exam
from pipeline.files import sha256_of
from pipeline.runtime.process import work_folder

if TYPE_CHECKING:
    from pipeline.evaluation.ground_truth import GroundTruth
    from pipeline.evaluation.prediction_differences import PredictionDifferences

_ASKED = ("score_threshold", "workers")  # parameters of the evaluation with which the service was asked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """How the predictions of a replay and those recorded differ."""

    predictions: PredictionDifferences
    map_recorded: float | None
    map_replayed: float | None
    gate: str  # its decision with the replayed figures
    kept: tuple[str, ...]  # metrics with limits that are no figure of the predictions, and count as recorded


@dataclass(frozen=True)
class Replay:
    """The outcome of a replay."""

    images: int
    detections: int
    predictions: str  # SHA-256 of the file with the predictions
    comparison: Comparison | None  # None where the file is the one recorded, byte for byte


def replay(context: CommandContext, exam: Exam) -> Replay:
    """Lay out the service and the test set from the store, and evaluate again as the exam did; nothing is left."""
    from pipeline.client.service_process import serve
    from pipeline.evaluation.ground_truth import read_ground_truth
    from pipeline.evaluation.prediction import predict_dataset

    store = context.project.runs.store
    with work_folder(context.root / ".cache" / "work", "examine") as work:
        for artifact in (exam.bento, exam.test_set):
            log.info("laying out %s/%s", artifact.name, artifact.digest[:12])
            store.get(artifact, work / artifact.name, link=True)
        truth = read_ground_truth(work / exam.test_set.name / "annotations.json")
        log.info("starting the service, and sending it %s", count(len(truth.images), "image"))
        with serve(work / exam.bento.name, log_path=work / "server.log") as service:
            asked = {name: exam.parameters[name] for name in _ASKED if name in exam.parameters}
            predictions = predict_dataset(service.url, truth, **asked)
        predictions.write_results(work / PREDICTIONS)
        digest, comparison = sha256_of(work / PREDICTIONS), None
        if digest != exam.predictions:
            log.info("comparing the predictions with those recorded, which differ")
            comparison = _compare(exam, truth, json.loads(store.read(exam.predictions)), predictions.results)
        return Replay(len(truth.images), len(predictions.results), digest, comparison)


def _compare(
    exam: Exam, truth: GroundTruth, recorded: Sequence[dict[str, Any]], replayed: Sequence[dict[str, Any]]
) -> Comparison:
    from pipeline.evaluation.metrics import evaluate
    from pipeline.evaluation.prediction_differences import compare_predictions

    before, after = evaluate(truth, recorded), evaluate(truth, replayed)
    known = after.summary()  # a metric of the step is named as a figure but for its case: `mAP50` is `map50`
    figures = {name: known[name.lower()] for name in exam.reached if name.lower() in known}
    limited = dict.fromkeys([*exam.minimum, *exam.maximum])
    return Comparison(
        predictions=compare_predictions(recorded, replayed),
        map_recorded=before.map,
        map_replayed=after.map,
        gate=exam.decide(figures),
        kept=tuple(name for name in limited if name not in figures),
    )
