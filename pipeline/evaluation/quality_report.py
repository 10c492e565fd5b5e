"""The Model Quality Report: one HTML file to be read by a person, kept, mailed or printed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from pipeline.data.report.inline_images import Gallery, draw
from pipeline.evaluation.client import TestImageCheck
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.metric_charts import (
    ap_chart,
    confused_pairs,
    confusion_chart,
    f1_chart,
    precision_recall_chart,
)
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.remarks import exposure_remarks, notes, remarks, warnings

log = logging.getLogger(__name__)

_TEMPLATE = "report.html.j2"
_COMPARED = (  # heading, attribute of the metrics, digits
    ("images", "images", 0),
    ("objects", "objects", 0),
    ("mAP", "map", 3),
    ("mAP50", "map50", 3),
    ("mAP75", "map75", 3),
    ("AR, 100 detections", "ar100", 3),
    ("best threshold for all", "threshold", 2),
    ("F1 there, mean", "f1", 2),
    ("false positives per image with objects", "fp_per_image_with_objects", 2),
    ("false positives per image without objects", "fp_per_image_without_objects", 2),
)
_SMALL, _LARGE = 32**2, 96**2  # COCO's limits of object areas, in pixels


@dataclass(frozen=True)
class QualityReport:
    """A written report, and what a user must know who does not open it, a short sentence each."""

    path: Path
    notes: tuple[str, ...]


def write_report(
    path: Path,
    *,
    truth: GroundTruth,
    metrics: DetectionMetrics,
    predictions: ServicePredictions,
    check: TestImageCheck,
    gate: QualityGate,
    exposure: Exposure,
    judged: int,
    mode: str,
    chosen: Mapping[str, str],
    comparisons: Gallery,
    parameters: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> QualityReport:
    """Write the report; it needs no network, no script and no other file.

    Args:
        path: The HTML file.
        truth: The test set.
        metrics: The result of `evaluate`.
        predictions: The result of `predict_dataset`.
        check: The result of `check_test_image`.
        gate: The result of `judge`.
        exposure: The result of `check_exposure`.
        judged: How many models have been judged on this test set, this one included, by the records at hand.
        mode: Whose records these are: dev and prod keep their own.
        chosen: The inputs that were chosen by hand, and what was typed for each.
        comparisons: The result of `draw_comparisons`.
        parameters: Rows about the evaluation's parameters.
        provenance: Rows about the origin of the inputs.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": _figure, "value": _value}
    template = environment.from_string(resources.files(__package__).joinpath(_TEMPLATE).read_text("utf-8"))
    page = template.render(
        metrics=metrics,
        predictions=predictions,
        service=_service_rows(predictions.service),
        check=check,
        gate=gate,
        exposure=exposure,
        exposure_remarks=exposure_remarks(exposure),
        judged=_ordinal(judged),
        mode=mode,
        chosen=chosen,
        remarks=[*warnings(exposure, chosen), *remarks(metrics, predictions, check)],
        charts=draw(precision_recall_chart(metrics), f1_chart(metrics), ap_chart(metrics)),
        confusion_chart=draw(confusion_chart(metrics)),
        compared=_COMPARED,
        confused=confused_pairs(metrics),
        crowd_only=metrics.images - metrics.images_with_objects - metrics.images_without_objects,
        comparisons=comparisons,
        tables={"Data": dataset_rows(truth), "Parameters": parameters, "Provenance": provenance},
        query="" if metrics.threshold is None else f"?score_threshold={metrics.threshold:.2f}",
    )
    path.write_text(page, "utf-8")
    log.info("report of %.1f MB at %s", path.stat().st_size / 1e6, path)
    return QualityReport(path, tuple(notes(metrics, exposure)))


def dataset_rows(truth: GroundTruth) -> dict[str, Any]:
    """A test set in figures, as rows for the report."""
    objects = [each for each in truth.annotations if not each.iscrowd]
    small = sum(each.area < _SMALL for each in objects)
    large = sum(each.area > _LARGE for each in objects)
    widths, heights = sorted(each.width for each in truth.images), sorted(each.height for each in truth.images)
    middle = len(truth.images) // 2
    annotated = {each.image_id for each in truth.annotations}
    return {
        "images": len(truth.images),
        "images without objects": len({each.id for each in truth.images} - annotated),
        "images with crowd regions only": len(annotated - {each.image_id for each in objects}),
        "objects": len(objects),
        "crowd regions (neither right nor wrong)": len(truth.annotations) - len(objects),
        "small / medium / large objects": f"{small} / {len(objects) - small - large} / {large}",
        "classes": len(truth.categories),
        "image size, median": f"{widths[middle]} x {heights[middle]} px",
        "image size, range": f"{widths[0]} to {widths[-1]} x {heights[0]} to {heights[-1]} px",
    }


def _service_rows(service: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of `/info` in words, without empty values."""
    rows = {name.replace("_", " "): entry for name, entry in service.items() if entry not in ({}, [], "", None)}
    size = rows.get("input size")
    if isinstance(size, list) and len(size) == 2:
        rows["input size"] = f"{size[0]} x {size[1]} px (height x width)"
    return rows


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th; 11th, 12th, 13th."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _figure(number: float | None, digits: int = 3) -> str:
    return "-" if number is None else f"{number:.{digits}f}"


def _value(value: Any) -> str:
    """A value of a table: sequences and mappings spelt out, floats without noise."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None or value == "" else str(value)
