"""Filters are brought to one length, and the network notices nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings
from torch import Tensor, nn

from pipeline.detection.checkpoints import coco_classes, fit, read_checkpoint
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.families.yolox.config import training_config
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.optimization import LEAST_VARIANCE, PartRates, balance_filters
from pipeline.serving.model_metadata import ModelMetadata

EPS = 1e-3  # of mmdet's norms


class Pair(nn.Module):
    """A convolution and its norm, as mmcv names them."""

    def __init__(self, lengths: list[float], variances: list[float], *, bias: bool = False, norm: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, len(lengths), 3, bias=bias)
        self.bn = nn.BatchNorm2d(len(lengths), eps=EPS, track_running_stats=norm)
        with torch.no_grad():
            unit = self.conv.weight / self.conv.weight.flatten(1).norm(dim=1)[:, None, None, None]
            self.conv.weight.copy_(unit * torch.tensor(lengths)[:, None, None, None])
            self.bn.weight.uniform_(0.5, 2)
            self.bn.bias.uniform_(-1, 1)
            if norm:
                self.bn.running_mean.uniform_(-1, 1)
                self.bn.running_var.copy_(torch.tensor(variances))

    def forward(self, images: Tensor) -> Tensor:
        return self.bn(self.conv(images))


def lengths_of(convolution: nn.Conv2d) -> Tensor:
    return convolution.weight.detach().flatten(1).norm(dim=1)


def pairs_of(model: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    found = [(m.conv, m.bn) for m in model.modules() if isinstance(getattr(m, "conv", None), nn.Conv2d)]
    assert found
    return found


@pytest.mark.parametrize(
    ("length", "variance", "expected"),
    [
        pytest.param(0.0003, 2.0, 1.0, id="short"),
        pytest.param(1.0, 0.5, 1.0, id="of the length already"),
        pytest.param(40.0, 9e4, 1.0, id="long"),
        pytest.param(40.0, 0.9, 40 * (LEAST_VARIANCE / (0.9 + EPS)) ** 0.5, id="long, with little variance"),
        pytest.param(1.0, 0.0, (LEAST_VARIANCE / EPS) ** 0.5, id="an output that is always the same"),
        pytest.param(0.0, 0.0, 0.0, id="no filter at all"),
    ],
)
def test_a_filter_becomes_1_long_or_keeps_a_variance(length: float, variance: float, expected: float) -> None:
    torch.manual_seed(0)
    pair = Pair([length, 1.0], [variance, 1.0]).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        before = pair(images)
        balance_filters(pair)
        after = pair(images)
    assert float(lengths_of(pair.conv)[0]) == pytest.approx(expected, rel=1e-4)
    assert float(pair.bn.running_var[0]) >= (LEAST_VARIANCE - EPS) * 0.999
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Pair([0.1, 7.0], [1.0, 1.0], bias=True), id="a bias"),
        pytest.param(Pair([0.1, 7.0], [1.0, 1.0], norm=False), id="a norm without statistics"),
        pytest.param(Pair([0.1, 7.0], [1.0, 1.0]).requires_grad_(False), id="frozen"),
        pytest.param(nn.Sequential(nn.Conv2d(3, 2, 3, bias=False), nn.BatchNorm2d(2)), id="no pair"),
    ],
)
def test_what_is_no_filter_before_a_norm_is_left_alone(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    balance_filters(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_real_nano_sees_what_it_saw_with_filters_1_long_or_at_the_bound(
    pretrained: Path, photographs: list[Path]
) -> None:
    nano = YOLOX.build_model(ModelMetadata("nano", (128, 128), coco_classes())).eval()
    fit(read_checkpoint(pretrained, YOLOX), nano, coco_classes())
    images = torch.from_numpy(YOLOX.letterbox(photographs, (128, 128)))
    with torch.no_grad():
        before = nano._forward(images)
        balance_filters(nano)
        after = nano._forward(images)
    for own, expected in zip(after, before, strict=True):
        for a, b in zip(own, expected, strict=True):
            torch.testing.assert_close(a, b, atol=5e-3, rtol=5e-3)
    assert max(float(each.abs().max()) for part in before for each in part) > 1
    for convolution, norm in pairs_of(nano):
        at_bound = (norm.running_var + norm.eps - LEAST_VARIANCE).abs() < 1e-4
        at_one = (lengths_of(convolution) - 1).abs() < 1e-4
        assert bool((at_bound | at_one).all())


RATES = Hyperparameters(learning_rate=1e-3, backbone_rate=0.1, neck_rate=0.3, class_rate=5.0, weight_decay=0.05)


def model_and_groups(hyperparameters: Hyperparameters) -> tuple[Any, list[dict[str, Any]]]:
    """A detector as a training has it, and what its optimiser was given."""
    from mmdet.registry import MODELS

    metadata = ModelMetadata("nano", (64, 64), ("disc", "block"))
    config = training_config(
        TrainingOptions("yolox-nano", 64), hyperparameters, metadata, ExecutionConfig(iterations=1)
    )
    import_modules_from_strings(**config.custom_imports)
    init_default_scope("mmdet")
    model = MODELS.build(config.model)
    wrapper = config.optim_wrapper
    wrapper.pop("constructor")
    wrapper = PartRates(wrapper, wrapper.pop("paramwise_cfg"))(model)
    return model, wrapper.optimizer.param_groups


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD"])
def test_each_part_has_its_rate_and_only_weights_decay(optimizer: str) -> None:
    """In few groups: an optimiser works on a whole one at once."""
    model, groups = model_and_groups(replace(RATES, optimizer=optimizer))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    settings = [(group["lr"], group["weight_decay"]) for group in groups]
    assert len(settings) == len(set(settings)) == 8
    found = {names[id(p)]: setting for group, setting in zip(groups, settings, strict=True) for p in group["params"]}
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
    assert len(model_and_groups(Hyperparameters())[1]) == 2


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        pytest.param({"head.": 0.5, "head.cls": 2.0}, 2.0, id="the longer of two"),
        pytest.param({"head.cls": 2.0, "head.": 0.5}, 2.0, id="the longer of two, in another order"),
        pytest.param({"cls": 3.0}, 3.0, id="a part within"),
        pytest.param({"neck.": 0.1}, 1.0, id="another's name"),
    ],
)
def test_the_longest_name_decides(rates: dict[str, float], expected: float) -> None:
    model = torch.nn.ModuleDict({"head": torch.nn.ModuleDict({"cls": torch.nn.Linear(2, 2)})})
    settings = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 0.01}}
    groups = PartRates(settings, rates)(model).optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.1 * expected] * 2)
    assert sorted(group["weight_decay"] for group in groups) == [0.0, 0.01]
