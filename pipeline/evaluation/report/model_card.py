"""A model card: what a model is, was made from and is worth, as Markdown and as a section of the report.

The Markdown begins with metadata as in https://huggingface.co/docs/hub/model-cards, the results as its `model-index`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.data.dataset_origin import DatasetOrigin
from pipeline.detection.training_origins import TrainingOrigins
from pipeline.evaluation.decision import decide
from pipeline.evaluation.measurement import Measurement
from pipeline.evaluation.quality_gate import QualityGate
from pipeline.evaluation.report.templates import render
from pipeline.metrics.named_figures import FIGURES
from pipeline.serving.model_metadata import ModelMetadata

_FEW_OBJECTS = 10
_TOLD = ("learned_images", "recipe", "ended_early")  # of the training: told in sentences, or shown one by one
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&@!])")
_SEPARATORS = str.maketrans("_", " ")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class ReportOrigin:
    """What a report states as its origin."""

    judged: int  # models that have been judged on this test set, this one included, by the records of `mode`
    mode: str  # dev or prod, which keep their own records
    chosen: Sequence[str]  # inputs that were chosen by hand
    provenance: Mapping[str, Any]
    digests: Mapping[str, str]  # of each input, by entity name


@dataclass(frozen=True)
class DataVersion:
    """A set that the model was made from or judged by."""

    name: str  # train, eval or test
    digest: str  # of its artifact; empty where it is not known
    origin: DatasetOrigin | None  # None where it is not recorded

    @property
    def source(self) -> str:
        """What it was loaded from, in a line."""
        if not self.origin or not self.origin.name:
            return "not recorded"
        files = [self.origin.source or self.origin.name, self.origin.annotations, self.origin.format]
        return ", ".join(filter(None, files))

    @property
    def licences(self) -> str:
        """The licences of its images, with the number of images, in a line."""
        if not self.origin or not self.origin.licences:
            return "not stated"
        named = [f"{each.name}: {each.images}" if each.images else each.name for each in self.origin.licences]
        if self.origin.licences[0].images and self.origin.unlicensed:
            named.append(f"none stated: {self.origin.unlicensed}")
        return ", ".join(named)


@dataclass(frozen=True)
class ModelCard:
    """The facts of a model, by their names in words, and sentences."""

    name: str
    model: Facts
    weak: tuple[str, ...]  # where the model is weak, or hardly measured
    exposure: tuple[str, ...]  # test images that it may have learned from
    sets: tuple[DataVersion, ...]
    trained: tuple[str, ...]  # what became of the training
    training: Facts  # the recipe, and the result on the eval set
    parity: Facts  # of PyTorch and ONNX
    provenance: Facts  # of the evaluation

    @classmethod
    def of(
        cls,
        measured: Measurement,
        metadata: ModelMetadata,
        origins: TrainingOrigins | None,
        test: DatasetOrigin,
        origin: ReportOrigin,
    ) -> ModelCard:
        """Collect the facts.

        Args:
            measured: What was measured of the model.
            metadata: Those in the Bento.
            origins: What the model was trained from; None where that is not recorded.
            test: The origin of the test set.
            origin: That of the evaluation.
        """
        made, training = metadata.origin, metadata.training
        digests = made.get("data") or {}
        sets = [
            DataVersion(name, digests.get(f"coco_{name}_dataset", ""), origins.sets.get(name) if origins else None)
            for name in ("train", "eval")
            if "epochs" in training
        ]
        height, width = metadata.image_size
        count = len(metadata.classes)
        return cls(
            name=f"{metadata.name}, {count} {'class' if count == 1 else 'classes'}",
            model={
                "variant": metadata.name,
                "input": f"{width} x {height} pixels, letterboxed",
                **_tiles(metadata),
                "runtime, precision": f"{metadata.runtime}, {metadata.precision}",
                "answers from score": metadata.serving_score_threshold,
                "classes": ", ".join(metadata.classes),
                **_weights(metadata, origins),
                "SHA-256 of the ONNX file": metadata.onnx_sha256,
                "packed at commit": made.get("commit") or "not recorded",
                "packed epoch": made.get("weights") or "not recorded",
            },
            weak=tuple(_weak(measured)),
            exposure=tuple(_exposure(measured)),
            sets=(*sets, DataVersion("test", origin.digests.get("coco_test_dataset", ""), test)),
            trained=tuple(_trained(training, made.get("weights"))),
            training=_named({**training, **(training.get("recipe") or {})}, leave_out=_TOLD),
            parity=_named({name: value for name, value in metadata.metrics.items() if name.startswith("parity_")}),
            provenance=origin.provenance,
        )


def write_model_card(
    path: Path, card: ModelCard, measured: Measurement, gate: QualityGate, metadata: ModelMetadata
) -> None:
    """Write the card of a packed model; the `metadata` are those in the Bento."""
    text = render(
        "model_card.md.j2",
        {"figure": _figure, "plain": escape, "value": spelt},
        header=yaml.safe_dump(_header(measured, metadata), sort_keys=False, allow_unicode=True),
        card=card,
        decision=decide(measured, gate),
        metrics=measured.metrics,
        chance=measured.chance,
        figures=FIGURES,
    )
    path.write_text(text, "utf-8")


def _tiles(metadata: ModelMetadata) -> dict[str, str]:
    if not metadata.tile:
        return {}
    share = f"at least {metadata.overlap:.0%} shared"
    return {"larger images": f"as a whole, and in tiles of {metadata.tile} pixels, {share}"}


def _weights(metadata: ModelMetadata, origins: TrainingOrigins | None) -> Facts:
    """The weights that training started from."""
    licence = metadata.origin.get("licence") or ""
    if origins is None:
        return {"given weights": "not recorded", "licence of the given weights": licence or "not recorded"}
    if origins.weights is None:
        return {"given weights": "none: trained from scratch"}
    return {
        "given weights": f"{origins.weights.url}, SHA-256 {origins.weights.sha256}",
        "licence of the given weights": origins.weights.licence or "not known",
    }


def _weak(measured: Measurement) -> list[str]:
    """Where the model is weak, and what was hardly measured."""
    found = [
        f"Worse beyond chance where {each.property} is {each.value}: AP50 {_figure(each.ap50)}."
        for each in measured.slices.worse
    ]
    few = [each.name for each in measured.metrics.classes if each.ground_truth < _FEW_OBJECTS]
    if few:
        found.append(f"Hardly measured, with fewer than {_FEW_OBJECTS} objects in the test set: {', '.join(few)}.")
    return found


def _trained(training: Facts, packed: str | None) -> list[str]:
    """What became of the training; `packed` is `best` or `last`, or None where that is not recorded."""
    if not training:
        return ["How the model was trained is not recorded."]
    if "epochs" not in training:
        return ["The given weights are packed as they are: nothing was trained."]
    best, found = training.get("best_epoch"), []
    if images := (training.get("learned_images") or {}).get("images"):
        found.append(f"Training used {images} images, including those of the eval set, which decided the best epoch.")
    if packed == "last":
        found.append(f"The weights of the last epoch are packed. The figures are those of the best epoch, {best}.")
    elif best == 0:
        found.append("No epoch was better on the eval set than the given weights: these are packed unchanged.")
    if early := training.get("ended_early"):
        found.append(f"Training ended early: {early}.")
    return found


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


def _header(measured: Measurement, metadata: ModelMetadata) -> dict[str, Any]:
    known = {name: getattr(measured.metrics, figure.attribute) for name, figure in FIGURES.items()}
    results = [{"type": name, "value": round(value, 4)} for name, value in known.items() if value is not None]
    name = metadata.detector
    dataset = {"type": "custom", "name": f"test set, {measured.metrics.images} images"}
    index = {"name": name, "results": [{"task": {"type": "object-detection"}, "dataset": dataset, "metrics": results}]}
    return {
        "license": "other",  # that of the given weights and those of the data all have a say in it
        "license_name": "see-the-model-card",
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
