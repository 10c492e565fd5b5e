"""All forms of a model sit the same exam: each is served, and judged by what it finds in the same test images."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.evaluation.packed_forms import read_forms, write_forms
from pipeline.evaluation.prediction import FormPredictions, ServicePredictions
from pipeline.metrics.detection_metrics import evaluate
from pipeline.metrics.ground_truth import GroundTruth
from pipeline.metrics.paired import Difference, PairedFigures, compare_draws
from pipeline.metrics.resampling import Draws, draw_figures


@dataclass(frozen=True)
class MeasuredForm:
    """A further form of the model on the same images as the service, and what it has more than that."""

    name: str  # of `runtimes.FORMS`
    predictions: ServicePredictions | None = None
    paired: PairedFigures | None = None
    refusal: str = ""  # why it is not delivered; empty where it is

    @property
    def map(self) -> Difference | None:
        """The difference of its mAP to the service's; None where one of them is not defined."""
        return self.paired.figures.get("mAP") if self.paired else None


def compare_forms(
    truth: GroundTruth, draws: Draws, found: Mapping[str, FormPredictions], max_loss: float
) -> tuple[MeasuredForm, ...]:
    """Compare what forms found with what the service found, whose figures have these draws.

    A form that loses more than `max_loss` of mAP is refused, whether or not chance explains it.
    """
    forms = []
    for name, each in found.items():
        if each.predictions is None:
            forms.append(MeasuredForm(name, refusal=each.absence))
            continue
        metrics = evaluate(truth, each.predictions.results)
        paired = compare_draws(metrics, draws, draw_figures(metrics, draws=len(draws.class_ap) - 1))
        form = MeasuredForm(name, each.predictions, paired)
        if form.map is None:
            form = replace(form, refusal="its mAP is not defined: the test set has no object")
        elif -form.map.change > max_loss:
            form = replace(form, refusal=f"it loses {-form.map.change:.3f} of mAP, more than {max_loss:g}")
        forms.append(form)
    return tuple(forms)


def deliver_forms(forms: Sequence[MeasuredForm], packed: Path, folder: Path) -> None:
    """Copy the Bentos of the forms that are not refused, and list them."""
    names = {each.name for each in forms if not each.refusal}
    passed = [each for each in read_forms(packed) if each.name in names]
    for each in passed:
        shutil.copytree(packed / each.name, folder / each.name)
    write_forms(passed, folder)
