"""Remarks on the figures: sentences for the report, and short notes for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.data.learned_images import UnknownWeights
from pipeline.evaluation.client import TestImageCheck
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.prediction import ServicePredictions

_FEW_OBJECTS = 10  # below this many, one object more or less moves AP by ten points
_NAMED = 10  # file names to list


def notes(metrics: DetectionMetrics, exposure: Exposure) -> list[str]:
    """What a user must know who does not open the report, a short sentence each."""
    lines = []
    if metrics.objects and not metrics.detections:
        lines.append("the model found nothing in the test set")
    if metrics.threshold is None:
        lines.append(f"no score threshold can be recommended: {_why_no_threshold(metrics)}")
    if exposure.seen:
        lines.append(
            f"test images that the model learned from: {exposure.exact} of {exposure.images} byte for byte, "
            f"{exposure.similar} more look alike"
        )
    if exposure.learned is None:
        lines.append("which images the model learned from is unknown: it was packed before this was recorded")
    if exposure.unknown_weights:
        lines.append("the model descends from weights whose training images are unknown")
    if exposure.coco_names:
        count = f"{len(exposure.coco_names)} of {exposure.images}"
        lines.append(f"test images named like those of COCO train2017, which COCO's weights learned from: {count}")
    return lines


def warnings(exposure: Exposure, chosen: Mapping[str, str]) -> list[str]:
    """Reasons to doubt the figures, for the head of the report.

    Args:
        exposure: The test images that the model has seen.
        chosen: The inputs that were chosen by hand, and what for each.
    """
    lines = []
    if exposure.seen:
        left = "" if exposure.unseen_images else " Nothing is left to judge by."
        lines.append(
            f"The model learned from images of this test set: {exposure.exact} of {exposure.images} byte for byte, and "
            f"{exposure.similar} more look alike.{left}"
        )
    if exposure.learned is None:
        lines.append("It is unknown which images the model learned from.")
    if chosen:
        lines.append(f"Inputs chosen by hand: {', '.join(chosen)}.")
    return lines


def remarks(metrics: DetectionMetrics, predictions: ServicePredictions, check: TestImageCheck) -> list[str]:
    """Facts about the model, the service and the test set that the figures do not show."""
    lines = _training_gain(predictions.service.get("training") or {})
    if metrics.threshold is None:
        lines.append(
            f"No score threshold can be recommended: {_why_no_threshold(metrics)}. Errors are counted at score "
            f"{metrics.errors_at:.2f}."
        )
    if not check.agrees:
        lines.append(
            "The service does not give the predictions recorded for its test image: it is not the one that was packed."
        )
    if predictions.unknown_classes:
        names = ", ".join(predictions.unknown_classes)
        lines.append(f"The service does not know these classes of the test set, so their AP is 0: {names}.")
    if predictions.resized:
        lines.append(
            f"{len(predictions.resized)} images are not of the annotated size, for instance {predictions.resized[0]}."
        )
    if predictions.dropped:
        count = sum(predictions.dropped.values())
        lines.append(
            f"{count} detections of {len(predictions.dropped)} classes that the test set does not have were left out."
        )
    rare = sum(0 < each.ground_truth < _FEW_OBJECTS for each in metrics.classes)
    if rare:
        lines.append(
            f"{rare} of {len(metrics.classes)} classes have fewer than {_FEW_OBJECTS} objects; "
            "their figures, and the mean's share of them, are rough."
        )
    absent = [each.name for each in metrics.classes if not each.ground_truth]
    if absent:
        lines.append(f"Without objects in the test set, and not in the means: {', '.join(absent)}.")
    return lines


def exposure_remarks(exposure: Exposure) -> list[str]:
    """What is known of the test images that the model may have learned from."""
    lines = [_seen(exposure), *(_unknown(weights) for weights in exposure.unknown_weights)]
    if exposure.coco_names:
        more = len(exposure.coco_names) - _NAMED
        names = ", ".join(exposure.coco_names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        lines.append(
            f"Test images named like images of COCO train2017: {len(exposure.coco_names)} of {exposure.images}, "
            f"{names}. The public weights for COCO learned from images of these names"
            + ("." if exposure.knows_coco else ", and so did the model if it descends from such weights.")
        )
    elif exposure.unknown_weights:
        lines.append("No test image is named like an image of COCO train2017.")
    return lines


def _seen(exposure: Exposure) -> str:
    if exposure.learned is None:
        return (
            "It is unknown which images the model learned from, because it was packed before this was recorded. Test "
            "images may be among them."
        )
    learned = f"Images that the model is known to have learned from: {exposure.learned}."
    if not exposure.seen:
        return f"{learned} No test image is among them, or looks like one of them."
    return (
        f"{learned} Test images among them, byte for byte: {exposure.exact} of {exposure.images}. Others that look "
        f"like one of them, re-encoded, resized, mirrored, turned or hardly different: {exposure.similar}."
    )


def _unknown(weights: UnknownWeights) -> str:
    likely = (
        "They know COCO's 80 classes, so they most likely learned from COCO train2017."
        if weights.coco
        else "They may have learned from test images, or descend from weights that did."
    )
    return (
        f"The model descends from weights whose training images are unknown (SHA-256 {weights.sha256[:12]}…). {likely}"
    )


def _why_no_threshold(metrics: DetectionMetrics) -> str:
    if not metrics.objects:
        return "the test set has no object"
    return "no detection is right at any" if metrics.detections else "there is no detection"


def _training_gain(training: Mapping[str, Any]) -> list[str]:
    """How much training improved the pretrained weights on the eval set; nothing for training from scratch."""
    before, gained = training.get("pretrained_mAP"), training.get("gained_mAP")
    if before is None or gained is None:
        return []
    if not training.get("best_epoch"):
        return [
            f"No epoch of training was better on the eval set than the pretrained weights, mAP {before:.3f}: these "
            "are packed unchanged."
        ]
    return [f"Training raised mAP on the eval set by {gained:.3f}, from {before:.3f} with the pretrained weights."]
