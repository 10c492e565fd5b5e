"""All that is measured of a packed model on a test set, before anything is decided by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pipeline.evaluation.exposure import Exposure, check_exposure
from pipeline.evaluation.form_comparison import MeasuredForm, compare_forms
from pipeline.evaluation.prediction import FormPredictions, ServicePredictions
from pipeline.evaluation.references import Reference, ReferenceDetections, compare_with_references
from pipeline.evaluation.slices import Slices, measure_slices
from pipeline.metrics.chance import Chance, measure_chance
from pipeline.metrics.detection_metrics import DetectionMetrics, evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.resampling import draw_figures
from pipeline.metrics.thresholds import ThresholdAdvice, advise_threshold


@dataclass(frozen=True)
class Measurement:
    """What the service found, how good that is, how far chance moves it, and how it compares."""

    predictions: ServicePredictions
    metrics: DetectionMetrics
    chance: Chance
    exposure: Exposure
    references: tuple[Reference, ...]  # other models on the same images
    forms: tuple[MeasuredForm, ...]  # further forms of this model on the same images
    slices: Slices
    advice: ThresholdAdvice | None  # on the service's score threshold

    def figures(self) -> dict[str, float | int | None]:
        """The figures for a record, the most important first; `mAP_low` and `mAP_high` are the ends of its interval."""
        metrics, interval = self.metrics, self.chance.figures["map"]
        known = self.exposure.learned is not None
        return {
            "mAP": metrics.map,
            "mAP50": metrics.map50,
            "mAP_low": interval.low if interval else None,
            "mAP_high": interval.high if interval else None,
            "images": metrics.images,
            "detections": metrics.detections,
            "fp_per_image": metrics.fp_per_image_with_objects,
            "fp_per_empty_image": metrics.fp_per_image_without_objects,
            "seen_exact_share": self.exposure.exact / metrics.images if known else None,
            "seen_similar_share": self.exposure.similar / metrics.images if known else None,
            "images_per_second": self.predictions.images_per_second,
            "latency_p50_ms": self.predictions.latency["p50"],
            "latency_p95_ms": self.predictions.latency["p95"],
        }


def measure(
    truth: GroundTruth,
    predictions: ServicePredictions,
    bento: Path,
    references: Mapping[str, ReferenceDetections],
    forms: Mapping[str, FormPredictions] = MappingProxyType({}),
    max_form_loss: float = 0.0,
) -> Measurement:
    """Measure what a packed model found in a test set, beside what other models and other forms of it found there.

    A form whose mAP is lower by more than `max_form_loss` is refused.
    """
    metrics = evaluate(truth, predictions.results)
    draws = draw_figures(metrics)
    return Measurement(
        predictions=predictions,
        metrics=metrics,
        chance=measure_chance(metrics, draws),
        exposure=check_exposure(truth, bento, predictions.results),
        references=compare_with_references(truth, metrics, draws, references),
        forms=compare_forms(truth, draws, forms, max_form_loss),
        slices=measure_slices(truth, metrics),
        advice=advise_threshold(metrics, float(predictions.service["serving_score_threshold"])),
    )
