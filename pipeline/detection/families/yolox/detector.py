"""mmdet's YOLOX: trained in a faster memory format and in parts of a batch, and decoded without suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.detection import mmcv_ops
from pipeline.errors import DataError
from pipeline.serving.decoding import decode

mmcv_ops.install()  # importing mmdet needs it

from mmcv.cnn.bricks import Swish  # noqa: E402
from mmdet.datasets.transforms import Pad, Resize  # noqa: E402
from mmdet.models.detectors import YOLOX  # noqa: E402
from mmdet.registry import MODELS  # noqa: E402

PAD_VALUE = 114.0  # grey of the padding (Megvii-BaseDetection/YOLOX, `preproc`)


@MODELS.register_module()
class PartwiseYOLOX(YOLOX):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's YOLOX, weight for weight, in channels-last memory format.

    Convolutions of oneDNN and of cuDNN's tensor cores are faster in this format; see docs/benchmarks.md. A batch of
    more than `micro_batch` images, where that is not 0, is split into parts.
    """

    def __init__(self, *, micro_batch: int = 0, **others: Any) -> None:
        super().__init__(**others)
        self.micro_batch = micro_batch
        for module in list(self.modules()):
            for name, child in module.named_children():
                if isinstance(child, Swish):  # which keeps two tensors for the backward pass
                    setattr(module, name, nn.SiLU())
        self.to(memory_format=torch.channels_last)
        self.train()  # mmdet freezes here; the optimiser and the wrapper must know what is frozen

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of `(B, 3, H, W)` images."""
        features: tuple[Tensor, ...] = super().extract_feat(batch_inputs.contiguous(memory_format=torch.channels_last))
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


def take_step(
    model: Any, detector: PartwiseYOLOX, data: Mapping[str, Sequence[Any]], optim_wrapper: Any
) -> dict[str, Tensor]:
    """Learn from a batch, in parts that fit into memory.

    The gradient equals that of the whole batch, apart from batch norms, which use the statistics of a part. The head
    divides the losses of a part by its number of priors with an object; these losses are rescaled to the number of the
    whole batch. All processes split their batches into the same number of parts, since they synchronise in each.

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


class DecodedYolox(nn.Module):
    """mmdet's YOLOX from pixels to every candidate box, without suppression."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every anchor of letterboxed images, `(B, 3, S, S)` float32, BGR 0..255.

        Returns:
            Boxes `(B, N, 4)` as x1, y1, x2, y2 in letterboxed pixels, and scores `(B, C, N)`: objectness times class
            score at each anchor's best class and 0 at its others, as mmdet gives an anchor one label.
        """
        head = self.model.bbox_head
        classes, deltas, objectness = head(self.model.neck(self.model.backbone(images)))
        sizes = [(level.shape[2], level.shape[3]) for level in classes]
        priors = torch.cat(
            head.prior_generator.grid_priors(sizes, dtype=images.dtype, device=images.device, with_stride=True)
        )
        class_scores = torch.cat([level.flatten(2) for level in classes], 2).sigmoid()
        object_scores = torch.cat([level.flatten(2) for level in objectness], 2).sigmoid()
        boxes = head._bbox_decode(priors, torch.cat([level.flatten(2) for level in deltas], 2).transpose(1, 2))
        best, label = class_scores.max(1, keepdim=True)
        is_best = torch.arange(class_scores.shape[1], device=images.device)[None, :, None] == label
        return boxes, torch.where(is_best, best * object_scores, torch.zeros_like(class_scores))


def letterbox(images: Sequence[Path], image_size: tuple[int, int]) -> NDArray[np.float32]:
    """Letterbox image files into a batch `(B, 3, S, S)` float32, BGR 0..255, by mmdet's validation transforms.

    Raises:
        DataError: OpenCV cannot decode a file.
    """
    size = image_size[::-1]
    resize, pad = Resize(scale=size, keep_ratio=True), Pad(size=size, pad_val={"img": (PAD_VALUE,) * 3})
    batch = []
    for path in images:
        try:
            image = decode(path.read_bytes())
        except DataError as error:
            raise DataError(f"the image cannot be read: {error.problem}", where=path) from error
        results = pad(resize({"img": image, "img_shape": image.shape[:2]}))
        batch.append(results["img"].transpose(2, 0, 1).astype(np.float32))
    return np.stack(batch)
