from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.detection.devices import execution_config
from pipeline.detection.hyperparameters import FROM_SCRATCH, MOSAIC_STEPS, Hyperparameters, TrainingOptions
from pipeline.errors import UsageError

OPTIONS = TrainingOptions(variant="nano", image_size=64, epochs=3, batch_size=4)


def pretend(monkeypatch: pytest.MonkeyPatch, gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)


@pytest.mark.parametrize(
    ("gpus", "change", "says"),
    [
        pytest.param(2, {"devices": 3}, "there are 2 GPUs, and devices is 3", id="more devices than there are"),
        pytest.param(2, {"devices": 2, "batch_size": 5}, "of 5 cannot be shared out evenly to 2", id="an odd batch"),
        pytest.param(
            4, {"devices": 3, "batch_size": 8}, r"multiple of 3[\s\S]*set batch_size to 9", id="three devices"
        ),
        pytest.param(4, {"devices": 4, "batch_size": 1}, "set batch_size to 4", id="less than one image each"),
        pytest.param(0, {"devices": 2, "batch_size": 3}, "batch of 3 cannot be shared", id="processes on the CPU"),
        pytest.param(0, {"devices": 64, "batch_size": 64}, "devices is 64, and there is no GPU", id="more than cores"),
        pytest.param(0, {"precision": "mixed"}, "mixed precision needs a GPU", id="mixed precision on the CPU"),
    ],
)
def test_what_the_machine_cannot_do(
    gpus: int, change: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, gpus)
    with pytest.raises(UsageError, match=says):
        execution_config(replace(OPTIONS, **change), FROM_SCRATCH, 13)


@pytest.mark.parametrize(
    ("gpus", "change", "expected"),
    [
        pytest.param(0, {}, {"devices": 1, "micro_batch": 4, "mixed": False, "cuda": False, "iterations": 4}, id="CPU"),
        pytest.param(0, {"devices": 2}, {"devices": 2, "micro_batch": 2, "iterations": 4}, id="two processes"),
        pytest.param(1, {}, {"devices": 1, "mixed": True, "cuda": True}, id="one GPU"),
        pytest.param(1, {"precision": "full"}, {"mixed": False, "cuda": True}, id="full precision"),
        pytest.param(4, {"batch_size": 8}, {"devices": 4, "micro_batch": 2, "iterations": 2}, id="all GPUs"),
        pytest.param(4, {"devices": 2}, {"devices": 2, "micro_batch": 2}, id="two of them"),
        pytest.param(4, {"batch_size": 6}, {"devices": 3, "micro_batch": 2}, id="as many as share a batch evenly"),
        pytest.param(4, {"batch_size": 5}, {"devices": 1, "micro_batch": 5}, id="a batch that none can share"),
        pytest.param(1, {"micro_batch": 3}, {"micro_batch": 3}, id="small parts"),
        pytest.param(2, {"micro_batch": 3}, {"micro_batch": 2}, id="parts larger than a device's share"),
    ],
)
def test_what_a_run_is_cut_into(
    gpus: int, change: dict[str, Any], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, gpus)
    execution = execution_config(replace(OPTIONS, **change), FROM_SCRATCH, 13)
    assert {name: getattr(execution, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("augmentation", "epochs", "hyperparameters", "mosaic"),
    [
        pytest.param("auto", MOSAIC_STEPS // 4, FROM_SCRATCH, True, id="long, from scratch"),
        pytest.param("auto", MOSAIC_STEPS // 4 - 1, FROM_SCRATCH, False, id="short, from scratch"),
        pytest.param("auto", MOSAIC_STEPS, Hyperparameters(), False, id="long, pretrained"),
        pytest.param("mosaic", 1, Hyperparameters(), True, id="asked for"),
        pytest.param("flip", MOSAIC_STEPS, FROM_SCRATCH, False, id="refused"),
    ],
)
def test_when_images_are_mixed(augmentation: str, epochs: int, hyperparameters: Hyperparameters, mosaic: bool) -> None:
    assert (
        execution_config(replace(OPTIONS, augmentation=augmentation, epochs=epochs), hyperparameters, 13).mosaic
        == mosaic
    )
