"""mmdet's own YOLOX configs, with only the differences that a recipe asks for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from pipeline.detection import mmcv_ops
from pipeline.detection.spec import DetectorSpec, check_image_size, check_variant
from pipeline.errors import UsageError

PAD_VALUE = 114.0
AUGMENTATIONS = ("auto", "flip", "mosaic")


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        variant: YOLOX size: nano, tiny, s, m, l or x.
        image_size: Side of the square input in pixels, a multiple of 32.
        epochs: Passes over the training set; 0 packs the pretrained weights as they are.
        batch_size: Images a training step.
        learning_rate: Peak rate of AdamW; 0 chooses 1e-2 from scratch, 1e-4 where pretrained weights meet new classes,
            1e-5 where every class is already known to them (higher rates were measured to unlearn it).
        augmentation: "flip" is flips and colour; "mosaic" adds mosaic and random affine (and mixup from size s up);
            "auto" is mosaic from scratch for 50 epochs or more, and flip otherwise.
        workers: Data loading processes; -1 uses none on two cores or fewer, else up to four.
        seed: Of everything random.
    """

    variant: str = "s"
    image_size: int = 640
    epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 0.0
    augmentation: str = "auto"
    workers: int = -1
    seed: int = 0

    def __post_init__(self) -> None:
        check_variant(self.variant)
        check_image_size((self.image_size, self.image_size))
        limits = (("epochs", self.epochs, 0), ("batch_size", self.batch_size, 1), ("workers", self.workers, -1))
        for name, value, least in limits:
            if value < least:
                raise UsageError(f"{name} is {value}", where=name, expected=f"at least {least}")
        if self.learning_rate < 0:
            raise UsageError(f"learning_rate is {self.learning_rate}", where="learning_rate", expected="0 or more")
        if self.augmentation not in AUGMENTATIONS:
            raise UsageError(
                f"there is no augmentation '{self.augmentation}'",
                where="augmentation",
                expected="one of " + ", ".join(AUGMENTATIONS),
            )


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


