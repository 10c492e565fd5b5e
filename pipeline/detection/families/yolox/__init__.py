"""YOLOX, as mmdet implements it: the only folder that knows YOLOX."""

from __future__ import annotations

from pipeline.detection.families import Family
from pipeline.detection.families.yolox.config import model_config, training_config
from pipeline.detection.families.yolox.detector import DecodedYolox
from pipeline.detection.families.yolox.weights import CLASS_LAYER, normalize, variant_of

FAMILY = Family(
    name="YOLOX",
    variants=("nano", "tiny", "s", "m", "l", "x"),
    stride=32,  # of the coarsest of its three feature maps
    class_layer=CLASS_LAYER,
    normalize=normalize,
    variant_of=variant_of,
    model_config=model_config,
    training_config=training_config,
    exportable=DecodedYolox,
)
