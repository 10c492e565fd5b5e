"""A model card: what a model is, was made from and is worth, as Markdown and as a section of the report.

The Markdown begins with metadata as in https://huggingface.co/docs/hub/model-cards, the results as its `model-index`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.dataset_origin import DatasetOrigin
from pipeline.evaluation.decision import decide
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.report.templates import render
from pipeline.metrics.named_figures import FIGURES
from pipeline.serving.model_metadata import ModelMetadata

_FEW_OBJECTS = 10
_LONG = ("learned_images", "recipe", "ended_early")  # of the training: told elsewhere
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@!])")
_SEPARATORS = str.maketrans("_", " ")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class DataVersion:
    """A set that the model was made from or judged by."""

    name: str  # train, eval or test
    digest: str  # of its artifact; empty where it is not known
    origin: DatasetOrigin | None  # None where it is not recorded

    @property
    def licences(self) -> str:
        """The licences of its images, in a line."""
        if not self.origin or not self.origin.licences:
            return "not stated"
        named = [f"{each.name}: {each.images}" if each.images else each.name for each in self.origin.licences]
        return ", ".join(named + ([f"none stated: {self.origin.unlicensed}"] if self.origin.unlicensed else []))


@dataclass(frozen=True)
class ModelCard:
    """The facts of a model, by their names in words, and sentences."""

    name: str
    model: Facts
    limits: tuple[str, ...]  # what the model is not known to do
    learned: str  # which images it learned from
    exposure: tuple[str, ...]  # test images that it may have learned from
    sets: tuple[DataVersion, ...]
    training: Facts  # the recipe, and the result on the eval set
    parity: Facts  # of PyTorch and ONNX
    origin: Facts

    @classmethod
    def of(
        cls, measured: Measurement, metadata: ModelMetadata, sets: Mapping[str, DatasetOrigin], provenance: Facts
    ) -> ModelCard:
        """Collect the facts.

        Args:
            measured: What was measured of the model.
            metadata: Those in the Bento.
            sets: The origins of the data: `train` and `eval` where they are known, and `test`.
            provenance: What a report states as its origin.
        """
        origin, training = metadata.origin, metadata.training
        digests = {**provenance, **(origin.get("data") or {})}
        versions = [
            DataVersion(name, str(digests.get(f"coco_{name}_dataset", "")), sets.get(name))
            for name in ("train", "eval", "test")
        ]
        height, width = metadata.image_size
        count = len(metadata.classes)
        return cls(
            name=f"YOLOX-{metadata.variant}, {count} {'class' if count == 1 else 'classes'}",
            model={
                "variant": f"YOLOX-{metadata.variant}",
                "input": f"{width} x {height} pixels, letterboxed",
                "runtime, precision": f"{metadata.runtime}, {metadata.precision}",
                "answers from score": metadata.serving_score_threshold,
                "classes": ", ".join(metadata.classes),
                "licence of the weights that training started from": origin.get("licence") or "unknown",
                "SHA-256 of the ONNX file": metadata.onnx_sha256,
            },
            limits=tuple(_limits(measured)),
            learned=_learned(training),
            exposure=tuple(_exposure(measured)),
            sets=tuple(versions),
            training=_named({**training, **(training.get("recipe") or {})}, leave_out=_LONG),
            parity=_named({name: value for name, value in metadata.metrics.items() if name.startswith("parity_")}),
            origin={"commit": origin.get("commit") or "none", "weights of epoch": origin.get("weights"), **provenance},
        )


def write_model_card(
    path: Path, card: ModelCard, measured: Measurement, gate: QualityGate, metadata: ModelMetadata
) -> None:
    """Write the card of a packed model; the `metadata` are those in the Bento."""
    licence = str(metadata.origin.get("licence") or "")
    text = render(
        "model_card.md.j2",
        {"figure": _figure, "plain": escape, "value": spelt},
        header=yaml.safe_dump(_header(measured, metadata, licence), sort_keys=False, allow_unicode=True),
        card=card,
        decision=decide(measured, gate),
        metrics=measured.metrics,
        chance=measured.chance,
        figures=FIGURES,
    )
    path.write_text(text, "utf-8")


def _limits(measured: Measurement) -> list[str]:
    """Where the model is weak, and what was hardly measured."""
    found = [
        f"Worse beyond chance where {each.property} is {each.value}: AP50 {_figure(each.ap50)}."
        for each in measured.slices.worse
    ]
    few = [each.name for each in measured.metrics.classes if each.ground_truth < _FEW_OBJECTS]
    if few:
        found.append(f"Hardly measured, with fewer than {_FEW_OBJECTS} objects in the test set: {', '.join(few)}.")
    return found


def _learned(training: Facts) -> str:
    if training.get("best_epoch") == 0:
        return "No epoch of training was better on the eval set than the given weights: these are packed unchanged."
    images = (training.get("learned_images") or {}).get("images")
    if images is None:
        return "Which images it learned from is not recorded."
    return f"It is known to have learned from {images} images, those of the eval set, which chose the epoch, included."


def _exposure(measured: Measurement) -> list[str]:
    exposure = measured.exposure
    found = ["It is unknown which images the model learned from."]
    if exposure.learned is not None:
        found = [
            f"{exposure.exact} of {exposure.images} test images are training images byte for byte; "
            f"{exposure.similar} more look like one."
        ]
    found += [
        f"It descends from weights whose training images are unknown (SHA-256 {each.sha256})."
        for each in exposure.unknown_weights
    ]
    if exposure.coco_names:
        found.append(f"{len(exposure.coco_names)} test images are named like images of COCO train2017.")
    return found


def _named(facts: Facts, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    return {name.translate(_SEPARATORS): value for name, value in facts.items() if name not in leave_out}


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


def spelt(value: Any) -> str:
    """A value of a table: sequences and mappings spelt out, floats without noise."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {spelt(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(spelt, value)) or "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None or value == "" else str(value)


def escape(value: Any) -> str:
    """Text that Markdown shows as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def _figure(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"
