"""The figures that a report, a comparison and a limit name: which metric each is, and whether more of it is better."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NamedFigure:
    """A figure of a whole test set."""

    name: str  # as a limit names it
    attribute: str  # of `DetectionMetrics`
    meaning: str  # as a report shows it
    more_is_better: bool = True


FIGURES = {
    each.name: each
    for each in (
        NamedFigure("mAP", "map", "mAP"),
        NamedFigure("mAP50", "map50", "mAP50"),
        NamedFigure("mAP75", "map75", "mAP75"),
        NamedFigure("mAP_small", "map_small", "mAP, small objects"),
        NamedFigure("mAP_medium", "map_medium", "mAP, medium objects"),
        NamedFigure("mAP_large", "map_large", "mAP, large objects"),
        NamedFigure("AR1", "ar1", "AR, 1 detection"),
        NamedFigure("AR10", "ar10", "AR, 10 detections"),
        NamedFigure("AR100", "ar100", "AR, 100 detections"),
        NamedFigure(
            "fp_per_image",
            "fp_per_image_with_objects",
            "false alarms per image with objects",
            more_is_better=False,
        ),
        NamedFigure(
            "fp_per_empty_image",
            "fp_per_image_without_objects",
            "false alarms per image without objects",
            more_is_better=False,
        ),
    )
}
"""By name."""

CLASS_FIGURES = {"AP": "ap", "AP50": "ap50", "AR100": "ar100"}
"""Of one class: by name, the attribute of `ClassMetrics`."""
