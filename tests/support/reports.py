"""Arguments of a Model Quality Report, for those that a test does not care about."""

from __future__ import annotations

from typing import Any

from pipeline.data.report.inline_images import Gallery
from pipeline.evaluation.chance import measure_chance
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.gallery import ExampleGallery
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.quality_gate import judge

NOTHING = Gallery({})
NO_EXAMPLES = ExampleGallery((), (), {}, {}, {})
CLEAN = Exposure(images=3, learned=120, seen={}, thumbnails=NOTHING, unknown_weights=(), coco_names=(), unseen=None)


def predictions(results: list[dict[str, Any]], **changes: Any) -> ServicePredictions:
    """What a service of two classes answered."""
    values = {
        "results": results,
        "service": {"name": "object_detector", "classes": ["bright", "dark"], "input_size": [64, 96], "limits": {}},
        "score_threshold": 0.01,
        "retries": 0,
        "workers": 2,
        "images_per_second": 6.0,
        "latency": {"p50": 10.0, "max": 23.4},
        "dropped": {},
        "unknown_classes": (),
        "resized": (),
    }
    return ServicePredictions(**(values | changes))


def report_arguments(metrics: DetectionMetrics, results: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """All keyword arguments of `write_report`, some of them changed."""
    exposure = changes.get("exposure", CLEAN)
    limits = {"min_map50": 0.5, "max_seen_exact": 1.0, "max_seen_similar": 1.0}
    values = {
        "metrics": metrics,
        "predictions": predictions(results),
        "gate": judge(metrics, exposure, **limits, allow_no_detections=True, release=False),
        "exposure": exposure,
        "chance": measure_chance(metrics, draws=50),
        "judged": 2,
        "mode": "prod",
        "chosen": (),
        "gallery": NO_EXAMPLES,
        "provenance": {"run": "20260101T000000Z"},
    }
    return values | changes
