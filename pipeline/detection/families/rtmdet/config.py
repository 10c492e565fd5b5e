"""mmdet's own RTMDet configs, with the differences that the options require."""

from __future__ import annotations

from mmengine.config import Config

from pipeline.detection.families.rtmdet import detector, head
from pipeline.detection.families.rtmdet.weights import CLASS_LAYER
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mmdet_training import base_config, complete, set_outputs
from pipeline.serving.model_metadata import ModelMetadata


def model_config(metadata: ModelMetadata) -> Config:
    """The base config with the model's classes and thresholds set, and nothing of training."""
    # The data are prepared as YOLOX's of the same size, for which there are fast transforms: RTMDet's differ in the
    # cache of their mosaics and in a crop where YOLOX has an affine transform. The validation is the same.
    size = "tiny" if metadata.variant == "tiny" else "s"
    config = base_config(f"yolox/yolox_{size}_8xb8-300e_coco")
    config.model = base_config(f"rtmdet/rtmdet_{metadata.variant}_8xb32-300e_coco").model
    model = config.model
    set_outputs(config.model, metadata)
    model.backbone.pop("init_cfg", None)  # of the smaller variants: the URL of weights trained on ImageNet
    # `mmdet_training` synchronises norms where there are several GPUs, and only there
    model.use_syncbn = False
    for part in (model.backbone, model.neck, model.bbox_head):
        part.norm_cfg.type = "BN"
    return config


def training_config(
    options: TrainingOptions, hyperparameters: Hyperparameters, metadata: ModelMetadata, execution: ExecutionConfig
) -> Config:
    """The config of a whole training; its data roots are the names of the two data sets."""
    config = model_config(metadata)
    config.model.type = "PartwiseRTMDet"
    config.model.bbox_head.type = "IgnoringRTMDetHead"
    given = (options, hyperparameters, metadata, execution)
    return complete(config, *given, modules=(detector, head), class_layer=CLASS_LAYER)
