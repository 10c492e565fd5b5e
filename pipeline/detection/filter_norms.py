"""Filters brought to one length, without changing what the network computes.

Before a batch norm a filter's length is free: `s * filter` with statistics to match gives the same output. The step of
an optimiser is not free of it. Adam moves each weight by about the learning rate, however small the weight; and the
gradient of a filter in front of a batch norm is inversely proportional to the filter's length. A network on raw pixels
of 0..255 has short filters in its stem; with statistics folded into the weights, as in a model that came through ONNX,
many layers have them. In YOLOX-Nano filters of the stem have a length of 0.0003, and ten steps of Adam at 1e-4 are
enough to replace them; see docs/finetuning.md for what that did to the accuracy.
"""

from __future__ import annotations

import torch
from torch import nn

LEAST_VARIANCE = 0.1  # of a filter's output: far above the norm's eps of 0.001, so that training sees the same network


@torch.no_grad()
def balance(model: nn.Module) -> None:
    """Give each filter in front of a batch norm the length 1, or the least that keeps its output's variance.

    In evaluation mode the network computes what it did, up to rounding. What is frozen stays as it is. Its modules pair
    `conv` and `bn`, as mmcv's do.

    Args:
        model: Changed in place.
    """
    for module in model.modules():
        conv, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm) and conv.bias is None:
            _balance(conv, norm)


def _balance(conv: nn.Conv2d, norm: nn.modules.batchnorm._BatchNorm) -> None:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None or not conv.weight.requires_grad:
        return
    length = conv.weight.flatten(1).norm(dim=1)
    scale = torch.where(length > 0, 1 / length, torch.ones_like(length))
    # the norm divides by sqrt(variance + eps): scaling the sum keeps the output, and the rest must stay a variance
    scale = torch.maximum(scale, (LEAST_VARIANCE / (variance + norm.eps)).sqrt())
    conv.weight.mul_(scale[:, None, None, None])
    mean.mul_(scale)
    variance.copy_(scale.square() * (variance + norm.eps) - norm.eps)
