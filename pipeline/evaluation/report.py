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
from pipeline.evaluation.gate import Gate
from pipeline.evaluation.ground_truth import GroundTruth, read_ground_truth
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.pictures import Picture
from pipeline.evaluation.prediction import Predictions

logger = logging.getLogger(__name__)

_TEMPLATE = "report.html.j2"
_FEW_OBJECTS = 10  # below this many, one object more or less moves AP by ten points
_SMALL, _LARGE = 32**2, 96**2  # COCO's limits of object areas, in pixels


@dataclass(frozen=True)
class Report:
    """Where the report is, and its size in bytes."""

    path: Path
    size: int


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
    return {
        "images": len(truth.images),
        "images without objects": len({one.id for one in truth.images} - {one["image_id"] for one in objects}),
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
        remarks=_remarks(metrics, predictions, check),
        charts={
            "curves": precision_recall_chart(metrics).to_png(),
            "f1": f1_chart(metrics).to_png(),
            "ap": ap_chart(metrics).to_png(),
            "confusion": confusion_chart(metrics).to_png(),
        },
        confused=confused_pairs(metrics),
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
    report = Report(path, path.stat().st_size)
    logger.info("report of %.1f MB at %s", report.size / 1e6, path)
    return report


def _remarks(metrics: DetectionMetrics, predictions: Predictions, check: TestImageCheck) -> list[str]:
    """What a reader must know before believing the figures."""
    remarks = _gain(predictions.service.get("training") or {})
    if not check.agrees:
        remarks.append(
            "The service does not give the predictions recorded for its test image: what is served is not what was "
            "packed."
        )
    if predictions.unknown_classes:
        names = ", ".join(predictions.unknown_classes)
        remarks.append(f"The service does not know these classes of the test set, so their AP is 0: {names}.")
    if predictions.resized:
        remarks.append(
            f"{len(predictions.resized)} images are not of the annotated size, for instance {predictions.resized[0]}."
        )
    if predictions.dropped:
        count = sum(predictions.dropped.values())
        remarks.append(
            f"{count} detections of {len(predictions.dropped)} classes that the test set does not have were left out."
        )
    rare = [one.name for one in metrics.classes if 0 < one.ground_truth < _FEW_OBJECTS]
    if rare:
        remarks.append(
            f"{len(rare)} of {len(metrics.classes)} classes have fewer than {_FEW_OBJECTS} objects; "
            "their figures, and the mean's share of them, are rough."
        )
    absent = [one.name for one in metrics.classes if not one.ground_truth]
    if absent:
        remarks.append(f"Without objects in the test set, and not in the means: {', '.join(absent)}.")
    return remarks


def _gain(training: Mapping[str, Any]) -> list[str]:
    """What training made of pretrained weights, on the eval set; nothing where it started from none."""
    before, gained = training.get("pretrained_mAP"), training.get("gained_mAP")
    if before is None or gained is None:
        return []
    if not training.get("best_epoch"):
        return [
            f"No epoch of training was better on the eval set than the pretrained weights, mAP {before:.3f}: these are "
            "what is packed, as they were."
        ]
    return [f"Training raised mAP on the eval set by {gained:.3f}, from {before:.3f} with the pretrained weights."]


def _service_rows(service: Mapping[str, Any]) -> dict[str, Any]:
    """What `/info` says, in words, without what is empty."""
    rows = {name.replace("_", " "): entry for name, entry in service.items() if entry not in ({}, [], "", None)}
    size = rows.get("input size")
    if isinstance(size, list | tuple) and len(size) == 2:
        rows["input size"] = f"{size[0]} x {size[1]} px (height x width)"
    return rows


def _commands(metrics: DetectionMetrics, bento: str) -> list[str]:
    return [
        f"bentoml serve {shlex.quote(bento) if bento else '/path/to/bento_service'} --host 127.0.0.1 --port 3000",
        f"curl -F images=@photo.jpg 'http://127.0.0.1:3000/predict?score_threshold={metrics.threshold:.2f}'",
        "curl -X POST http://127.0.0.1:3000/info",
    ]


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
