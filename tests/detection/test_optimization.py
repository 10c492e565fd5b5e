"""Filters are brought to one length, and the network notices nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.detection.checkpoints import coco_classes, fit, read_checkpoint
from pipeline.detection.families.yolox.mmdet_config import build_model
from pipeline.detection.optimization import LEAST_VARIANCE, balance_filters
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


@pytest.fixture
def nano(pretrained: Path) -> Any:
    """The real detector, for evaluation."""
    model = build_model(ModelMetadata("nano", (128, 128), coco_classes()))
    fit(read_checkpoint(pretrained), model, coco_classes())
    return model.eval()


def photograph(path: Path) -> Tensor:
    image = cv2.resize(cv2.imread(str(path)), (128, 128)).astype(np.float32)
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_of_the_real_nano_the_stem_is_short_before(nano: Any) -> None:
    stem = nano.backbone.stem.conv.conv
    assert float(lengths_of(stem).min()) < 0.001
    balance_filters(nano)
    torch.testing.assert_close(lengths_of(stem), torch.ones(len(stem.weight)), atol=1e-5, rtol=0)


def test_the_real_nano_sees_what_it_saw(nano: Any, photographs: list[Path]) -> None:
    images = torch.cat([photograph(path) for path in photographs])
    with torch.no_grad():
        before = nano._forward(images)
        balance_filters(nano)
        after = nano._forward(images)
    for own, expected in zip(after, before, strict=True):
        for a, b in zip(own, expected, strict=True):
            torch.testing.assert_close(a, b, atol=5e-3, rtol=5e-3)
    assert max(float(each.abs().max()) for part in before for each in part) > 1


def test_every_filter_of_the_real_nano_is_1_long_or_at_the_bound(nano: Any) -> None:
    balance_filters(nano)
    for convolution, norm in pairs_of(nano):
        at_bound = (norm.running_var + norm.eps - LEAST_VARIANCE).abs() < 1e-4
        at_one = (lengths_of(convolution) - 1).abs() < 1e-4
        assert bool((at_bound | at_one).all())


def test_twice_is_as_once(nano: Any) -> None:
    balance_filters(nano)
    once = {name: value.clone() for name, value in nano.state_dict().items()}
    balance_filters(nano)
    for name, value in nano.state_dict().items():
        torch.testing.assert_close(value, once[name], atol=1e-5, rtol=1e-4, msg=name)
