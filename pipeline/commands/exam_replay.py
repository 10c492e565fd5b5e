"""An exam replayed through the REST API of the very service, and how far its predictions are from those recorded."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.command import CommandContext
from pipeline.cli.printing import count
from pipeline.commands.recorded_exams import PREDICTIONS, UNKNOWN, Exam
from pipeline.files import sha256_of
from pipeline.runtime.manifest import gate_verdict
from pipeline.runtime.process import work_folder

if TYPE_CHECKING:
    from pipeline.evaluation.measurement import Measurement
    from pipeline.evaluation.prediction import ServicePredictions
    from pipeline.evaluation.prediction_differences import Detections, PredictionDifferences
    from pipeline.evaluation.quality_gate import QualityGate
    from pipeline.metrics.ground_truth import GroundTruth

# parameters of the evaluation with which the service was asked, and those with which it was judged
_ASKED = ("score_threshold", "workers")
_LIMITS = "limits"
_JUDGED = ("min_map50", "max_seen_exact", "max_seen_similar", "allow_no_detections")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """How the predictions of a replay and those recorded differ."""

    predictions: PredictionDifferences
    map_recorded: float | None
    gate: str  # its decision with the replayed figures
    kept: tuple[str, ...]  # limits of which the replay tells nothing, so that they count as recorded


@dataclass(frozen=True)
class Replay:
    """The outcome of a replay."""

    images: int
    detections: int
    predictions: str  # SHA-256 of the file with the predictions
    map: float | None
    comparison: Comparison | None  # None where the file is the one recorded, byte for byte


def replay(context: CommandContext, exam: Exam) -> Replay:
    """Lay out the service and the test set from the store, and evaluate again as the exam did; nothing is left."""
    from pipeline.client.service_process import serve
    from pipeline.evaluation.prediction import predict_dataset
    from pipeline.metrics.detection_metrics import evaluate
    from pipeline.metrics.ground_truth import read_ground_truth

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
            recorded = json.loads(store.read(exam.predictions))
            comparison = compare(exam, truth, recorded, predictions, work / exam.bento.name)
        found = evaluate(truth, predictions.results).map
        return Replay(len(truth.images), len(predictions.results), digest, found, comparison)


def compare(
    exam: Exam, truth: GroundTruth, recorded: Detections, replayed: ServicePredictions, bento: Path
) -> Comparison:
    """Compare the predictions with those recorded, and judge again, as far as the parameters of the exam tell how."""
    from pipeline.evaluation.measurement import measure
    from pipeline.evaluation.prediction_differences import compare_predictions
    from pipeline.metrics.detection_metrics import evaluate

    predictions, before = compare_predictions(recorded, replayed.results), evaluate(truth, recorded)
    if not {_LIMITS, *_JUDGED} <= exam.parameters.keys():
        return Comparison(predictions, before.map, UNKNOWN, ())
    gate = _judge_again(exam, truth, measure(truth, replayed, bento, {}))
    return Comparison(predictions, before.map, *decide(exam, gate))


def _judge_again(exam: Exam, truth: GroundTruth, measured: Measurement) -> QualityGate:
    from pipeline.evaluation.gate_limits import read_limits
    from pipeline.evaluation.quality_gate import judge

    limits = read_limits(exam.parameters[_LIMITS], truth.categories.values())
    given = {name: exam.parameters[name] for name in _JUDGED}
    return judge(measured, limits, **given, release=exam.mode == "prod")


def decide(exam: Exam, replayed: QualityGate) -> tuple[str, tuple[str, ...]]:
    """The gate's decision with the replayed figures, and the limits that count as recorded.

    These are the limits of which the replay tells nothing, such as those relative to a model that it does not run. The
    limits in words differ by the figures reached, but come in the same order.
    """
    found = replayed.outcomes
    if len(found) != len(exam.limits):
        return UNKNOWN, ()
    pairs = list(zip(exam.limits.items(), found.values(), strict=True))
    kept = tuple(text for (text, _), now in pairs if now is None)
    return gate_verdict(then if now is None else now for (_, then), now in pairs), kept
