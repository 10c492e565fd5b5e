"""Detectors of mmdet, trained in a faster memory format and in parts of a batch, and what their heads share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pipeline.detection import mmcv_ops

mmcv_ops.install()  # importing mmdet needs it

from mmcv.cnn.bricks import Swish  # noqa: E402


class Partwise:
    """Before a detector class of mmdet among the bases of a class: the detector, weight for weight, in channels-last.

    Convolutions of oneDNN and of cuDNN's tensor cores are faster in this memory format; see docs/benchmarks.md. A batch
    of more than `micro_batch` images, where that is not 0, is split into parts. The detector's head says in `positives`
    by what it divided the losses of its last batch, before any minimum; see `take_step`.
    """

    def __init__(self, *, micro_batch: int = 0, **others: Any) -> None:
        super().__init__(**others)
        self.micro_batch = micro_batch
        detector: Any = self
        for module in list(detector.modules()):
            for name, child in module.named_children():
                if isinstance(child, Swish):  # which keeps two tensors for the backward pass
                    setattr(module, name, nn.SiLU())
        detector.to(memory_format=torch.channels_last)
        detector.train()  # mmdet freezes here; the optimiser and the wrapper must know what is frozen

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of `(B, 3, H, W)` images."""
        above: Any = super()
        features: tuple[Tensor, ...] = above.extract_feat(batch_inputs.contiguous(memory_format=torch.channels_last))
        return features

    def train_step(self, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
        """Make one step of the optimiser."""
        return take_step(self, self, data, optim_wrapper)


@MODEL_WRAPPERS.register_module()
class PartwiseDistributed(MMDistributedDataParallel):  # type: ignore[misc]
    """A detector per process, with gradients averaged once per step."""

    def train_step(self, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
        """Make one step of the optimiser."""
        return take_step(self, self.module, data, optim_wrapper)


def take_step(model: Any, detector: Any, data: Mapping[str, Sequence[Any]], optim_wrapper: Any) -> dict[str, Tensor]:
    """Learn from a batch, in parts that fit into memory.

    The gradient equals that of the whole batch, apart from batch norms, which use the statistics of a part. The head
    divides the losses of a part by its `positives`, such as the number of priors with an object, or by 1 where that is
    less; these losses are rescaled to the number of the whole batch. All processes split their batches into the same
    number of parts, since they synchronise in each.

    The model is the detector or its distributed wrapper; the data are `inputs`, `(B, 3, H, W)` of 0..255 or a list of
    images, and the list `data_samples`.
    """
    total = len(data["data_samples"])
    size = detector.micro_batch or total
    sums: dict[str, Tensor] = {}
    positives: list[Tensor] = []
    for start in range(0, total, size):
        part = {name: values[start : start + size] for name, values in data.items()}
        # gradients of all parts but the last stay in their process
        with model.no_sync() if hasattr(model, "no_sync") and start + size < total else nullcontext():
            with optim_wrapper.optim_context(model):
                losses = model(**detector.data_preprocessor(part, True), mode="loss")
            loss, named = detector.parse_losses(losses)
            positives.append(detector.bbox_head.positives)
            # relative to the first part, so that mixed precision sees gradients of the usual size
            share = positives[-1].clamp(min=1) / positives[0].clamp(min=1)
            optim_wrapper.backward(loss * share)
        for name, value in named.items():
            sums[name] = sums.get(name, 0.0) + value.detach() * share
    if len(positives) > 1:
        rest = positives[0].clamp(min=1) / torch.stack(positives).sum().clamp(min=1)
        for parameter in detector.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(rest)
        sums = {name: value * rest for name, value in sums.items()}
    optim_wrapper.step()
    optim_wrapper.zero_grad()
    return sums


def flat_levels(levels: Sequence[Tensor]) -> Tensor:
    """`(B, C, H, W)` of each level as one `(B, P, C)`, in single precision at least, whatever the memory format."""
    flat = torch.cat([each.permute(0, 2, 3, 1).flatten(1, 2) for each in levels], 1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def padded_regions(regions: Sequence[Any] | None, images: int, priors: Tensor) -> Tensor:
    """The ignored regions of each image, `bboxes` `(R, 4)` or None, as `(B, R, 4)`, padded with boxes of no area.

    They have the type and the device of the priors.
    """
    boxes = [priors.new_zeros(0, 4) if each is None else each.bboxes.to(priors) for each in regions or [None] * images]
    return pad_sequence(boxes, batch_first=True)
