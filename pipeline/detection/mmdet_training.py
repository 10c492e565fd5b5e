"""mmengine's configuration of a training, as far as it is the same for every family that mmdet implements."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import mmdet
import psutil
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from pipeline.detection import coco_metric, optimization, partwise, seeded_samples, transforms
from pipeline.detection.hyperparameters import ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mapped_annotations import MappedDataset
from pipeline.serving.model_metadata import ModelMetadata

FROZEN_STAGES = {"nothing": -1, "stem": 1, "backbone": 4}  # mmdet counts from the stem, 0
# modules whose classes the config names
REGISTERED = (coco_metric, optimization, partwise, seeded_samples, transforms)
MIXING = ("FittedMosaic", "RandomAffine", "MixUp")
# our faster transforms with the same results, see `transforms`
REPLACEMENTS = {"Mosaic": "FittedMosaic", "YOLOXHSVRandomAug": "HSVByTable", "PackDetInputs": "PackChannelsLast"}
IMAGE_MEMORY = 4 * 2**30  # most bytes of resized images that all processes of a machine keep
IMAGE_MEMORY_SHARE = 0.25  # of the memory that is free when training starts


def base_config(name: str) -> Config:
    """One of mmdet's own configs, such as `yolox/yolox_s_8xb8-300e_coco`, read from its file.

    The `mmdet::` notation would need pkg_resources, which current setuptools no longer has.
    """
    return Config.fromfile(str(Path(mmdet.__file__).parent / ".mim" / "configs" / f"{name}.py"))


def set_outputs(model: Any, metadata: ModelMetadata) -> None:
    """Set the classes and the thresholds of a model's config."""
    model.bbox_head.num_classes = len(metadata.classes)
    model.test_cfg.score_thr = metadata.score_threshold
    model.test_cfg.nms.iou_threshold = metadata.nms_iou_threshold


def build(config: Config) -> Any:
    """The network of a config with initial weights, on the CPU."""
    init_default_scope("mmdet")
    logging.getLogger("mmengine").setLevel(logging.WARNING)
    return MODELS.build(config.model)


