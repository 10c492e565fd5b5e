"""A model card: what a model is, was made from and is worth, in Markdown with the metadata that Hugging Face reads.

The metadata follow https://huggingface.co/docs/hub/model-cards, the results its `model-index`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.evaluation.decision import decide
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.report.templates import render
from pipeline.metrics.named_figures import FIGURES
from pipeline.serving.model_metadata import ModelMetadata

_FEW_OBJECTS = 10
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@!])")


def write_model_card(
    path: Path,
    measured: Measurement,
    gate: QualityGate,
    metadata: ModelMetadata,
    provenance: Mapping[str, Any],
) -> None:
    """Write the card of a packed model; the `metadata` are those in the Bento."""
    licence = str(metadata.origin.get("licence") or "")
    few = [each.name for each in measured.metrics.classes if each.ground_truth < _FEW_OBJECTS]
    text = render(
        "model_card.md.j2",
        {"figure": _figure, "plain": escape},
        header=yaml.safe_dump(_header(measured, metadata, licence), sort_keys=False, allow_unicode=True),
        metadata=metadata,
        decision=decide(measured, gate),
        metrics=measured.metrics,
        chance=measured.chance,
        exposure=measured.exposure,
        slices=measured.slices,
        figures=FIGURES,
        licence=licence or "unknown",
        few=few,
        few_objects=_FEW_OBJECTS,
        recipe={name: value for name, value in metadata.training.items() if not isinstance(value, Mapping | list)},
        learned=(metadata.training.get("learned_images") or {}).get("images"),
        parity={name: value for name, value in metadata.metrics.items() if name.startswith("parity_")},
        data=metadata.origin.get("data") or {},
        provenance=provenance,
    )
    path.write_text(text, "utf-8")


def _header(measured: Measurement, metadata: ModelMetadata, licence: str) -> dict[str, Any]:
    known = {name: getattr(measured.metrics, figure.attribute) for name, figure in FIGURES.items()}
    results = [{"type": name, "value": round(value, 4)} for name, value in known.items() if value is not None]
    name = f"yolox-{metadata.variant}"
    dataset = {"type": "coco", "name": f"test set, {measured.metrics.images} images"}
    index = {"name": name, "results": [{"task": {"type": "object-detection"}, "dataset": dataset, "metrics": results}]}
    terms = {"license": "other", "license_name": licence} if licence else {"license": "unknown"}
    return {
        **(terms if not licence or "-" not in licence else {"license": licence.lower()}),
        "library_name": "onnx",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", "yolox", "onnx", "bentoml"],
        "model-index": [index],
    }


def escape(value: Any) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _figure(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"
