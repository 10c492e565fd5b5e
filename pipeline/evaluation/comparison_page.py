"""Two models on the same test images as one HTML page: their figures, and pictures of what changed."""

from __future__ import annotations

from pathlib import Path

from pipeline.evaluation.changes import IMAGES_GAINED, IMAGES_LOST, Changes
from pipeline.evaluation.gallery import ExampleGallery, script_source
from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.paired import PairedFigures
from pipeline.evaluation.templates import render
from pipeline.files import write_atomically


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
        figures=paired.figures,
        thresholds=changes.thresholds,
        counts={group: len(examples) for group, examples in changes.groups.items()},
        files={group: changes.files(group, truth) for group in (IMAGES_LOST, IMAGES_GAINED)},
        gallery=gallery,
        script_source=script_source(),
    )
    write_atomically(path, page)
