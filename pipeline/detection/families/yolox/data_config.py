"""The part of a training's config that says what is read: the two data sets, and what becomes of their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
from mmengine.config import Config

from pipeline.detection.hyperparameters import Recipe
from pipeline.detection.spec import DetectorSpec

PAD_VALUE = 114.0
MIXING = ("FittedMosaic", "RandomAffine", "MixUp")
# the same bytes as mmdet's, sooner
OURS = {"Mosaic": "FittedMosaic", "YOLOXHSVRandomAug": "HSVByTable", "PackDetInputs": "PackChannelsLast"}
KEPT = 4 * 2**30  # bytes of fitted images that are kept at most, in all processes of a machine
KEPT_SHARE = 0.25  # of the memory that is free when training starts


def set_data(config: Config, recipe: Recipe, spec: DetectorSpec, *, devices: int, at_once: int, mosaic: bool) -> None:
    """Read the two data sets, with mmdet's own pipelines at the input size, through what loads them faster.

    Args:
        config: mmdet's own, changed in place.
        recipe: What the user asked for.
        spec: The detector; its class names go under `classes`, which is what mmdet really reads.
        devices: Processes that share a batch.
        at_once: Images that each holds at once, in evaluation; a training step takes its batch apart itself.
        mosaic: Whether samples mix images.
    """
    size = (recipe.image_size, recipe.image_size)
    # the loader's, not the file's `train_dataset`: mmdet's smaller variants replace the pipeline only there
    train, test = config.train_dataloader.dataset.pipeline, config.val_dataloader.dataset.pipeline
    source = {
        "type": "CocoDataset",
        "metainfo": {"classes": list(spec.classes)},
        "ann_file": "annotations.json",
        "data_prefix": {"img": "images/"},
    }
    fitted = {"type": "LoadFitted", "scale": size}
    single = {
        **source,
        "data_root": "coco_train_dataset/",
        "filter_cfg": None,  # mmdet drops images under 32 px; whether an image stays is data_prep's decision
        "pipeline": [{"type": "LoadAnnotations", "with_bbox": True}, fitted],
    }
    samples = {
        "type": "SeededDataset",
        "seed": recipe.seed,
        "dataset": single,
        "pipeline": _sample_pipeline(train, size, mosaic=mosaic),
    }
    evaluated = {
        **source,
        "data_root": "coco_eval_dataset/",
        "test_mode": True,
        "pipeline": _eval_pipeline(test, fitted),
    }
    collate = {"type": "stack_channels_last"}
    loader = {"num_workers": 0, "collate_fn": collate}
    sampler = {"type": "EpochSampler", "shuffle": True, "seed": recipe.seed}
    batch = recipe.batch_size // devices
    config.train_dataloader = {**loader, "batch_size": batch, "sampler": sampler, "dataset": samples}
    sampler = {"type": "DefaultSampler", "shuffle": False}
    config.val_dataloader = {
        **loader,
        "batch_size": at_once or batch,
        "drop_last": False,
        "sampler": sampler,
        "dataset": evaluated,
    }
    config.val_evaluator = {
        "type": "CocoMetric",
        "ann_file": "coco_eval_dataset/annotations.json",
        "metric": "bbox",
        "proposal_nums": (1, 10, 100),  # the default's last entry, 1000, is what AP would be taken at
        "format_only": False,
        # through the process group, a CPU's too; "cpu" would put files into the current folder
        "collect_device": "gpu",
    }
    for unused in ("train_dataset", "train_pipeline", "test_pipeline", "test_dataloader", "test_evaluator", "test_cfg"):
        config.pop(unused, None)


def _sample_pipeline(train: list[Any], size: tuple[int, int], *, mosaic: bool) -> list[Any]:
    """mmdet's, for images that fit the input already; without mosaic, also without the other transforms that mix."""
    transforms = []
    for transform in train:
        if transform.type in ("Mosaic", "MixUp"):
            transform.img_scale = size  # a tuple: mmcv refuses a list
        elif transform.type == "RandomAffine":
            transform.border = (-size[0] // 2, -size[1] // 2)
        transform.type = OURS.get(transform.type, transform.type)
        if transform.type != "Resize" and (mosaic or transform.type not in MIXING):
            transforms.append(transform)
    return transforms


def _eval_pipeline(test: list[Any], fitted: dict[str, Any]) -> list[Any]:
    """mmdet's, with boxes left in pixels of the original."""
    transforms = [fitted]
    for transform in test:
        if transform.type == "Pad":
            transform.update(pad_to_square=True, pad_val={"img": (PAD_VALUE,) * 3})
        transform.type = OURS.get(transform.type, transform.type)
        if transform.type not in ("LoadImageFromFile", "Resize"):
            transforms.append(transform)
    return transforms


def set_on_machine(
    config: Config, train_folder: Path, eval_folder: Path, *, workers: int, devices: int = 1, cuda: bool = False
) -> None:
    """Add what differs from machine to machine, and decides nothing of the result.

    Args:
        config: As `set_data` left it.
        train_folder: Where the train set lies.
        eval_folder: Where the eval set lies.
        workers: Data loading processes of each data set.
        devices: Processes that each keep images in this machine's memory.
        cuda: Whether batches go to a GPU, which takes them while it computes from pinned memory only.
    """
    train, test = config.train_dataloader, config.val_dataloader
    train.dataset.dataset.data_root = f"{train_folder}/"
    test.dataset.data_root = f"{eval_folder}/"
    config.val_evaluator.ann_file = str(eval_folder / "annotations.json")
    memory = int(min(KEPT, psutil.virtual_memory().available * KEPT_SHARE)) // (devices * max(1, workers))
    train.dataset.dataset.pipeline[-1].memory = memory * 4 // 5
    test.dataset.pipeline[0].memory = memory // 5
    for loader in (train, test):
        loader.num_workers = workers
        loader.persistent_workers = workers > 0
        loader.pin_memory = cuda
    config.model.data_preprocessor.non_blocking = cuda
