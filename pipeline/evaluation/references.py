"""The models that the packed one is compared with, on the very same images.

- `given`: the weights that training started from, untouched, in PyTorch;
- `earlier`: the service of an earlier run;
- `pytorch`: the packed weights in PyTorch, before the export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.client.service_process import serve
from pipeline.detection.reference_predictions import predict_checkpoint, predict_given
from pipeline.errors import PipelineError
from pipeline.evaluation.exposure import check_exposure
from pipeline.evaluation.prediction import predict_dataset
from pipeline.evaluation.reference_names import EARLIER, GIVEN, PYTORCH, TITLES
from pipeline.metrics.detection_metrics import DetectionMetrics, evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.paired import PairedFigures, compare_draws
from pipeline.metrics.resampling import Draws, draw_figures
from pipeline.serving.model_metadata import METADATA_FILE, ModelMetadata


@dataclass(frozen=True)
class ReferenceDetections:
    """What a model finds in the test set, in COCO's results format; or why it cannot be told."""

    results: Sequence[Mapping[str, Any]] | None
    absence: str = ""
    caution: str = ""  # why the comparison flatters that model


@dataclass(frozen=True)
class Reference:
    """Another model on the same images, and what the packed one has more; or why it cannot be told."""

    name: str  # a key of `TITLES`
    paired: PairedFigures | None
    absence: str = ""
    caution: str = ""

    @property
    def title(self) -> str:
        """What it is, for a reader."""
        return TITLES[self.name]


def detect_with_references(
    truth: GroundTruth,
    names: Sequence[str],
    *,
    training: Path,
    packed: Path,
    earlier: Path | None,
    log_path: Path,
    score_threshold: float = 0.01,
    workers: int = 4,
) -> dict[str, ReferenceDetections]:
    """Have other models predict a test set.

    Args:
        truth: The test set.
        names: Which of `TITLES`.
        training: The folder that training wrote, with the checkpoints.
        packed: The Bento that is evaluated.
        earlier: The Bento of an earlier run, if there is one.
        log_path: Where the output of its server goes.
        score_threshold: The lowest score to ask for.
        workers: Requests under way at once.
    """
    images = [(image.id, truth.path_of(image.file_name)) for image in truth.images]
    categories = {name: id_ for id_, name in truth.categories.items()}
    metadata, found = ModelMetadata.read(packed / "src" / METADATA_FILE), {}
    if GIVEN in names:
        results = predict_given(training, images, categories, score_threshold=score_threshold, tiling=metadata.tiling)
        absence = "" if results is not None else _why_none_are_given(training)
        found[GIVEN] = ReferenceDetections(results, absence)
    if EARLIER in names:
        found[EARLIER] = _of_earlier(truth, earlier, log_path, score_threshold, workers)
    if PYTORCH in names:
        checkpoint = f"{metadata.origin.get('weights', 'best')}.pth"
        results = predict_checkpoint(
            training, checkpoint, images, categories, score_threshold=score_threshold, tiling=metadata.tiling
        )
        found[PYTORCH] = ReferenceDetections(results)
    return found


def _why_none_are_given(training: Path) -> str:
    was_given = ModelMetadata.read(training / METADATA_FILE).training.get("pretrained_mAP") is not None
    return "the training did not keep them" if was_given else "the model was trained from scratch"


def _of_earlier(
    truth: GroundTruth, bento: Path | None, log_path: Path, score_threshold: float, workers: int
) -> ReferenceDetections:
    if bento is None:
        return ReferenceDetections(None, "no earlier run of all steps has another one")
    try:
        with serve(bento, log_path=log_path) as service:
            predicted = predict_dataset(service.url, truth, score_threshold=score_threshold, workers=workers)
    except PipelineError as error:  # it may need a runtime or know classes that there no longer are
        return ReferenceDetections(None, f"it cannot be measured: {error.problem}")
    seen = check_exposure(truth, bento, predicted.results)
    told = f"it learned from {seen.exact} of the images byte for byte, and {seen.similar} more look alike"
    return ReferenceDetections(predicted.results, caution=told if seen.seen else "")


def compare_with_references(
    truth: GroundTruth, metrics: DetectionMetrics, draws: Draws, found: Mapping[str, ReferenceDetections]
) -> tuple[Reference, ...]:
    """Compare a model, by its metrics and their draws, with what others find in the same images."""
    references = []
    for name, each in found.items():
        paired = None
        if each.results is not None:
            before = draw_figures(evaluate(truth, each.results), draws=len(draws.class_ap) - 1)
            paired = compare_draws(metrics, before, draws)
        references.append(Reference(name, paired, each.absence, each.caution))
    return tuple(references)
