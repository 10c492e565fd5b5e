"""mmdet's own YOLOX configs, with the differences that the options require."""

from __future__ import annotations

from mmengine.config import Config

from pipeline.detection.families.yolox import detector, head
from pipeline.detection.families.yolox.weights import CLASS_LAYER
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mmdet_training import base_config, complete, set_outputs
from pipeline.serving.model_metadata import ModelMetadata


def model_config(metadata: ModelMetadata) -> Config:
    """The base config with the model's classes and thresholds set, and nothing of training."""
    config = base_config(f"yolox/yolox_{metadata.variant}_8xb8-300e_coco")
    set_outputs(config.model, metadata)
    # Multi-scale batches suit 300 epochs; a short run needs all its steps at the size that is served.
    config.model.data_preprocessor.batch_augments = None
    return config


def training_config(
    options: TrainingOptions, hyperparameters: Hyperparameters, metadata: ModelMetadata, execution: ExecutionConfig
) -> Config:
    """The config of a whole training; its data roots are the names of the two data sets."""
    config = model_config(metadata)
    config.model.type = "PartwiseYOLOX"
    config.model.bbox_head.type = "IgnoringYOLOXHead"
    given = (options, hyperparameters, metadata, execution)
    return complete(config, *given, modules=(detector, head), class_layer=CLASS_LAYER)
