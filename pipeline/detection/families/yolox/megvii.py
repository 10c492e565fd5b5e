"""Megvii's YOLOX, the original, under the names that mmdet gives to the same tensors.

The two networks are one: same layers, same order of concatenation, same epsilon of the batch normalisation, same input
(BGR, 0 to 255, padded with 114). So a checkpoint of either fits the other once its names are changed, and no value is.
The exception are Megvii's releases before 0.1.1, trained on normalised RGB: nothing in their files says so.

Sources: Megvii-BaseDetection/YOLOX 0.3.0, `yolox/models/{darknet,yolo_pafpn,yolo_head,network_blocks}.py`; mmdet 3.3,
`models/backbones/csp_darknet.py`, `models/necks/yolox_pafpn.py`, `models/dense_heads/yolox_head.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

CLASS_LAYER = "head.cls_preds."

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
    CLASS_LAYER: "bbox_head.multi_level_conv_cls.",
    "head.reg_preds.": "bbox_head.multi_level_conv_reg.",
    "head.obj_preds.": "bbox_head.multi_level_conv_obj.",
}

# A cross stage partial layer's own convolutions; those of its bottlenecks, and of the pooling at stage4.1, keep theirs.
CSP_LAYER = re.compile(r"((?:backbone\.stage(?:[123]\.1|4\.2)|neck\.(?:top_down|bottom_up)_blocks\.[01])\.)(\w+)\.")
CSP_PARTS = {"conv1": "main_conv", "conv2": "short_conv", "conv3": "final_conv", "m": "blocks"}

DEPTHWISE_PARTS = {".dconv.": ".depthwise_conv.", ".pconv.": ".pointwise_conv."}  # in YOLOX-nano


def is_megvii(state: Mapping[str, Tensor]) -> bool:
    """Whether these are Megvii's names: those of the head's classification layers."""
    return any(name.startswith(CLASS_LAYER) for name in state)


def to_mmdet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under mmdet's names; a name that Megvii's YOLOX does not have stays, for `fit` to refuse."""
    return {mmdet_name(name): value for name, value in state.items()}


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