def training_config(
    recipe: Recipe, spec: DetectorSpec, *, iterations: int, learning_rate: float, mosaic: bool, cuda: bool, workers: int
) -> Config:
    """The whole config of a run; its data roots are the names of the two data sets.

    Args:
        recipe: What the user asked for.
        spec: The detector to be trained.
        iterations: Training steps in one epoch.
        learning_rate: Peak rate, already chosen.
        mosaic: Whether mosaic and affine are on (until the last fifth of the epochs).
        cuda: Whether a GPU will run it: decides mixed precision, which mmengine refuses on a CPU.
        workers: Data loading processes.
    """
    config = model_config(spec)
    size = (recipe.image_size, recipe.image_size)
    steps = iterations * recipe.epochs
    _set_pipelines(config, size, mosaic)
    _set_data(config, recipe, spec, workers)
    config.train_cfg = {
        "type": "EpochBasedTrainLoop",
        "max_epochs": recipe.epochs,
        # looking at the eval set every epoch would take a tenth of a short run; five points draw a curve
        "val_interval": max(1, recipe.epochs // 5),
    }
    config.optim_wrapper = {
        "type": "AmpOptimWrapper" if cuda else "OptimWrapper",
        "optimizer": {"type": "AdamW", "lr": learning_rate, "weight_decay": 0.05},
        "paramwise_cfg": {"norm_decay_mult": 0.0, "bias_decay_mult": 0.0},
        "clip_grad": {"max_norm": 35.0},
    }
    warm = min(steps // 10, 3 * iterations)
    warm = warm if warm > 1 else 0  # mmengine's LinearLR over one step would leave the rate at its start factor
    decay = {
        "type": "CosineAnnealingLR",
        "eta_min": learning_rate * 0.05,
        "by_epoch": False,
        "begin": warm,
        "T_max": steps - warm,
        "end": steps,
    }
    warm_up = {"type": "LinearLR", "start_factor": 0.01, "by_epoch": False, "begin": 0, "end": warm}
    config.param_scheduler = [warm_up, decay] if warm else [decay]
    # The window follows the run: mmdet's gamma of 2000 steps would leave a short run unaveraged, its momentum of
    # 0.0001 would average over the untrained beginning.
    ema = {
        "type": "EMAHook",
        "ema_type": "ExpMomentumEMA",
        "momentum": min(0.5, max(0.0002, 20.0 / max(steps, 1))),
        "gamma": max(1, steps // 20),
        "update_buffers": True,
        "priority": 49,
    }
    config.custom_hooks = [ema]
    if mosaic:
        # mmdet switches one epoch earlier than the name says
        plain_epochs = max(1, recipe.epochs // 5)
        config.custom_hooks.append({"type": "YOLOXModeSwitchHook", "num_last_epochs": plain_epochs - 1, "priority": 48})
    config.default_hooks = {"logger": None, "checkpoint": None, "timer": None}
    config.pop("visualizer", None)
    config.pop("tta_model", None)
    config.pop("tta_pipeline", None)
    config.log_level = "WARNING"
    # cuDNN's deterministic kernels cost speed and some operators have none, so only a CPU run is bit-exact
    config.randomness = {"seed": recipe.seed, "deterministic": not cuda}
    return config


def _set_pipelines(config: Config, size: tuple[int, int], mosaic: bool) -> None:
    """Put the input size into mmdet's own pipelines; without mosaic, drop what mixes images."""
    pad = {"type": "Pad", "pad_to_square": True, "pad_val": {"img": (PAD_VALUE,) * 3}}
    # the loader's, not the file's `train_dataset`: mmdet's smaller variants replace the pipeline only there
    train, test = config.train_dataloader.dataset, config.val_dataloader.dataset
    for transform in train.pipeline:
        if transform.type in ("Mosaic", "MixUp"):
            transform.img_scale = size
        elif transform.type == "RandomAffine":
            transform.border = (-size[0] // 2, -size[1] // 2)
        elif transform.type == "Resize":
            transform.scale = size
    if not mosaic:
        mixing = ("Mosaic", "RandomAffine", "MixUp")
        train.pipeline = [t for t in train.pipeline if t.type not in mixing]
    for transform in test.pipeline:
        if transform.type == "Resize":
            transform.scale = size
        elif transform.type == "Pad":
            transform.update(pad)


def _set_data(config: Config, recipe: Recipe, spec: DetectorSpec, workers: int) -> None:
    """Point the loaders at the two data sets and give both the class names mmdet really reads: `classes`."""
    source = {
        "metainfo": {"classes": list(spec.classes)},
        "ann_file": "annotations.json",
        "data_prefix": {"img": "images/"},
    }
    # mmdet drops images under 32 px by default; whether an image stays is data_prep's decision
    train, test = config.train_dataloader.dataset, config.val_dataloader.dataset
    train.dataset.update({**source, "data_root": "coco_train_dataset/", "filter_cfg": None})
    loader = {
        "batch_size": recipe.batch_size,
        "num_workers": workers,
        # those that outlive an epoch carry their random state into the next, with which no run could then begin
        "persistent_workers": False,
    }
    config.train_dataloader = {
        **loader,
        "sampler": {"type": "DefaultSampler", "shuffle": True},
        "dataset": train,
    }
    evaluated = {
        **source,
        "type": "CocoDataset",
        "data_root": "coco_eval_dataset/",
        "test_mode": True,
        "pipeline": test.pipeline,
    }
    config.val_dataloader = {
        **loader,
        "drop_last": False,
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "dataset": evaluated,
    }
    config.val_evaluator = {
        "type": "CocoMetric",
        "ann_file": "coco_eval_dataset/annotations.json",
        "metric": "bbox",
        "proposal_nums": (1, 10, 100),  # the default's last entry, 1000, is what AP would be taken at
        "format_only": False,
    }
    for unused in ("train_dataset", "train_pipeline", "test_pipeline", "test_dataloader", "test_evaluator", "test_cfg"):
        config.pop(unused, None)


def set_data_roots(config: Config, train_folder: Path, eval_folder: Path) -> None:
    """Replace the data sets' names by the folders they lie in on this machine."""
    config.train_dataloader.dataset.dataset.data_root = f"{train_folder}/"
    config.val_dataloader.dataset.data_root = f"{eval_folder}/"
    config.val_evaluator.ann_file = str(eval_folder / "annotations.json")
