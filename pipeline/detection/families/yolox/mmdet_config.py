"""mmdet's own YOLOX configs, with only the differences that a recipe asks for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pipeline.detection import mmcv_ops
from pipeline.detection.families.yolox.data_config import MIXING, set_data
from pipeline.detection.hyperparameters import Recipe, Tuning
from pipeline.detection.spec import DetectorSpec, check_variant

FROZEN_STAGES = {"nothing": -1, "stem": 1, "backbone": 4}  # mmdet counts from the stem, 0
OUR_PARTS = (
    "pipeline.detection.cached_images",
    "pipeline.detection.families.yolox.detector",
    "pipeline.detection.families.yolox.head",
    "pipeline.detection.learning_rates",
    "pipeline.detection.seeded_samples",
)  # registered under names that configs use


def base_config(variant: str) -> Config:
    """mmdet's own config of a YOLOX variant, read by file path.

    The `mmdet::` notation would need pkg_resources, which current setuptools no longer has.
    """
    check_variant(variant)
    mmcv_ops.install()
    import mmdet  # imported here: it needs mmcv's operators or the stand-in first

    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "yolox"
    return Config.fromfile(str(folder / f"yolox_{variant}_8xb8-300e_coco.py"))


def model_config(spec: DetectorSpec) -> Config:
    """The base config with the model's classes and thresholds set, and nothing of training."""
    config = base_config(spec.variant)
    config.merge_from_dict(
        {
            "model.bbox_head.num_classes": len(spec.classes),
            "model.test_cfg.score_thr": spec.score_threshold,
            "model.test_cfg.nms.iou_threshold": spec.nms_iou_threshold,
        }
    )
    # Multi-scale batches suit 300 epochs; on short runs every step spent at another size is missing at the served one.
    config.model.data_preprocessor.batch_augments = None
    return config


def build_model(spec: DetectorSpec) -> Any:
    """An mmdet YOLOX with initial weights, on the CPU."""
    config = model_config(spec)
    import mmdet.models  # noqa: F401  # fills the registry; after mmcv_ops.install
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    logging.getLogger("mmengine").setLevel(logging.WARNING)
    return MODELS.build(config.model)


@dataclass(frozen=True)
class Setting:
    """What a training runs on and is cut into.

    Attributes:
        iterations: Steps of the optimiser in an epoch.
        devices: Processes that share each step.
        micro_batch: Images a process holds at once.
        workers: Data loading processes of each process; they decide nothing but the speed.
        mixed: Whether in mixed precision.
        mosaic: Whether with mosaic and affine, until the last epochs.
        cuda: Whether on GPUs.
    """

    iterations: int
    devices: int = 1
    micro_batch: int = 0
    workers: int = 0
    mixed: bool = False
    mosaic: bool = False
    cuda: bool = False


def training_config(recipe: Recipe, tuning: Tuning, spec: DetectorSpec, setting: Setting) -> Config:
    """The whole config of a run; its data roots are the names of the two data sets.

    Args:
        recipe: What the user asked for.
        tuning: What was chosen for the rest.
        spec: The detector to be trained.
        setting: What it runs on.
    """
    config = model_config(spec)
    config.custom_imports = {"imports": list(OUR_PARTS), "allow_failed_imports": False}
    config.model.update(type="PartwiseYOLOX", micro_batch=setting.micro_batch)
    config.model.bbox_head.type = "IgnoringYOLOXHead"
    config.model.backbone.update(frozen_stages=FROZEN_STAGES[tuning.freeze], norm_eval=tuning.frozen_norm)
    set_data(config, recipe, spec, devices=setting.devices, at_once=setting.micro_batch, mosaic=setting.mosaic)
    _set_optimizer(config, tuning, mixed=setting.mixed)
    steps = setting.iterations * recipe.epochs
    config.param_scheduler = _schedule(tuning, steps, setting.iterations)
    config.train_cfg = {
        "type": "EpochBasedTrainLoop",
        "max_epochs": recipe.epochs,
        # looking at the eval set every epoch would take a tenth of a short run; five points draw a curve
        "val_interval": 1 if recipe.patience else max(1, recipe.epochs // 5),
    }
    config.custom_hooks = [*_averaging(tuning, steps), *_mode_switch(tuning, recipe, setting)]
    # the hook on the runtime would make a GPU wait for each loss in each step
    config.default_hooks = dict.fromkeys(("logger", "checkpoint", "timer", "runtime_info"))
    for unused in ("visualizer", "tta_model", "tta_pipeline"):
        config.pop(unused, None)
    config.log_level = "WARNING"
    # cuDNN's deterministic kernels cost speed and some operators have none, so only a CPU run is bit-exact
    config.randomness = {"seed": recipe.seed, "deterministic": not setting.cuda}
    config.env_cfg.cudnn_benchmark = setting.cuda  # all batches have one size
    if setting.devices > 1:
        config.launcher = "pytorch"
        if setting.cuda:
            config.sync_bn = "torch"  # a device's share may be a few images, too few for statistics of their own
        # each process keeps its own statistics in an epoch; their mean is taken at its end
        config.model_wrapper_cfg = {"type": "PartwiseDistributed", "broadcast_buffers": False}
        if not setting.cuda:
            config.model_wrapper_cfg.device_ids = None
    return config


def _set_optimizer(config: Config, tuning: Tuning, *, mixed: bool) -> None:
    kinds = {
        "AdamW": {"type": "AdamW", "fused": True},
        "SGD": {"type": "SGD", "momentum": 0.9, "nesterov": True, "fused": True},
    }
    config.optim_wrapper = {
        "type": "AmpOptimWrapper" if mixed else "OptimWrapper",
        "constructor": "PartRates",
        "optimizer": {**kinds[tuning.optimizer], "lr": tuning.learning_rate, "weight_decay": tuning.weight_decay},
        "paramwise_cfg": {
            "backbone.": tuning.backbone_rate,
            "neck.": tuning.neck_rate,
            "bbox_head.multi_level_conv_cls.": tuning.class_rate,
        },
        "clip_grad": {"max_norm": tuning.max_gradient},
    }


def _schedule(tuning: Tuning, steps: int, iterations: int) -> list[dict[str, Any]]:
    """The rate by steps of the optimiser: up in a line, down in a cosine."""
    warm = min(int(steps * tuning.warm_up), 3 * iterations)
    warm = warm if warm > 1 else 0  # mmengine's LinearLR over one step would leave the rate at its start factor
    decay = {
        "type": "CosineAnnealingLR",
        "eta_min_ratio": tuning.final_rate,
        "by_epoch": False,
        "begin": warm,
        "T_max": steps - warm,
        "end": steps,
    }
    warm_up = {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": warm}
    return [warm_up, decay] if warm else [decay]


def _averaging(tuning: Tuning, steps: int) -> list[dict[str, Any]]:
    """The averaged weights, which are what is validated and kept.

    Their window follows the run: mmdet's gamma of 2000 steps would leave a short run unaveraged, its momentum of 0.0001
    would average over the untrained beginning.
    """
    if not tuning.averaged_steps:
        return []
    window = max(1.0, steps * tuning.averaged_steps)
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


def _mode_switch(tuning: Tuning, recipe: Recipe, setting: Setting) -> list[dict[str, Any]]:
    if not setting.mosaic or not tuning.plain_epochs:
        return []
    plain = max(1, int(recipe.epochs * tuning.plain_epochs))
    # mmdet switches one epoch earlier than the name says
    hook = {"type": "YOLOXModeSwitchHook", "num_last_epochs": plain - 1, "skip_type_keys": MIXING, "priority": 48}
    return [hook]
