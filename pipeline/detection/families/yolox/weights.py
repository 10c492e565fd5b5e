"""Names of YOLOX's parameters: mmdet's, and the original ones of Megvii's YOLOX for the same tensors.

Both networks have the same layers, order of concatenation, epsilon of the batch norms, and input (BGR, 0 to 255, padded
with 114). So a checkpoint of either fits the other after a change of names alone. Exceptions are Megvii's releases
before 0.1.1, trained on normalised RGB: nothing in their files says so.

Sources: Megvii-BaseDetection/YOLOX 0.3.0, `yolox/models/{darknet,yolo_pafpn,yolo_head,network_blocks}.py`; mmdet 3.3,
`models/backbones/csp_darknet.py`, `models/necks/yolox_pafpn.py`, `models/dense_heads/yolox_head.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from pipeline.errors import DataError

CLASS_LAYER = "bbox_head.multi_level_conv_cls."  # a 1x1 convolution per feature level, with one output row per class
MEGVII_CLASS_LAYER = "head.cls_preds."

# Channels of the stem, and bottlenecks of the first stage: 64 and 3 times a variant's width and depth.
VARIANTS = {(16, 1): "nano", (24, 1): "tiny", (32, 1): "s", (48, 2): "m", (64, 3): "l", (80, 4): "x"}

# Megvii counts the pyramid's layers by stride from either end (p4 is 16, bu_conv2 halves 8), mmdet in order of use.
PARTS = {
    "backbone.backbone.stem.": "backbone.stem.",
    "backbone.backbone.dark2.": "backbone.stage1.",
    "backbone.backbone.dark3.": "backbone.stage2.",
    "backbone.backbone.dark4.": "backbone.stage3.",
    "backbone.backbone.dark5.": "backbone.stage4.",
    "backbone.lateral_conv0.": "neck.reduce_layers.0.",
    "backbone.C3_p4.": "neck.top_down_blocks.0.",
    "backbone.reduce_conv1.": "neck.reduce_layers.1.",
    "backbone.C3_p3.": "neck.top_down_blocks.1.",
    "backbone.bu_conv2.": "neck.downsamples.0.",
    "backbone.C3_n3.": "neck.bottom_up_blocks.0.",
    "backbone.bu_conv1.": "neck.downsamples.1.",
    "backbone.C3_n4.": "neck.bottom_up_blocks.1.",
    "head.stems.": "neck.out_convs.",
    "head.cls_convs.": "bbox_head.multi_level_cls_convs.",
    "head.reg_convs.": "bbox_head.multi_level_reg_convs.",
    MEGVII_CLASS_LAYER: CLASS_LAYER,
    "head.reg_preds.": "bbox_head.multi_level_conv_reg.",
    "head.obj_preds.": "bbox_head.multi_level_conv_obj.",
}

# A cross stage partial layer's own convolutions; those of its bottlenecks, and of the pooling at stage4.1, keep theirs.
CSP_LAYER = re.compile(r"((?:backbone\.stage(?:[123]\.1|4\.2)|neck\.(?:top_down|bottom_up)_blocks\.[01])\.)(\w+)\.")
CSP_PARTS = {"conv1": "main_conv", "conv2": "short_conv", "conv3": "final_conv", "m": "blocks"}

DEPTHWISE_PARTS = {".dconv.": ".depthwise_conv.", ".pconv.": ".pointwise_conv."}  # in YOLOX-nano


def normalize(state: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], str]:
    """Give the tensors of a YOLOX checkpoint mmdet's names, and say whose they had: "mmdet" or "Megvii".

    A name that YOLOX does not have stays as it is: `checkpoints.fit` refuses it.

    Raises:
        DataError: These are not parameters of a YOLOX.
    """
    bias, source = f"{CLASS_LAYER}0.bias", "mmdet"
    if bias not in state and any(name.startswith(MEGVII_CLASS_LAYER) for name in state):
        state, source = {mmdet_name(name): value for name, value in state.items()}, "Megvii"
    if bias not in state or state[bias].ndim != 1:
        raise DataError(
            "the checkpoint is neither an mmdet nor a Megvii YOLOX checkpoint",
            where=where,
            expected=f"a parameter named {bias} or {MEGVII_CLASS_LAYER}0.bias",
            remedy="use a checkpoint trained with mmdet's or Megvii's YOLOX configs",
        )
    return dict(state), source


def variant_of(state: Mapping[str, Tensor]) -> str | None:
    """The YOLOX size of parameters under mmdet's names; None where it is none of the six."""
    stem = state.get("backbone.stem.conv.conv.weight")
    if stem is None or stem.ndim != 4:
        return None
    blocks = {name.split(".")[4] for name in state if name.startswith("backbone.stage1.1.blocks.")}
    variant = VARIANTS.get((len(stem), len(blocks)))
    depthwise = any(".depthwise_conv." in name for name in state)
    return variant if depthwise == (variant == "nano") else None


def mmdet_name(name: str) -> str:
    """`backbone.C3_p4.conv1.bn.weight` becomes `neck.top_down_blocks.0.main_conv.bn.weight`."""
    part = next((part for part in PARTS if name.startswith(part)), None)
    if part is None:
        return name
    name = PARTS[part] + name.removeprefix(part)
    name = CSP_LAYER.sub(lambda found: f"{found[1]}{CSP_PARTS.get(found[2], found[2])}.", name, count=1)
    for theirs, ours in DEPTHWISE_PARTS.items():
        name = name.replace(theirs, ours)
    return name
