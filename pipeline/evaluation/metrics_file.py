"""`metrics.json`: the figures of the model on the test set, as `metrics.schema.json` describes them.

Times are not among them, so that the same model on the same images has the same file.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.evaluation.decision import decide
from pipeline.evaluation.form_comparison import MeasuredForm
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.references import Reference
from pipeline.metrics.chance import CONFIDENCE, Interval
from pipeline.metrics.paired import Difference


def write_metrics(path: Path, measured: Measurement, gate: QualityGate) -> None:
    """Write what was measured, and what was decided by it."""
    document = measured.metrics.to_json()
    for each, interval in zip(document["classes"], measured.chance.class_ap, strict=True):
        each["ap_interval"] = _ends(interval)
    document = {
        "version": 2,
        "confidence": CONFIDENCE,
        "decision": asdict(decide(measured, gate)),
        "gate": {"passed": gate.passed, "limits": gate.outcomes},
        **document,
        "intervals": {name: _ends(interval) for name, interval in measured.chance.figures.items()},
        "slices": measured.slices.to_json(),
        "exposure": {
            "learned": measured.exposure.learned,
            "exact": measured.exposure.exact,
            "similar": measured.exposure.similar,
            "coco_names": len(measured.exposure.coco_names),
        },
        "threshold_advice": asdict(measured.advice) if measured.advice else None,
        "references": {each.name: _reference(each) for each in measured.references},
        "forms": {each.name: _form(each) for each in measured.forms},
    }
    path.write_text(json.dumps(document, indent=1, allow_nan=False), "utf-8")


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _reference(reference: Reference) -> dict[str, Any]:
    """The differences of a model from another."""
    paired = reference.paired
    if paired is None:
        return {"absence": reference.absence, "caution": "", "figures": {}, "class_ap": {}}

    return {
        "absence": "",
        "caution": reference.caution,
        "figures": {name: _difference(each) for name, each in paired.figures.items()},
        "class_ap": {name: _difference(each) for name, each in paired.class_ap.items()},
    }


def _form(form: MeasuredForm) -> dict[str, Any]:
    """The differences of a form from the service."""
    figures = form.paired.figures if form.paired else {}
    return {"refusal": form.refusal, "figures": {name: _difference(each) for name, each in figures.items()}}


def _difference(each: Difference) -> dict[str, Any]:
    interval = None if each.low is None or each.high is None else [each.low, each.high]
    return {"before": each.before, "change": each.change, "interval": interval, "verdict": each.verdict}
