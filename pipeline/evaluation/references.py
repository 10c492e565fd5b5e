"""The models that the packed one is compared with, on the very same images.

- `given`: the weights that training started from, untouched, in PyTorch;
- `earlier`: the service of the earlier run;
- `pytorch`: the packed weights in PyTorch, before the export.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.ground_truth import GroundTruth
from pipeline.evaluation.metrics import DetectionMetrics, evaluate
from pipeline.evaluation.paired import PairedFigures, compare_draws
from pipeline.evaluation.resampling import Draws, draw_figures

Results = Sequence[Mapping[str, Any]]

TITLES = {
    "given": "given weights",
    "earlier": "earlier model",
    "pytorch": "same weights in PyTorch",
}


@dataclass(frozen=True)
class Reference:
    """A model on the same images, and what the packed one has more; or why there is none."""

    name: str  # a key of `TITLES`
    paired: PairedFigures | None
    absence: str = ""

    @property
    def title(self) -> str:
        """What it is, for a reader."""
        return TITLES[self.name]


def compare_with_references(
    truth: GroundTruth, metrics: DetectionMetrics, draws: Draws, found: Mapping[str, Results | str]
) -> tuple[Reference, ...]:
    """Compare a model, by its metrics and their draws, with what others found in the same images.

    `found` has for each of `TITLES` the detections in COCO's results format, or the reason why there are none.
    """
    references = []
    for name, results in found.items():
        if isinstance(results, str):
            references.append(Reference(name, None, results))
        else:
            before = draw_figures(evaluate(truth, results), draws=len(draws.class_ap) - 1)
            references.append(Reference(name, compare_draws(metrics, before, draws)))
    return tuple(references)
