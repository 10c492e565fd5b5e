"""All files of an evaluation: predictions, metrics, report, model card, and the labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.dataset_origin import ORIGINS_FILE, DatasetOrigin, read_origin, read_origins
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.metrics_file import write_metrics
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.report.gallery import ExampleGallery
from pipeline.evaluation.report.label_check_report import check_label_sets
from pipeline.evaluation.report.model_card import ModelCard, write_model_card
from pipeline.evaluation.report.quality_report import ReportOrigin, write_report
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

    def origins(self) -> dict[str, DatasetOrigin]:
        """The origins of the sets that the model was trained with, where they are recorded, and of the test set."""
        return {**read_origins(self.training / ORIGINS_FILE), "test": read_origin(self.test)}


def write_evaluation(
    folders: EvaluationFolders,
    measured: Measurement,
    gate: QualityGate,
    gallery: ExampleGallery,
    origin: ReportOrigin,
    *,
    checked: Mapping[str, tuple[GroundTruth, ServicePredictions]],
    adopt: Sequence[str] = (),
) -> list[str]:
    """Write `predictions.json`, `metrics.json`, `report.html`, `MODEL_CARD.md` and the folder `label_check`.

    Args:
        folders: Of the files.
        measured: What was measured on the test set.
        gate: What was decided by it.
        gallery: Examples of the test set.
        origin: What the report states as its origin.
        checked: The sets whose labels are checked, and what the service finds in them, by name.
        adopt: See `write_report`.

    Returns:
        What a user must know who does not open the report, a short sentence each.
    """
    measured.predictions.write_results(folders.results / "predictions.json")
    write_metrics(folders.results / "metrics.json", measured, gate)
    metadata = ModelMetadata.read(folders.packed / "src" / METADATA_FILE)
    card = ModelCard.of(measured, metadata, folders.origins(), origin.provenance)
    write_model_card(folders.report / "MODEL_CARD.md", card, measured, gate, metadata)
    return write_report(
        folders.report / "report.html",
        measured,
        gate,
        origin,
        card=card,
        gallery=gallery,
        label_checks=check_label_sets(checked, folders.report / "label_check"),
        epochs=read_training_epochs(folders.training),
        adopt=adopt,
    )
