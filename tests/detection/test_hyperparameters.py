from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pipeline.detection.families import FAMILY
from pipeline.detection.hyperparameters import (
    FROM_SCRATCH,
    KNOWN_CLASSES,
    NEW_CLASSES,
    Hyperparameters,
    TrainingOptions,
    default_hyperparameters,
    with_options,
)
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"epochs": -1}, "epochs is -1", id="epochs"),
        pytest.param({"batch_size": 0}, "batch_size is 0", id="batch size"),
        pytest.param({"micro_batch": -1}, "micro_batch is -1", id="micro batch"),
        pytest.param({"learning_rate": -0.1}, "learning_rate is -0.1", id="learning rate"),
        pytest.param({"learning_rate": math.nan}, "learning_rate is nan", id="a learning rate that is no number"),
        pytest.param({"augmentation": "cutout"}, "auto, flip, mosaic", id="augmentation"),
        pytest.param({"freeze": "head"}, "auto, nothing, stem, backbone", id="freeze"),
        pytest.param({"precision": "half"}, "auto, full, mixed", id="precision"),
        pytest.param({"devices": -1}, "devices is -1", id="devices"),
        pytest.param({"patience": -1}, "patience is -1", id="patience"),
        pytest.param({"max_minutes": -0.5}, "max_minutes is -0.5", id="time limit"),
        pytest.param({"max_minutes": math.nan}, "max_minutes is nan", id="a time limit that is no number"),
        pytest.param({"workers": -2}, "workers is -2", id="workers"),
    ],
)
def test_a_wrong_option(change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        TrainingOptions(**change)
    assert f"where:    {next(iter(change))}" in str(caught.value)


@pytest.mark.parametrize(
    "least",
    [{"epochs": 0}, {"batch_size": 1}, {"micro_batch": 0}, {"learning_rate": 0.0}, {"patience": 0}, {"workers": -1}],
    ids=lambda change: next(iter(change)),
)
def test_the_least_that_is_allowed(least: dict[str, object]) -> None:
    TrainingOptions(**least)


@pytest.mark.parametrize(
    ("pretrained", "fresh", "expected"),
    [
        pytest.param(False, 3, FROM_SCRATCH, id="from scratch"),
        pytest.param(True, 0, KNOWN_CLASSES, id="every class known"),
        pytest.param(True, 1, NEW_CLASSES, id="one class new"),
    ],
)
def test_what_a_run_starts_from_chooses_the_rest(pretrained: bool, fresh: int, expected: Hyperparameters) -> None:
    assert default_hyperparameters(pretrained=pretrained, new_classes=fresh) == expected


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"learning_rate": 0.3}, {"learning_rate": 0.3}, id="rate"),
        pytest.param({"freeze": "nothing"}, {"freeze": "nothing"}, id="freeze"),
        pytest.param({"augmentation": "mosaic", "epochs": 3}, {}, id="an option that is no hyperparameter"),
    ],
)
def test_what_the_user_says_goes_first(asked: dict[str, object], changes: dict[str, object]) -> None:
    assert with_options(NEW_CLASSES, TrainingOptions(**asked)) == replace(NEW_CLASSES, **changes)


@pytest.mark.parametrize(
    ("variant", "image_size", "says"),
    [
        pytest.param("nanoo", 64, r"no YOLOX variant 'nanoo'[\s\S]*did you mean 'nano'", id="misspelt"),
        pytest.param("zzz", 64, r"one of nano, tiny, s, m, l, x[\s\S]*choose one", id="unknown"),
        pytest.param("s", 250, "224 or 256", id="not a multiple of 32"),
        pytest.param("s", 0, "32 or 64", id="no size"),
    ],
)
def test_the_family_refuses_variants_and_sizes(variant: str, image_size: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        FAMILY.check(variant, image_size)
