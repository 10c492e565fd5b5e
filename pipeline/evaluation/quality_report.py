"""The Model Quality Report: one HTML file with everything in it, to be read by a person, kept, mailed or printed."""

from __future__ import annotations

import base64
import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from pipeline.evaluation.agreement import TestImageCheck
from pipeline.evaluation.curves import ap_chart, confused_pairs, confusion_chart, f1_chart, precision_recall_chart
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.ground_truth import GroundTruth, read_ground_truth
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.prediction import Predictions
from pipeline.evaluation.prediction_images import Picture
from pipeline.evaluation.quality_gate import Gate
from pipeline.evaluation.remarks import exposure_remarks, notes, remarks, warnings

logger = logging.getLogger(__name__)

_TEMPLATE = "report.html.j2"
_COMPARED = (
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
class Report:
    """Where the report is, its size in bytes, and what a user must know who does not open it."""

    path: Path
    size: int
    notes: tuple[str, ...]


def dataset_summary(dataset: str | Path | GroundTruth) -> dict[str, Any]:
    """What a test set holds, as rows for the report.

    Args:
        dataset: Its folder, its `annotations.json`, or what was read from it.
    """
    truth = dataset if isinstance(dataset, GroundTruth) else read_ground_truth(dataset)
    objects = [one for one in truth.annotations if not one.get("iscrowd", 0)]
    areas = [one.get("area", one["bbox"][2] * one["bbox"][3]) for one in objects]
    small, large = sum(area < _SMALL for area in areas), sum(area > _LARGE for area in areas)
    widths, heights = sorted(one.width for one in truth.images), sorted(one.height for one in truth.images)
    middle = len(truth.images) // 2
    ids, annotated = {one.id for one in truth.images}, {one["image_id"] for one in truth.annotations}
    return {
        "images": len(truth.images),
        "images without objects": len(ids - annotated),
        "images with crowd regions only": len(annotated - {one["image_id"] for one in objects}),
        "objects": len(objects),
        "crowd regions (neither right nor wrong)": len(truth.annotations) - len(objects),
        "small / medium / large objects": f"{small} / {len(objects) - small - large} / {large}",
        "classes": len(truth.categories),
        "image size, median": f"{widths[middle]} x {heights[middle]} px",
        "image size, range": f"{widths[0]} to {widths[-1]} x {heights[0]} to {heights[-1]} px",
    }


def write_report(
    path: str | Path,
    *,
    metrics: DetectionMetrics,
    predictions: Predictions,
    check: TestImageCheck,
    gate: Gate,
    exposure: Exposure,
    judged: int,
    mode: str,
    chosen: Mapping[str, str] | None = None,
    pictures: Sequence[Picture] = (),
    dataset: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    bento: str = "",
    title: str = "Model Quality Report",
) -> Report:
    """Write the report; it needs no network, no script and no other file.

    Args:
        path: The HTML file.
        metrics: What `evaluate` found.
        predictions: What `predict_dataset` measured.
        check: What `check_test_image` found.
        gate: What `judge` decided.
        exposure: What `check_exposure` found.
        judged: How many models have been judged on this test set, this one included, by the records at hand.
        mode: Whose records these are: dev and prod keep their own.
        chosen: The inputs that were chosen by hand, and what was typed for each.
        pictures: Images beside their ground truth.
        dataset: Rows about the test set, for instance from `dataset_summary`.
        parameters: Rows about the step's parameters.
        provenance: Rows about where everything came from: the attempt and its inputs' digests.
        bento: Tag or folder of the packed service, for the command that serves it.
        title: Of the page.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"figure": _figure, "percent": _percent, "value": _value, "image": _data_url}
    template = environment.from_string(resources.files(__package__).joinpath(_TEMPLATE).read_text("utf-8"))
    page = template.render(
        title=title,
        metrics=metrics,
        predictions=predictions,
        service=_service_rows(predictions.service),
        check=check,
        gate=gate,
        exposure=exposure,
        exposure_remarks=exposure_remarks(exposure),
        judged=_ordinal(judged),
        mode=mode,
        chosen=chosen or {},
        remarks=[*warnings(exposure, chosen or {}), *remarks(metrics, predictions, check)],
        charts={
            "curves": precision_recall_chart(metrics).to_png(),
            "f1": f1_chart(metrics).to_png(),
            "ap": ap_chart(metrics).to_png(),
            "confusion": confusion_chart(metrics).to_png(),
        },
        compared=_COMPARED,
        confused=confused_pairs(metrics),
        crowd_only=metrics.images - metrics.images_with_objects - metrics.images_without_objects,
        pictures=pictures,
        tables={
            "Data": dataset or {},
            "Parameters": parameters or {},
            "Provenance": provenance or {},
        },
        commands=_commands(metrics, bento),
    )
    path = Path(path)
    path.write_text(page, "utf-8")
    report = Report(path, path.stat().st_size, tuple(notes(metrics, exposure)))
    logger.info("report of %.1f MB at %s", report.size / 1e6, path)
    return report


def _service_rows(service: Mapping[str, Any]) -> dict[str, Any]:
    """What `/info` says, in words, without what is empty."""
    rows = {name.replace("_", " "): entry for name, entry in service.items() if entry not in ({}, [], "", None)}
    size = rows.get("input size")
    if isinstance(size, list | tuple) and len(size) == 2:
        rows["input size"] = f"{size[0]} x {size[1]} px (height x width)"
    return rows


def _commands(metrics: DetectionMetrics, bento: str) -> list[str]:
    query = "" if metrics.threshold is None else f"?score_threshold={metrics.threshold:.2f}"
    return [
        f"bentoml serve {shlex.quote(bento) if bento else '/path/to/bento_service'} --host 127.0.0.1 --port 3000",
        f"curl -F images=@photo.jpg 'http://127.0.0.1:3000/predict{query}'",
        "curl -X POST http://127.0.0.1:3000/info",
    ]


def _ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th; 11th, 12th, 13th."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def _figure(number: float | None, digits: int = 3) -> str:
    return "-" if number is None else f"{number:.{digits}f}"


def _percent(number: float | None) -> str:
    return f"{100 * (number or 0.0):.1f}%"


def _value(value: Any) -> str:
    """A value of a key-value table: sequences and mappings spelt out, floats without noise."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_value(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None or value == "" else str(value)


def _data_url(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
