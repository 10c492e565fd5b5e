"""Detector families, one folder each, whose package has the family as `FAMILY`. Nothing else names a family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mmdet_training import build, set_machine
from pipeline.detection.transforms import letterbox
from pipeline.errors import UsageError, did_you_mean
from pipeline.serving.model_metadata import ModelMetadata

CARRIES = ("pipeline.detection.families",)  # the families' packages, imported by name, are part of the code


@dataclass(frozen=True)
class Family:
    """A detector family whose networks mmdet builds: all that training, export and parity ask of it."""

    name: str  # as its authors write it, such as YOLOX
    variants: tuple[str, ...]  # the smallest first
    stride: int  # the side of the square input is a multiple of it, in pixels
    class_layer: str  # prefix of the names of the parameters that have one row per class
    # gives the tensors of a checkpoint mmdet's names, and says whose names they had; raises `DataError` with the path
    normalize: Callable[[Mapping[str, Tensor], Path], tuple[dict[str, Tensor], str]]
    variant_of: Callable[[Mapping[str, Tensor]], str | None]  # of parameters under mmdet's names
    model_config: Callable[[ModelMetadata], Any]  # mmdet's config of a network, without anything of training
    # mmengine's config of a training; its data roots are the names of the two data sets
    training_config: Callable[[TrainingOptions, Hyperparameters, ModelMetadata, ExecutionConfig], Any]
    # wraps a network for export: `(B, 3, S, S)` float32 pixels to boxes `(B, N, 4)`, as x1, y1, x2, y2 in letterboxed
    # pixels, and scores `(B, C, N)`, without suppression
    exportable: Callable[[nn.Module], nn.Module]
    # completes a training's config with the folders of the train and eval sets, and all that differs between machines,
    # not in the result; the last folder has the annotation tables `train` and `eval`
    set_machine: Callable[[Any, Path, Path, ExecutionConfig, Path | None], None] = set_machine
    # image files as `(B, 3, S, S)` float32, by mmdet's own validation transforms
    letterbox: Callable[[Sequence[Path], tuple[int, int]], NDArray[np.float32]] = letterbox

    def build_model(self, metadata: ModelMetadata) -> nn.Module:
        """A network with initial weights, on the CPU."""
        model: nn.Module = build(self.model_config(metadata))
        return model

    def check(self, image_size: int) -> None:
        """Refuse an input that the feature maps do not cover exactly."""
        if image_size <= 0 or image_size % self.stride:
            problem, expected = f"image size {image_size} does not fit {self.name}", f"a multiple of {self.stride}"
            raise UsageError(problem, where="image_size", expected=expected)


@cache
def families() -> dict[str, Family]:
    """All families by their names in lower case."""
    names = sorted(each.name for each in iter_modules(__path__) if each.ispkg)
    found = [import_module(f"{__name__}.{name}").FAMILY for name in names]
    return {family.name.lower(): family for family in found}


def detectors() -> tuple[str, ...]:
    """All detectors, by family and from the smallest."""
    return tuple(f"{name}-{variant}" for name, family in families().items() for variant in family.variants)


def family_of(metadata: ModelMetadata) -> Family:
    """The family of a model."""
    return find_family(metadata.detector)


def find_family(detector: str) -> Family:
    """The family of a detector, such as `yolox-s`.

    Raises:
        UsageError: There is no such detector.
    """
    known = detectors()
    if detector not in known:
        raise UsageError(
            f"there is no detector '{detector}'",
            where="detector",
            expected="one of " + ", ".join(known),
            remedy=did_you_mean(detector, known, cutoff=0.3),
        )
    return families()[detector.rpartition("-")[0]]
