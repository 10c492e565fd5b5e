"""Names of RTMDet's parameters: mmdet's. OpenMMLab, its authors, publish no others.

Source: mmdet 3.3, `models/backbones/cspnext.py`, `models/dense_heads/rtmdet_head.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pipeline.errors import DataError

CLASS_LAYER = "bbox_head.rtm_cls."  # a 1x1 convolution per feature level, with one output row per class

# Channels of the first convolution, and blocks of the first stage: 32 and 3 times a variant's width and depth.
VARIANTS = {(12, 1): "tiny", (16, 1): "s", (24, 2): "m", (32, 3): "l", (40, 4): "x"}


def normalize(state: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], str]:
    """Leave out what a checkpoint says of the input, which the config fixes; the names are mmdet's.

    A name that RTMDet does not have stays: `checkpoints.fit` refuses it.

    Raises:
        DataError: These are not parameters of an RTMDet.
    """
    bias = f"{CLASS_LAYER}0.bias"
    if bias not in state or state[bias].ndim != 1:
        raise DataError(
            "the checkpoint is not an mmdet RTMDet checkpoint",
            where=where,
            expected=f"a parameter named {bias}",
            remedy="use a checkpoint trained with mmdet's RTMDet configs: no other names are known",
        )
    return {name: value for name, value in state.items() if not name.startswith("data_preprocessor.")}, "mmdet"


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """The RTMDet size of parameters under mmdet's names; None where it is none of the five."""
    stem = state.get("backbone.stem.0.conv.weight")
    if stem is None or stem.ndim != 4:
        return None
    blocks = {name.split(".")[4] for name in state if name.startswith("backbone.stage1.1.blocks.")}
    return VARIANTS.get((len(stem), len(blocks)))
