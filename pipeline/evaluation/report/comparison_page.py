"""Two models on the same test images as one HTML page: their figures, and pictures of what changed."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.changes import IMAGES_GAINED, IMAGES_LOST, Changes
from pipeline.evaluation.report.gallery import ExampleGallery, script_source
from pipeline.evaluation.report.templates import render
from pipeline.files import write_atomically
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.named_figures import FIGURES
from pipeline.metrics.paired import PairedFigures


def write_comparison(
    path: Path,
    *,
    truth: GroundTruth,
    names: tuple[str, str],
    paired: PairedFigures,
    changes: Changes,
    gallery: ExampleGallery,
) -> None:
    """Write the page; it needs no network and no other file. `names` are those of the two models, the first before."""
    page = render(
        "comparison.html.j2",
        {},
        names=names,
        paired=paired,
        figures={FIGURES[name].meaning: each for name, each in paired.figures.items()},
        thresholds=changes.thresholds,
        counts={group: len(examples) for group, examples in changes.groups.items()},
        files={group: changes.files(group, truth) for group in (IMAGES_LOST, IMAGES_GAINED)},
        gallery=gallery,
        script_source=script_source(),
    )
    write_atomically(path, page)
