"""YOLOX as it is trained here: mmdet's, laid out in memory for speed, with steps taken in parts where asked."""

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

    Channels beside each other are what convolutions of oneDNN and of cuDNN's tensor cores want; see docs/benchmarks.md.

    Args:
        micro_batch: Images to hold at once; a larger batch is taken in parts. 0: all.
        **others: As mmdet's.
    """

    def __init__(self, *, micro_batch: int = 0, **others: Any) -> None:
        super().__init__(**others)
        self.micro_batch = micro_batch
        _use_silu(self)
        self.to(memory_format=torch.channels_last)
        self.train()  # mmdet freezes here, and the optimiser and the wrapper are to know what is frozen

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of `(B, 3, H, W)` images."""
        features: tuple[Tensor, ...] = super().extract_feat(batch_inputs.contiguous(memory_format=torch.channels_last))
        return features

    def train_step(self, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the optimiser; mmengine calls it with a batch as the loader made it."""
        return take_step(self, self, data, optim_wrapper)


@MODEL_WRAPPERS.register_module()
class PartwiseDistributed(MMDistributedDataParallel):  # type: ignore[misc]
    """Several processes with a detector each, whose gradients are averaged once a step."""

    def train_step(self, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the optimiser."""
        return take_step(self, self.module, data, optim_wrapper)


def _use_silu(model: nn.Module) -> None:
    """mmcv's Swish is a sigmoid and a product, each keeping its input for the way back; torch has it in one."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, Swish):
                setattr(module, name, nn.SiLU())


def take_step(
    model: Any, detector: PartwiseYOLOX, data: Mapping[str, Sequence[Any]], optim_wrapper: Any
) -> dict[str, Tensor]:
    """Learn from a batch, in parts that fit into memory.

    The gradient is that of the whole batch, but for the batch norms, whose statistics are a part's: the head divides
    losses by the number of priors that have an object, and for what is divided by a part's number, it is the whole's
    that takes its place. All processes cut their batches into the same number of parts, since they meet in each.

    Args:
        model: What is called: the detector, or its distributed wrapper.
        detector: The detector itself.
        data: `inputs`, `(B, 3, H, W)` of 0..255 or a list of images, and `data_samples`, a list.
        optim_wrapper: mmengine's, which knows of mixed precision and gradient clipping.

    Returns:
        The losses by name, of the whole batch.
    """
    total = len(data["data_samples"])
    size = detector.micro_batch or total
    sums: dict[str, Tensor] = {}
    positives: list[Tensor] = []
    for start in range(0, total, size):
        part = {name: values[start : start + size] for name, values in data.items()}
        # gradients of parts before the last stay in their process
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
            # by the first part's number, so that mixed precision sees gradients of the usual size
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


def bare(model: nn.Module) -> nn.Module:
    """The model itself, where it may be wrapped for distributed training."""
    module: nn.Module = model.module if isinstance(model, MMDistributedDataParallel) else model
    return module
