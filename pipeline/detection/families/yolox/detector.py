"""mmdet's YOLOX in a faster memory format, with training steps that can split their batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn

from pipeline.detection import mmcv_ops

mmcv_ops.install()  # importing mmdet needs it

from mmcv.cnn.bricks import Swish  # noqa: E402
from mmdet.models.detectors import YOLOX  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402


@MODELS.register_module()
class PartwiseYOLOX(YOLOX):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's YOLOX, weight for weight, in channels-last memory format.

    Convolutions of oneDNN and of cuDNN's tensor cores are faster in this format; see docs/benchmarks.md.

    Args:
        micro_batch: Images to hold at once; a larger batch is split into parts. 0: no limit.
        **others: Arguments of mmdet's YOLOX.
    """

    def __init__(self, *, micro_batch: int = 0, **others: Any) -> None:
        super().__init__(**others)
        self.micro_batch = micro_batch
        _use_silu(self)
        self.to(memory_format=torch.channels_last)
        self.train()  # mmdet freezes here; the optimiser and the wrapper must know what is frozen

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of `(B, 3, H, W)` images."""
        features: tuple[Tensor, ...] = super().extract_feat(batch_inputs.contiguous(memory_format=torch.channels_last))
        return features

    def train_step(self, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
        """Make one step of the optimiser with a batch of the loader; mmengine calls it."""
        return take_step(self, self, data, optim_wrapper)


@MODEL_WRAPPERS.register_module()
class PartwiseDistributed(MMDistributedDataParallel):  # type: ignore[misc]
    """A detector per process, with gradients averaged once per step."""

    def train_step(self, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
        """Make one step of the optimiser."""
        return take_step(self, self.module, data, optim_wrapper)


def _use_silu(model: nn.Module) -> None:
    """Use torch's fused SiLU: mmcv's Swish keeps two tensors for the backward pass."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, Swish):
                setattr(module, name, nn.SiLU())


def take_step(
    model: Any, detector: PartwiseYOLOX, data: Mapping[str, Sequence[Any]], optim_wrapper: Any
) -> dict[str, Tensor]:
    """Learn from a batch, in parts that fit into memory.

    The gradient equals that of the whole batch, apart from batch norms, which use the statistics of a part. The head
    divides the losses of a part by its number of priors with an object; these losses are rescaled to the number of the
    whole batch. All processes split their batches into the same number of parts, since they synchronise in each.

    Args:
        model: The detector, or its distributed wrapper.
        detector: The detector itself.
        data: `inputs`, `(B, 3, H, W)` of 0..255 or a list of images, and `data_samples`, a list.
        optim_wrapper: mmengine's wrapper, which handles mixed precision and gradient clipping.

    Returns:
        The losses of the whole batch, by name.
    """
    total = len(data["data_samples"])
    size = detector.micro_batch or total
    sums: dict[str, Tensor] = {}
    positives: list[Tensor] = []
    for start in range(0, total, size):
        part = {name: values[start : start + size] for name, values in data.items()}
        # gradients of all parts but the last stay in their process
        quiet = model.no_sync() if hasattr(model, "no_sync") and start + size < total else nullcontext()
        with quiet:
            with optim_wrapper.optim_context(model):
                losses = model(**detector.data_preprocessor(part, True), mode="loss")
            loss, named = detector.parse_losses(losses)
            if size >= total:
                optim_wrapper.backward(loss)
                sums = {name: value.detach() for name, value in named.items()}
                break
            positives.append(detector.bbox_head.positives)
            # relative to the first part, so that mixed precision sees gradients of the usual size
            share = positives[-1].clamp(min=1) / positives[0].clamp(min=1)
            optim_wrapper.backward(loss * share)
        for name, value in named.items():
            sums[name] = sums[name] + value.detach() * share if name in sums else value.detach()
    if positives:
        rest = positives[0].clamp(min=1) / torch.stack(positives).sum().clamp(min=1)
        for parameter in detector.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(rest)
        sums = {name: value * rest for name, value in sums.items()}
    optim_wrapper.step()
    optim_wrapper.zero_grad()
    return sums
