"""mmdet's own YOLOX configs, with the differences that the options require."""

from __future__ import annotations

from typing import Any

from mmengine.config import Config

from pipeline.detection.families.yolox import detector, head
from pipeline.detection.families.yolox.weights import CLASS_LAYER
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mmdet_training import base_config, build, complete
from pipeline.serving.model_metadata import ModelMetadata


def model_config(metadata: ModelMetadata) -> Config:
    """The base config with the model's classes and thresholds set, and nothing of training."""
    config = base_config(f"yolox/yolox_{metadata.variant}_8xb8-300e_coco")
    config.model.bbox_head.num_classes = len(metadata.classes)
    config.model.test_cfg.score_thr = metadata.score_threshold
    config.model.test_cfg.nms.iou_threshold = metadata.nms_iou_threshold
    # Multi-scale batches suit 300 epochs; a short run needs all its steps at the size that is served.
    config.model.data_preprocessor.batch_augments = None
    return config


def build_model(metadata: ModelMetadata) -> Any:
    """An mmdet YOLOX with initial weights, on the CPU."""
    return build(model_config(metadata).model)


def training_config(
    options: TrainingOptions, hyperparameters: Hyperparameters, metadata: ModelMetadata, execution: ExecutionConfig
) -> Config:
    """The config of a whole training; its data roots are the names of the two data sets."""
    config = model_config(metadata)
    config.model.type = "PartwiseYOLOX"
    config.model.bbox_head.type = "IgnoringYOLOXHead"
    given = (options, hyperparameters, metadata, execution)
    return complete(config, *given, modules=(detector, head), class_layer=CLASS_LAYER)
