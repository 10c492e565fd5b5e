"""All files of an evaluation: predictions, metrics, report, model card, and the labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.dataset_origin import read_origin
from pipeline.data.report.inline_images import Sections
from pipeline.detection.training_origins import ORIGINS_FILE, TrainingOrigins
from pipeline.evaluation.decision import Decision, decide
from pipeline.evaluation.form_comparison import deliver_forms
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.metrics_file import write_metrics
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.report.gallery import ExampleGallery
from pipeline.evaluation.report.label_check_report import check_label_sets
from pipeline.evaluation.report.model_card import ModelCard, ReportOrigin, write_model_card
from pipeline.evaluation.report.quality_report import write_report
from pipeline.evaluation.training_epochs import read_training_epochs
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata


@dataclass(frozen=True)
class EvaluationFolders:
    """Where the files go, and where the files of the training, the Bento and the test set are."""

    results: Path
    report: Path
    training: Path
    packed: Path
    test: Path  # the test set
    forms: Path  # further forms of the model
    delivered: Path  # those of them that lose little


@dataclass(frozen=True)
class WrittenEvaluation:
    """What the report says to those who do not open it."""

    decision: Decision
    notes: list[str]  # what a user must know, a short sentence each


def write_evaluation(
    folders: EvaluationFolders,
    measured: Measurement,
    gate: QualityGate,
    charts: Sections,
    gallery: ExampleGallery,
    origin: ReportOrigin,
    *,
    checked: Mapping[str, tuple[GroundTruth, ServicePredictions]],
    adopt: Sequence[str] = (),
) -> WrittenEvaluation:
    """Write `predictions.json`, `metrics.json`, the report, the model card, `label_check`, and the forms that passed.

    Args:
        folders: Of the files.
        measured: What was measured on the test set.
        gate: What was decided by it.
        charts: Those of the report.
        gallery: Examples of the test set.
        origin: What the report states as its origin.
        checked: The sets whose labels are checked, and what the service finds in them, by name.
        adopt: See `write_report`.

    """
    measured.predictions.write_results(folders.results / "predictions.json")
    write_metrics(folders.results / "metrics.json", measured, gate)
    deliver_forms(measured.forms, folders.forms, folders.delivered)
    metadata = ModelMetadata.read(folders.packed / "src" / METADATA_FILE)
    trained = ModelMetadata.read(folders.training / METADATA_FILE)
    # a Bento that was chosen by hand may be of another training
    origins = TrainingOrigins.read(folders.training / ORIGINS_FILE) if trained.training == metadata.training else None
    card = ModelCard.of(measured, metadata, origins, read_origin(folders.test), origin)
    write_model_card(folders.report / "MODEL_CARD.md", card, measured, gate, metadata)
    notes = write_report(
        folders.report / "report.html",
        measured,
        gate,
        origin,
        card=card,
        charts=charts,
        gallery=gallery,
        label_checks=check_label_sets(checked, folders.report / "label_check"),
        epochs=read_training_epochs(folders.training),
        adopt=adopt,
    )
    return WrittenEvaluation(decide(measured, gate), notes)
