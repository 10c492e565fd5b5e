"""Evaluations of detections made by hand, without a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.data.dataset_origin import read_origin
from pipeline.data.report.inline_images import FigureList, Gallery, Sections
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.form_comparison import MeasuredForm
from pipeline.evaluation.gate_limits import read_limits
from pipeline.evaluation.image_properties import Divisions
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.quality_gate import QualityGate, judge
from pipeline.evaluation.references import ReferenceDetections, compare_with_references
from pipeline.evaluation.report.charts import draw_charts
from pipeline.evaluation.report.gallery import ExampleGallery
from pipeline.evaluation.report.model_card import ModelCard, ReportOrigin
from pipeline.evaluation.report.quality_report import write_report
from pipeline.evaluation.slices import measure_divisions
from pipeline.metrics.chance import measure_chance
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.resampling import draw_figures
from pipeline.metrics.thresholds import advise_threshold
from pipeline.serving.model_metadata import ModelMetadata

Results = Sequence[Mapping[str, Any]]

NO_CHARTS = Sections({name: FigureList(()) for name in ("Curves", "Slices", "Confusions", "Epochs")})
NO_EXAMPLES = ExampleGallery((), (), {}, {}, {})
NOTHING = Gallery({})
CLEAN = Exposure(images=3, learned=120, seen={}, thumbnails=NOTHING, unknown_weights=(), coco_names=(), unseen=None)
METADATA = ModelMetadata("nano", (96, 64), ("bright", "dark"), onnx_sha256="a" * 64)
OPEN_GATE = {"min_map50": 0.0, "max_seen_exact": 1.0, "max_seen_similar": 1.0, "allow_no_detections": True}


def predictions(results: Results, **changes: Any) -> ServicePredictions:
    values = {
        "results": list(results),
        "service": {"name": "object_detector", "classes": ["bright", "dark"], "input_size": [64, 96], "limits": {}},
        "score_threshold": 0.01,
        "retries": 0,
        "workers": 2,
        "images_per_second": 6.0,
        "latency": {"mean": 11.0, "p50": 10.0, "p95": 20.0, "p99": 23.0, "max": 23.4},
        "stages": {},
        "dropped": {},
        "unknown_classes": (),
        "resized": (),
    }
    return ServicePredictions(**(values | changes))


def evaluated(
    truth: GroundTruth,
    results: Results,
    *,
    exposure: Exposure = CLEAN,
    others: Mapping[str, Results | str | ReferenceDetections] | None = None,
    limits: Sequence[str] = (),
    gate: Mapping[str, Any] | None = None,
    draws: int = 50,
    forms: Sequence[MeasuredForm] = (),
    **changes: Any,
) -> tuple[Measurement, QualityGate]:
    """What model_eval measures and decides by these detections; `changes` are those of the service's answers."""
    metrics = evaluate(truth, results)
    drawn = draw_figures(metrics, draws=draws)
    chance = measure_chance(metrics, drawn)
    detected = {name: _found(each) for name, each in (others or {}).items()}
    references = compare_with_references(truth, metrics, drawn, detected)
    measured = Measurement(
        predictions=predictions(results, **changes),
        metrics=metrics,
        chance=chance,
        exposure=exposure,
        references=references,
        forms=tuple(forms),
        slices=measure_divisions(metrics, Divisions((), ()), draws=draws),
        advice=advise_threshold(metrics, 0.3, draws=draws),
    )
    asked = read_limits(limits, truth.categories.values())
    return measured, judge(measured, asked, **(OPEN_GATE | dict(gate or {})), release=False)


def write_evaluated(
    path: Path, truth: GroundTruth, results: Results, gallery: ExampleGallery = NO_EXAMPLES, **more: Any
) -> None:
    """Write the report on these detections."""
    measured, gate = evaluated(truth, results, **more)
    origin = origin_of({"made by": "20260101T000000Z/model_eval/1"})
    card = card_of(measured, truth, origin)
    write_report(path, measured, gate, origin, card=card, charts=draw_charts(measured, truth.folder), gallery=gallery)


def origin_of(provenance: Mapping[str, Any], **changes: Any) -> ReportOrigin:
    """The origin of an evaluation in prod."""
    facts = {"judged": 2, "mode": "prod", "chosen": (), "digests": {"coco_test_dataset": "e" * 64}}
    return ReportOrigin(provenance=provenance, **(facts | changes))


def card_of(measured: Measurement, truth: GroundTruth, origin: ReportOrigin) -> ModelCard:
    """The card of a model of which little is recorded."""
    return ModelCard.of(measured, METADATA, None, read_origin(truth.folder), origin)


def _found(other: Results | str | ReferenceDetections) -> ReferenceDetections:
    """What another model finds, or why it cannot be told."""
    if isinstance(other, str):
        return ReferenceDetections(None, other)
    return other if isinstance(other, ReferenceDetections) else ReferenceDetections(other)
