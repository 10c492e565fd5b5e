"""mmdet's YOLOX: trained partwise, and decoded without suppression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.detection.partwise import Partwise

from mmdet.models.detectors import YOLOX  # isort: skip  # after `partwise`, which puts mmcv's operators in place
from mmdet.registry import MODELS  # isort: skip


@MODELS.register_module()
class PartwiseYOLOX(Partwise, YOLOX):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's YOLOX, trained in parts."""


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
