"""Which part of the detector learns at which rate."""

from __future__ import annotations

from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from pipeline.detection.families.yolox.detector import bare


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartRates(DefaultOptimWrapperConstructor):  # type: ignore[misc]  # mmengine is untyped
    """An optimiser with one group of parameters for each rate and decay.

    mmengine's own makes a group of each parameter, so that an optimiser that works on many at once finds one at a time;
    and where a name decides the rate it forgets that norms and biases have no decay.

    `paramwise_cfg` maps beginnings of names, or any part of them, to multiples of the rate; the longest one that is
    found in a parameter's name decides.
    """

    def __call__(self, model: nn.Module) -> Any:
        """Build mmengine's optimiser wrapper for what can be trained of a model."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in bare(model).named_parameters():
            if parameter.requires_grad:
                decay = self.base_wd if parameter.ndim > 1 else 0.0
                groups.setdefault((self._rate(name), decay or 0.0), []).append(parameter)
        settings = [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": settings})
        return OPTIM_WRAPPERS.build(self.optim_wrapper_cfg, default_args={"optimizer": optimizer})

    def _rate(self, name: str) -> float:
        found = [part for part in self.paramwise_cfg if part in name]
        multiple = self.paramwise_cfg[max(found, key=len)] if found else 1.0
        return float(self.base_lr * multiple)
