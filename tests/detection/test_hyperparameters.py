from __future__ import annotations

import math

import pytest

from pipeline.detection.families import find_family
from pipeline.detection.hyperparameters import (
    FROM_SCRATCH,
    KNOWN_CLASSES,
    MINIMA,
    NEW_CLASSES,
    TrainingOptions,
    default_hyperparameters,
)
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        *(pytest.param({name: least - 1}, f"{name} is {least - 1}", id=name) for name, least in MINIMA.items()),
        pytest.param({"learning_rate": math.nan}, "learning_rate is nan", id="a learning rate that is no number"),
        pytest.param({"augmentation": "cutout"}, "auto, flip, mosaic", id="augmentation"),
        pytest.param({"freeze": "head"}, "auto, nothing, stem, backbone", id="freeze"),
        pytest.param({"precision": "half"}, "auto, full, mixed", id="precision"),
    ],
)
def test_a_wrong_option(change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        TrainingOptions(**change)
    assert f"where:    {next(iter(change))}" in str(caught.value)


def test_the_least_that_is_allowed() -> None:
    TrainingOptions(**MINIMA)


def test_what_a_run_starts_from_chooses_the_rest() -> None:
    assert default_hyperparameters(pretrained=False, new_classes=3) == FROM_SCRATCH
    assert default_hyperparameters(pretrained=True, new_classes=0) == KNOWN_CLASSES
    assert default_hyperparameters(pretrained=True, new_classes=1) == NEW_CLASSES


@pytest.mark.parametrize(
    ("detector", "image_size", "says"),
    [
        pytest.param("yolox-nanoo", 64, r"no detector 'yolox-nanoo'[\s\S]*did you mean 'yolox-nano'", id="misspelt"),
        pytest.param("nano", 64, r"no detector 'nano'[\s\S]*did you mean 'yolox-nano'", id="without its family"),
        pytest.param("zzz", 64, "one of .*yolox-nano, yolox-tiny, yolox-s", id="unknown"),
        pytest.param("yolox-s", 250, "multiple of 32", id="not a multiple of 32"),
        pytest.param("yolox-s", 0, "multiple of 32", id="no size"),
    ],
)
def test_detectors_and_sizes_are_checked(detector: str, image_size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        find_family(detector).check(image_size)
