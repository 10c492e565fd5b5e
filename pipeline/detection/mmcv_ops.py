"""A stand-in for `mmcv._ext`, the compiled operators that mmcv-lite leaves out.

mmdet imports mmcv's operators, and the import fails without the compiled module. YOLOX calls only one of them: `nms`.
`install` replaces the module by one whose `nms` is written in torch, and whose other operators raise an error with the
remedy. Where the full mmcv is installed, nothing is replaced.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, ModuleSpec
from types import ModuleType
from typing import NoReturn

import torch
from torch import Tensor

from pipeline.errors import StepError

NAME = "mmcv._ext"
CHUNK = 512  # boxes compared at once: bounds the IoU matrix to 512 x (512 + kept) whatever the number of boxes


class _StandIn(ModuleType):
    """The module: `nms`, and for any other public name a function that refuses."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> NoReturn:
            raise StepError(
                f"mmcv's compiled operator '{name}' was called, and mmcv-lite has none",
                where=NAME,
                expected="a model that needs only 'nms', as YOLOX does",
                remedy="install the full mmcv 2.1.0 built for this torch in place of mmcv-lite",
            )

        return refuse


def install() -> None:
    """Make `import mmdet` work; safe to call any number of times."""
    if NAME not in sys.modules and importlib.util.find_spec(NAME) is None:
        module = _StandIn(NAME)
        module.__spec__ = ModuleSpec(NAME, BuiltinImporter())  # mmcv asks whether its operators have a loader
        module.nms = nms  # type: ignore[attr-defined]
        sys.modules[NAME] = sys.modules["mmcv"]._ext = module  # type: ignore[attr-defined]


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
    """Greedy non-maximum suppression, with the signature and the results of mmcv's compiled operator.

    Boxes are taken best score first (ties: the earlier box); each is kept unless its IoU with an already kept one is
    greater than the threshold. Chunks of boxes are compared with all kept ones at once, and within a chunk the greedy
    choice is the fixed point of "kept unless a better kept box overlaps".

    Args:
        boxes: `(N, 4)` corners x1, y1, x2, y2 in pixels.
        scores: `(N,)`.
        iou_threshold: In 0..1.
        offset: 0, or 1 where corners are inclusive pixel indices and a side measures `x2 - x1 + 1`.

    Returns:
        `(K,)` int64 indices into `boxes`, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for part in torch.split(order, CHUNK):
        free = ~(_iou(boxes[kept], boxes[part], offset) > iou_threshold).any(0)
        candidates = part[free]
        beats = (_iou(boxes[candidates], boxes[candidates], offset) > iou_threshold).triu(1)
        keep = torch.ones_like(candidates, dtype=torch.bool)
        while not torch.equal(now := ~(beats & keep[:, None]).any(0), keep):
            keep = now
        kept = torch.cat([kept, candidates[keep]])
    return kept


def _iou(left: Tensor, right: Tensor, offset: int) -> Tensor:
    """IoU of `(N, 4)` with `(M, 4)` boxes as `(N, M)`, in the order of operations of mmcv's C++."""
    corner = torch.maximum(left[:, None, :2], right[None, :, :2])
    opposite = torch.minimum(left[:, None, 2:], right[None, :, 2:])
    sides = (opposite - corner + offset).clamp(min=0)
    inter = sides[..., 0] * sides[..., 1]
    area_left, area_right = (
        (each[:, 2] - each[:, 0] + offset) * (each[:, 3] - each[:, 1] + offset) for each in (left, right)
    )
    return inter / (area_left[:, None] + area_right[None, :] - inter)
