"""The Model Quality Report: one HTML file to be read by a person, kept, mailed or printed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipeline.data.fonts import missing_fonts, unwritten
from pipeline.data.report.inline_images import Sections
from pipeline.evaluation.decision import decide
from pipeline.evaluation.hardware import read_hardware
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.prediction import STAGES
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.report.charts import confused_pairs
from pipeline.evaluation.report.gallery import ExampleGallery, script_source
from pipeline.evaluation.report.label_check_report import LabelCheckSection
from pipeline.evaluation.report.model_card import ModelCard, ReportOrigin, spelt
from pipeline.evaluation.report.templates import render
from pipeline.evaluation.training_epochs import TrainingEpochs
from pipeline.metrics.chance import FEWEST_IMAGES, Interval
from pipeline.metrics.named_figures import FIGURES

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
_KINDS = {  # what each kind of error means
    "localisation": "the right class, but the box overlaps the object by IoU 0.1 to 0.5",
    "classification": "the box is right, the class is not",
    "both": "a wrong class, and the box overlaps the object by IoU 0.1 to 0.5",
    "duplicate": "a second detection of an object that was found",
    "background": "no object there",
    "missed": "an object without any detection",
}
_FEW_OBJECTS = 10  # below this many, one object more or less moves AP by ten points


def write_report(
    path: Path,
    measured: Measurement,
    gate: QualityGate,
    origin: ReportOrigin,
    *,
    card: ModelCard,
    charts: Sections,
    gallery: ExampleGallery,
    label_checks: Sequence[LabelCheckSection] = (),
    epochs: TrainingEpochs | None = None,
    adopt: Sequence[str] = (),
) -> list[str]:
    """Write the report; it needs no network and no other file.

    `charts` are those of `draw_charts`.
    `adopt` says how the recommended threshold is adopted; `{threshold}` in it stands for the number.

    Returns:
        What a user must know who does not open it, a short sentence each.
    """
    metrics = measured.metrics
    notes = [*_notes(measured), *_close_calls(gate)]
    page = render(
        "report.html.j2",
        {"figure": _figure, "interval": _interval, "value": spelt},
        **vars(measured),
        gate=gate,
        decision=decide(measured, gate),
        figures=FIGURES,
        origin=origin,
        card=card,
        evaluated_at=datetime.now(UTC),
        remarks=[*notes, *_remarks(measured, origin.chosen)],
        unwritten=unwritten(metrics.classes),
        kinds=_KINDS,
        fewest=FEWEST_IMAGES,
        charts=charts.parts,
        stages=STAGES,
        hardware=read_hardware(),
        adopt=adopt,
        label_checks=label_checks,
        epochs=epochs,
        compared=_COMPARED,
        confused=confused_pairs(metrics),
        crowd_only=metrics.images - metrics.images_with_objects - metrics.images_without_objects,
        gallery=gallery,
        script_source=script_source(),
    )
    path.write_text(page, "utf-8")
    return notes


def _notes(measured: Measurement) -> list[str]:
    """What a user must know, for the head of the report and for a terminal."""
    metrics, exposure, predictions = measured.metrics, measured.exposure, measured.predictions
    notes = []
    if metrics.objects and not metrics.detections:
        notes.append("the model found nothing in the test set")
    if metrics.threshold is None:
        nothing = "no detection is right at any" if metrics.detections else "there is no detection"
        reason = nothing if metrics.objects else "the test set has no object"
        notes.append(f"no score threshold can be recommended: {reason}")
    if exposure.seen:
        notes.append(
            f"test images that the model learned from: {exposure.exact} of {exposure.images} byte for byte, "
            f"{exposure.similar} more look alike"
        )
    if exposure.learned is None:
        notes.append("which images the model learned from is unknown: it was packed before this was recorded")
    if exposure.unknown_weights:
        notes.append("the model descends from weights whose training images are unknown")
    if exposure.coco_names:
        count = f"{len(exposure.coco_names)} of {exposure.images}"
        notes.append(f"test images named like those of COCO train2017, which COCO's weights learned from: {count}")
    if predictions.unknown_classes:
        names = ", ".join(predictions.unknown_classes)
        notes.append(f"the service does not know these classes of the test set, so their AP is 0: {names}")
    if predictions.resized:
        first = f"{len(predictions.resized)}, for instance {predictions.resized[0]}"
        notes.append(f"test images that are not of the annotated size: {first}")
    notes += [f"{each.name} is not delivered: {each.refusal}" for each in measured.forms if each.refusal]
    if missing := missing_fonts(metrics.classes):
        notes.append(missing)
    return notes


def _close_calls(gate: QualityGate) -> list[str]:
    """Limits that lie within the interval of their figure: chance decided about them."""
    return [
        f"too close to call: {each}; its 95 % interval is {_interval(each.interval)}"
        for each in gate.requirements
        if each.passed is not None and each.is_close and not each.is_difference
    ]


def _remarks(measured: Measurement, chosen: Sequence[str]) -> list[str]:
    """Facts about the model and the test set that the figures do not show."""
    metrics, predictions = measured.metrics, measured.predictions
    remarks = [f"inputs chosen by hand: {', '.join(chosen)}"] if chosen else []
    training = predictions.service.get("training") or {}
    before, gained = training.get("pretrained_mAP"), training.get("gained_mAP")
    if before is not None and gained is not None:  # not trained from scratch
        raised = f"training raised mAP on the eval set by {gained:.3f}, from {before:.3f} with the pretrained weights"
        kept = f"no epoch of training was better on the eval set than the pretrained weights, mAP {before:.3f}"
        is_last = (predictions.service.get("origin") or {}).get("weights") == "last"
        packed = "the weights of the last epoch are packed all the same" if is_last else "these are packed unchanged"
        remarks.append(raised if training.get("best_epoch") else f"{kept}: {packed}")
    if predictions.dropped:
        count, classes = sum(predictions.dropped.values()), len(predictions.dropped)
        remarks.append(f"{count} detections of {classes} classes that the test set does not have were left out")
    rare = sum(0 < each.ground_truth < _FEW_OBJECTS for each in metrics.classes)
    if rare:
        remarks.append(
            f"{rare} of {len(metrics.classes)} classes have fewer than {_FEW_OBJECTS} objects; their figures, and the "
            "mean's share of them, are rough"
        )
    absent = [each.name for each in metrics.classes if not each.ground_truth]
    if absent:
        remarks.append(f"without objects in the test set, and not in the means: {', '.join(absent)}")
    return remarks


def _figure(number: float | None, digits: int = 3) -> str:
    return "-" if number is None else f"{number:.{digits}f}"


def _interval(interval: Interval | None, digits: int = 3) -> str:
    return "" if interval is None else f"{interval.low:.{digits}f} to {interval.high:.{digits}f}"