def complete(
    config: Config,
    options: TrainingOptions,
    hyperparameters: Hyperparameters,
    metadata: ModelMetadata,
    execution: ExecutionConfig,
    *,
    modules: Sequence[ModuleType],
    class_layer: str,
) -> Config:
    """Complete a family's config to that of a whole training; its data roots are the names of the two data sets.

    Args:
        config: Has the family's `model`, and the pipelines that YOLOX is trained and validated with in mmdet.
        options: The user's.
        hyperparameters: Chosen by what the training starts from.
        metadata: Of the model.
        execution: How the training is divided.
        modules: The family's own, whose classes the config names.
        class_layer: Prefix of the names of the parameters that have one row per class.
    """
    config.custom_imports = {
        "imports": [module.__name__ for module in (*REGISTERED, *modules)],
        "allow_failed_imports": False,
    }
    config.model.micro_batch = execution.micro_batch
    config.model.backbone.update(
        frozen_stages=FROZEN_STAGES[hyperparameters.freeze], norm_eval=hyperparameters.frozen_norm
    )
    _set_data(config, options, metadata, execution)
    momentum = {} if hyperparameters.optimizer == "AdamW" else {"momentum": 0.9, "nesterov": True}
    config.optim_wrapper = {
        "type": "AmpOptimWrapper" if execution.mixed else "OptimWrapper",
        "constructor": "PartRates",
        "optimizer": {
            "type": hyperparameters.optimizer,
            **momentum,
            "fused": True,
            "lr": hyperparameters.learning_rate,
            "weight_decay": hyperparameters.weight_decay,
        },
        "paramwise_cfg": {
            "backbone.": hyperparameters.backbone_rate,
            "neck.": hyperparameters.neck_rate,
            class_layer: hyperparameters.class_rate,
        },
        "clip_grad": {"max_norm": hyperparameters.max_gradient},
    }
    steps = execution.iterations * options.epochs
    config.param_scheduler = _schedule(hyperparameters, steps, execution.iterations)
    config.train_cfg = {
        "type": "EpochBasedTrainLoop",
        "max_epochs": options.epochs,
        # a validation after each epoch would take a tenth of a short run; five points draw a curve
        "val_interval": 1 if options.patience else max(1, options.epochs // 5),
    }
    config.custom_hooks = []
    if hyperparameters.averaged_steps:
        # The averaged weights are validated and kept. Their window is a share of the run: mmdet's gamma of 2000 steps
        # would leave a short run unaveraged, and its momentum of 0.0001 would average over the untrained beginning.
        window = max(1.0, steps * hyperparameters.averaged_steps)
        average = {"momentum": min(0.5, max(0.0002, 1.0 / window)), "gamma": max(1, int(window))}
        hook = {"type": "EMAHook", "ema_type": "ExpMomentumEMA", **average, "update_buffers": True, "priority": 49}
        config.custom_hooks.append(hook)
    if execution.mosaic and hyperparameters.plain_epochs:
        last = max(1, int(options.epochs * hyperparameters.plain_epochs)) - 1  # mmdet switches an epoch earlier
        hook = {"type": "YOLOXModeSwitchHook", "num_last_epochs": last, "skip_type_keys": MIXING, "priority": 48}
        config.custom_hooks.append(hook)
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


def _set_data(config: Config, options: TrainingOptions, metadata: ModelMetadata, execution: ExecutionConfig) -> None:
    """Configure the two data sets: mmdet's own transforms at the input size, in their faster form."""
    size = (options.image_size, options.image_size)
    # of the loader, not of `train_dataset`: mmdet's smaller variants replace the pipeline only there
    train, test = config.train_dataloader.dataset.pipeline, config.val_dataloader.dataset.pipeline
    source = {
        "type": "CocoDataset",
        "metainfo": {"classes": list(metadata.classes)},  # mmdet reads the lower-case name only
        "ann_file": "annotations.json",
        "data_prefix": {"img": "images/"},
    }
    fitted = {"type": "LoadFitted", "scale": size}
    single = {
        **source,
        "data_root": "coco_train_dataset/",
        "filter_cfg": None,  # mmdet would drop images under 32 px, but the data set decides which images it has
        "pipeline": [{"type": "LoadAnnotations", "with_bbox": True}, fitted],
    }
    mixed = _faster(train, size, mosaic=execution.mosaic)
    samples = {"type": "SeededDataset", "seed": options.seed, "dataset": single, "pipeline": mixed}
    plain = [fitted, *_faster(test, size)]  # boxes stay in pixels of the original
    evaluated = {**source, "data_root": "coco_eval_dataset/", "test_mode": True, "pipeline": plain}
    loader = {"num_workers": 0, "collate_fn": {"type": "stack_channels_last"}}
    sampler = {"type": "EpochSampler", "shuffle": True, "seed": options.seed}
    batch = options.batch_size // execution.devices
    config.train_dataloader = {**loader, "batch_size": batch, "sampler": sampler, "dataset": samples}
    config.val_dataloader = {
        **loader,
        "batch_size": execution.micro_batch or batch,  # a training step splits its batch itself
        "drop_last": False,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": evaluated,
    }
    config.val_evaluator = {
        "type": "MatchedCocoMetric",
        "ann_file": "coco_eval_dataset/annotations.json",
        # through the process group, on a CPU too; "cpu" would write files to the current folder
        "collect_device": "gpu",
    }
    for unused in ("train_dataset", "train_pipeline", "test_pipeline", "test_dataloader", "test_evaluator", "test_cfg"):
        config.pop(unused, None)


def _faster(transforms: list[Any], size: tuple[int, int], *, mosaic: bool = False) -> list[Any]:
    """mmdet's transforms for images that are loaded and fit the input already, and without mosaic none that mixes."""
    unused = ("LoadImageFromFile", "Resize", *(() if mosaic else MIXING))
    changes = {
        "Mosaic": {"img_scale": size},  # a tuple: mmcv refuses a list
        "MixUp": {"img_scale": size},
        "RandomAffine": {"border": (-size[0] // 2, -size[1] // 2)},
    }
    for transform in transforms:
        transform.update(changes.get(transform.type, {}))
        transform.type = REPLACEMENTS.get(transform.type, transform.type)
    return [each for each in transforms if each.type not in unused]


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


def set_machine(
    config: Config, train_folder: Path, eval_folder: Path, execution: ExecutionConfig, tables: Path | None = None
) -> None:
    """Add what differs between machines and does not change the result."""
    train, test, workers = config.train_dataloader, config.val_dataloader, execution.workers
    if tables:
        for dataset, name in ((train.dataset.dataset, "train"), (test.dataset, "eval")):
            dataset.update(type=MappedDataset.__name__, ann_file=str(tables.resolve() / name))
    train.dataset.dataset.data_root = f"{train_folder.resolve()}/"
    test.dataset.data_root = f"{eval_folder.resolve()}/"
    truth = tables / "eval" / coco_metric.TRUTH_FILE if tables else eval_folder / "annotations.json"
    config.val_evaluator.ann_file = str(truth.resolve())
    free = min(IMAGE_MEMORY, psutil.virtual_memory().available * IMAGE_MEMORY_SHARE)
    memory = int(free) // (execution.devices * max(1, workers))
    train.dataset.dataset.pipeline[-1].memory = memory * 4 // 5
    test.dataset.pipeline[0].memory = memory // 5
    for loader in (train, test):
        # a GPU copies while it computes from pinned memory only
        loader.update(num_workers=workers, persistent_workers=workers > 0, pin_memory=execution.cuda)
    config.model.data_preprocessor.non_blocking = execution.cuda
