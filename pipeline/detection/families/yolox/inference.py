"""YOLOX's inference in PyTorch: from image files to letterboxed pixels, and from pixels to every candidate box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.detection import mmcv_ops
from pipeline.errors import DataError

PAD_VALUE = 114.0  # grey of the padding (Megvii-BaseDetection/YOLOX, `preproc`)


class DecodedYolox(nn.Module):
    """mmdet's YOLOX from pixels to every candidate box, without suppression."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Decode every anchor.

        Args:
            images: `(B, 3, S, S)` float32, BGR 0..255, letterboxed.

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
    mmcv_ops.install()
    from mmdet.datasets.transforms import Pad, Resize

    size = image_size[::-1]
    steps = [Resize(scale=size, keep_ratio=True), Pad(size=size, pad_val={"img": (PAD_VALUE,) * 3})]
    batch = []
    for path in images:
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise DataError("the image cannot be read", where=path, expected="an image that OpenCV decodes")
        results: dict[str, Any] = {"img": image, "img_shape": image.shape[:2]}
        for step in steps:
            results = step(results)
        batch.append(results["img"].transpose(2, 0, 1).astype(np.float32))
    return np.stack(batch)
