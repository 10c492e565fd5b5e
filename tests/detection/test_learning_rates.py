from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from pipeline.detection.families.yolox.mmdet_config import training_config
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.optimization import PartRates
from pipeline.serving.model_metadata import ModelMetadata

RATES = Hyperparameters(learning_rate=1e-3, backbone_rate=0.1, neck_rate=0.3, class_rate=5.0, weight_decay=0.05)


def model_and_groups(hyperparameters: Hyperparameters) -> tuple[Any, list[dict[str, Any]]]:
    """A detector as a training has it, and what its optimiser was given."""
    from mmdet.registry import MODELS

    metadata = ModelMetadata("nano", (64, 64), ("disc", "block"))
    config = training_config(TrainingOptions("nano", 64), hyperparameters, metadata, ExecutionConfig(iterations=1))
    import_modules_from_strings(**config.custom_imports)
    init_default_scope("mmdet")
    model = MODELS.build(config.model)
    wrapper = config.optim_wrapper
    wrapper.pop("constructor")
    wrapper = PartRates(wrapper, wrapper.pop("paramwise_cfg"))(model)
    return model, wrapper.optimizer.param_groups


def settings_of(model: Any, groups: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Rate and decay by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_each_part_has_its_rate_and_only_weights_decay(optimizer: str) -> None:
    model, groups = model_and_groups(Hyperparameters(**{**vars(RATES), "optimizer": optimizer}))
    found = settings_of(model, groups)
    assert found.keys() == dict(model.named_parameters()).keys()
    kinds = {
        "backbone.": 1e-4,
        "neck.": 3e-4,
        "bbox_head.multi_level_conv_cls.": 5e-3,
        "bbox_head.multi_level_conv_reg.": 1e-3,
        "bbox_head.multi_level_cls_convs.": 1e-3,
    }
    for name, parameter in model.named_parameters():
        rate = next((rate for part, rate in kinds.items() if name.startswith(part)), 1e-3)
        assert found[name] == (pytest.approx(rate), 0.05 if parameter.ndim == 4 else 0.0), name
    assert sum(parameter.ndim == 1 for parameter in model.parameters()) > 100


def test_a_group_holds_all_of_one_rate_and_decay() -> None:
    """Few groups: an optimiser works on a whole one at once."""
    _, groups = model_and_groups(RATES)
    kinds = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(kinds) == len(set(kinds)) == 8
    _, even = model_and_groups(Hyperparameters())
    assert len(even) == 2


@pytest.mark.parametrize(
    ("freeze", "absent"),
    [
        pytest.param("nothing", (), id="nothing"),
        pytest.param("stem", ("backbone.stem.", "backbone.stage1."), id="stem"),
        pytest.param("backbone", ("backbone.",), id="backbone"),
    ],
)
def test_what_is_frozen_is_not_the_optimisers(freeze: str, absent: tuple[str, ...]) -> None:
    model, groups = model_and_groups(Hyperparameters(freeze=freeze))
    names = {name for name, _ in model.named_parameters()}
    assert settings_of(model, groups).keys() == {n for n in names if not n.startswith(absent or ("-",))}


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param({}, 1.0, id="no name"),
        pytest.param({"head.": 0.5}, 0.5, id="a beginning"),
        pytest.param({"head.": 0.5, "head.cls": 2.0}, 2.0, id="the longer of two"),
        pytest.param({"head.cls": 2.0, "head.": 0.5}, 2.0, id="the longer of two, in another order"),
        pytest.param({"cls": 3.0}, 3.0, id="a part within"),
        pytest.param({"neck.": 0.1}, 1.0, id="another's name"),
        pytest.param({"head.": 0.0}, 0.0, id="none at all"),
    ],
)
def test_the_longest_name_decides(rates: dict[str, float], expected: float) -> None:
    model = torch.nn.ModuleDict({"head": torch.nn.ModuleDict({"cls": torch.nn.Linear(2, 2)})})
    settings = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 0.01}}
    groups = PartRates(settings, rates)(model).optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.1 * expected] * 2)
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.01]
