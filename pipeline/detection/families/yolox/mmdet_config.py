"""mmdet's own YOLOX configs, with the differences that the options require."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pipeline.detection import mmcv_ops, optimization, seeded_samples
from pipeline.detection.families.yolox import detector, head, transforms
from pipeline.detection.families.yolox.data_config import MIXING, set_data
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.serving.model_metadata import ModelMetadata

FROZEN_STAGES = {"nothing": -1, "stem": 1, "backbone": 4}  # mmdet counts from the stem, 0
REGISTERED = (detector, head, optimization, seeded_samples, transforms)  # modules whose classes the config names


def base_config(variant: str) -> Config:
    """mmdet's own config of a YOLOX variant, read from its file.

    The `mmdet::` notation would need pkg_resources, which current setuptools no longer has.
    """
    mmcv_ops.install()
    import mmdet  # after mmcv_ops.install

    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "yolox"
    return Config.fromfile(str(folder / f"yolox_{variant}_8xb8-300e_coco.py"))


def model_config(metadata: ModelMetadata) -> Config:
    """The base config with the model's classes and thresholds set, and nothing of training."""
    config = base_config(metadata.variant)
    config.merge_from_dict(
        {
            "model.bbox_head.num_classes": len(metadata.classes),
            "model.test_cfg.score_thr": metadata.score_threshold,
            "model.test_cfg.nms.iou_threshold": metadata.nms_iou_threshold,
        }
    )
    # Multi-scale batches suit 300 epochs; a short run needs all its steps at the size that is served.
    config.model.data_preprocessor.batch_augments = None
    return config


def build_model(metadata: ModelMetadata) -> Any:
    """An mmdet YOLOX with initial weights, on the CPU."""
    config = model_config(metadata)
    import mmdet.models  # noqa: F401  # fills the registry; after mmcv_ops.install
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    logging.getLogger("mmengine").setLevel(logging.WARNING)
    return MODELS.build(config.model)


def training_config(
    options: TrainingOptions, hyperparameters: Hyperparameters, metadata: ModelMetadata, execution: ExecutionConfig
) -> Config:
    """The config of a whole training; its data roots are the names of the two data sets.

    Args:
        options: The user's options.
        hyperparameters: All that the user did not choose.
        metadata: The detector to train.
        execution: How the training is divided.
    """
    config = model_config(metadata)
    config.custom_imports = {"imports": [module.__name__ for module in REGISTERED], "allow_failed_imports": False}
    config.model.update(type="PartwiseYOLOX", micro_batch=execution.micro_batch)
    config.model.bbox_head.type = "IgnoringYOLOXHead"
    config.model.backbone.update(
        frozen_stages=FROZEN_STAGES[hyperparameters.freeze], norm_eval=hyperparameters.frozen_norm
    )
    set_data(
        config, options, metadata, devices=execution.devices, at_once=execution.micro_batch, mosaic=execution.mosaic
    )
    _set_optimizer(config, hyperparameters, mixed=execution.mixed)
    steps = execution.iterations * options.epochs
    config.param_scheduler = _schedule(hyperparameters, steps, execution.iterations)
    config.train_cfg = {
        "type": "EpochBasedTrainLoop",
        "max_epochs": options.epochs,
        # a validation after each epoch would take a tenth of a short run; five points draw a curve
        "val_interval": 1 if options.patience else max(1, options.epochs // 5),
    }
    config.custom_hooks = [*_averaging(hyperparameters, steps), *_mode_switch(hyperparameters, options, execution)]
    # the runtime_info hook would make a GPU wait for each loss in each step
    config.default_hooks = dict.fromkeys(("logger", "checkpoint", "timer", "runtime_info"))
    for unused in ("visualizer", "tta_model", "tta_pipeline"):
        config.pop(unused, None)
    config.log_level = "WARNING"
    # cuDNN's deterministic kernels cost speed and some operators have none, so only a CPU run is bit-exact
    config.randomness = {"seed": options.seed, "deterministic": not execution.cuda}
    config.env_cfg.cudnn_benchmark = execution.cuda  # all batches have one size
    if execution.devices > 1:
        config.launcher = "pytorch"
        if execution.cuda:
            config.sync_bn = "torch"  # a device's few images are too few for statistics of their own
        # each process has its own statistics during an epoch; `SameStatisticsHook` averages them at its end
        config.model_wrapper_cfg = {"type": "PartwiseDistributed", "broadcast_buffers": False}
        if not execution.cuda:
            config.model_wrapper_cfg.device_ids = None
    return config


def _set_optimizer(config: Config, chosen: Hyperparameters, *, mixed: bool) -> None:
    kinds = {
        "AdamW": {"type": "AdamW", "fused": True},
        "SGD": {"type": "SGD", "momentum": 0.9, "nesterov": True, "fused": True},
    }
    config.optim_wrapper = {
        "type": "AmpOptimWrapper" if mixed else "OptimWrapper",
        "constructor": "PartRates",
        "optimizer": {
            **kinds[chosen.optimizer],
            "lr": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
        },
        "paramwise_cfg": {
            "backbone.": chosen.backbone_rate,
            "neck.": chosen.neck_rate,
            "bbox_head.multi_level_conv_cls.": chosen.class_rate,
        },
        "clip_grad": {"max_norm": chosen.max_gradient},
    }


def _schedule(chosen: Hyperparameters, steps: int, iterations: int) -> list[dict[str, Any]]:
    """The learning rate by step: a linear rise, then a cosine."""
    warm = min(int(steps * chosen.warm_up), 3 * iterations)
    warm = warm if warm > 1 else 0  # mmengine's LinearLR over one step would leave the rate at its start factor
    decay = {
        "type": "CosineAnnealingLR",
        "eta_min_ratio": chosen.final_rate,
        "by_epoch": False,
        "begin": warm,
        "T_max": steps - warm,
        "end": steps,
    }
    warm_up = {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": warm}
    return [warm_up, decay] if warm else [decay]


def _averaging(chosen: Hyperparameters, steps: int) -> list[dict[str, Any]]:
    """The averaged weights, which are validated and kept.

    Their window is a share of the run: mmdet's gamma of 2000 steps would leave a short run unaveraged, and its momentum
    of 0.0001 would average over the untrained beginning.
    """
    if not chosen.averaged_steps:
        return []
    window = max(1.0, steps * chosen.averaged_steps)
    return [
        {
            "type": "EMAHook",
            "ema_type": "ExpMomentumEMA",
            "momentum": min(0.5, max(0.0002, 1.0 / window)),
            "gamma": max(1, int(window)),
            "update_buffers": True,
            "priority": 49,
        }
    ]


def _mode_switch(chosen: Hyperparameters, options: TrainingOptions, execution: ExecutionConfig) -> list[dict[str, Any]]:
    if not execution.mosaic or not chosen.plain_epochs:
        return []
    plain = max(1, int(options.epochs * chosen.plain_epochs))
    # mmdet switches one epoch earlier than the name says
    hook = {"type": "YOLOXModeSwitchHook", "num_last_epochs": plain - 1, "skip_type_keys": MIXING, "priority": 48}
    return [hook]
