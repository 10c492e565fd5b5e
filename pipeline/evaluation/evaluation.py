"""All that is known of a packed model on a test set: what the report shows and `metrics.json` holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.evaluation.chance import CONFIDENCE, Chance, Interval
from pipeline.evaluation.decision import Decision, decide
from pipeline.evaluation.exposure import Exposure
from pipeline.evaluation.metrics import DetectionMetrics
from pipeline.evaluation.paired import Difference
from pipeline.evaluation.prediction import ServicePredictions
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.references import Reference


@dataclass(frozen=True)
class Evaluation:
    """The figures of a model, how far chance moves them, and what was decided by them."""

    predictions: ServicePredictions
    metrics: DetectionMetrics
    chance: Chance
    exposure: Exposure
    references: tuple[Reference, ...]  # other models on the same images
    gate: QualityGate

    @property
    def decision(self) -> Decision:
        """What a reader must know first."""
        return decide(self.metrics, self.chance, self.gate, self.references, self.exposure)

    def write_metrics(self, path: Path) -> None:
        """Write all numbers of the report, as `metrics.schema.json` describes them."""
        document = self.metrics.to_json()
        for each, interval in zip(document["classes"], self.chance.class_ap, strict=True):
            each["ap_interval"] = _ends(interval)
        document = {
            "version": 2,
            "confidence": CONFIDENCE,
            "decision": asdict(self.decision),
            "gate": {"passed": self.gate.passed, "limits": self.gate.outcomes},
            **document,
            "intervals": {name: _ends(interval) for name, interval in self.chance.figures.items()},
            "references": {each.name: _reference(each) for each in self.references},
        }
        path.write_text(json.dumps(document, indent=1, allow_nan=False), "utf-8")


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def _reference(reference: Reference) -> dict[str, Any]:
    """The differences of a model from another."""
    paired = reference.paired
    if paired is None:
        return {"absence": reference.absence, "figures": {}, "class_ap": {}}

    return {
        "absence": "",
        "figures": {name: _difference(each) for name, each in paired.figures.items()},
        "class_ap": {name: _difference(each) for name, each in paired.class_ap.items()},
    }


def _difference(each: Difference) -> dict[str, Any]:
    interval = None if each.low is None or each.high is None else [each.low, each.high]
    return {"before": each.before, "change": each.change, "interval": interval, "verdict": each.verdict}
