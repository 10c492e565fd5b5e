"""mmdet's RTMDet: trained partwise, and decoded without suppression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.detection.partwise import Partwise

from mmdet.models.detectors import RTMDet  # isort: skip  # after `partwise`, which puts mmcv's operators in place
from mmdet.registry import MODELS  # isort: skip


@MODELS.register_module()
class PartwiseRTMDet(Partwise, RTMDet):  # type: ignore[misc]  # mmdet is untyped
    """mmdet's RTMDet, trained in parts."""


class DecodedRtmdet(nn.Module):
    """mmdet's RTMDet from pixels to every candidate box, without suppression."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every anchor of letterboxed images, `(B, 3, S, S)` float32, BGR 0..255.

        Returns:
            Boxes `(B, N, 4)` as x1, y1, x2, y2 in letterboxed pixels, clipped to the image, and scores `(B, C, N)` of
            every class. A box without area, which mmdet drops, has scores of 0.
        """
        head, pixels = self.model.bbox_head, self.model.data_preprocessor
        classes, distances = head(self.model.extract_feat((images - pixels.mean) / pixels.std))
        sizes = [(level.shape[2], level.shape[3]) for level in classes]
        priors = torch.cat(head.prior_generator.grid_priors(sizes, dtype=images.dtype, device=images.device))
        left, top, right, bottom = torch.cat([level.flatten(2) for level in distances], 2).unbind(1)
        (x, y), (height, width) = priors.unbind(1), images.shape[2:]
        x1, x2 = (x - left).clamp(0, width), (x + right).clamp(0, width)
        y1, y2 = (y - top).clamp(0, height), (y + bottom).clamp(0, height)
        scores = torch.cat([level.flatten(2) for level in classes], 2).sigmoid()
        has_area = ((x2 > x1) & (y2 > y1))[:, None]
        return torch.stack([x1, y1, x2, y2], 2), torch.where(has_area, scores, torch.zeros_like(scores))
