"""How the optimiser moves parameters: a rate per part of the detector, and filters of equal length."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

LEAST_VARIANCE = 0.1  # of a filter's output: far above the norm's eps of 0.001, so that training sees the same network


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartRates(DefaultOptimWrapperConstructor):  # type: ignore[misc]  # mmengine is untyped
    """Builds an optimiser with one group of parameters per pair of rate and decay.

    mmengine's own constructor makes a group per parameter, which fused optimisers handle one by one. It also gives
    norms and biases a decay where a name decides their rate.

    `paramwise_cfg` maps parts of parameter names to multiples of the rate; the longest part found in a name decides.
    """

    def __call__(self, model: nn.Module) -> Any:
        """Build mmengine's optimiser wrapper for the parameters of a model that require gradients."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        bare: Any = getattr(model, "module", model)  # without the wrapper of distributed training
        for name, parameter in bare.named_parameters():
            if parameter.requires_grad:
                part = max((part for part in self.paramwise_cfg if part in name), key=len, default=None)
                rate = float(self.base_lr * (self.paramwise_cfg[part] if part else 1.0))
                decay = self.base_wd if parameter.ndim > 1 else 0.0
                groups.setdefault((rate, decay), []).append(parameter)
        settings = [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": settings})
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args={"optimizer": optimizer})


@torch.no_grad()
def balance_filters(model: nn.Module) -> None:
    """Scale each filter before a batch norm to length 1, or to the length that keeps the variance of its output.

    The batch norm removes a filter's length, so the network computes the same in evaluation mode, up to rounding. The
    optimiser's step does not: Adam moves each weight by about the learning rate, and the gradient of a filter before a
    batch norm is inversely proportional to the filter's length. In YOLOX-nano filters of the stem have a length of
    0.0003, and ten steps of Adam at 1e-4 replace them; `docs/finetuning.md` has the effect on the accuracy.

    Frozen filters stay as they are, and those that several norms share. The model's modules pair `conv` and `bn`, as
    mmcv's do.
    """
    pairs = [(getattr(module, "conv", None), getattr(module, "bn", None)) for module in model.modules()]
    uses = Counter(conv for conv, _ in pairs)
    for conv, norm in pairs:
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
            mean, variance = norm.running_mean, norm.running_var
            if conv.bias is not None or mean is None or variance is None or not conv.weight.requires_grad:
                continue
            if uses[conv] > 1:
                continue
            length = conv.weight.flatten(1).norm(dim=1)
            scale = torch.where(length > 0, 1 / length, torch.ones_like(length))
            # the norm divides by sqrt(variance + eps): scaling the sum keeps the output, the rest must stay a variance
            scale = torch.maximum(scale, (LEAST_VARIANCE / (variance + norm.eps)).sqrt())
            conv.weight.mul_(scale[:, None, None, None])
            mean.mul_(scale)
            variance.copy_(scale.square() * (variance + norm.eps) - norm.eps)
