"""The data part of a training's config: the two data sets and the transforms of their images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
from mmengine.config import Config

from pipeline.detection.families.yolox.inference import PAD_VALUE
from pipeline.detection.hyperparameters import TrainingOptions
from pipeline.serving.model_metadata import ModelMetadata

MIXING = ("FittedMosaic", "RandomAffine", "MixUp")
# our faster transforms with the same results, see `transforms`
REPLACEMENTS = {"Mosaic": "FittedMosaic", "YOLOXHSVRandomAug": "HSVByTable", "PackDetInputs": "PackChannelsLast"}
IMAGE_MEMORY = 4 * 2**30  # most bytes of resized images that all processes of a machine keep
IMAGE_MEMORY_SHARE = 0.25  # of the memory that is free when training starts


def set_data(
    config: Config, options: TrainingOptions, metadata: ModelMetadata, *, devices: int, at_once: int, mosaic: bool
) -> None:
    """Configure the two data sets: mmdet's own transforms at the input size, in their faster form.

    Args:
        config: mmdet's own, changed in place.
        options: The user's options.
        metadata: The detector; mmdet reads its class names under `classes`.
        devices: Processes that share a batch.
        at_once: Images per process in evaluation; a training step splits its batch itself.
        mosaic: Whether samples mix images.
    """
    size = (options.image_size, options.image_size)
    # of the loader, not of `train_dataset`: mmdet's smaller variants replace the pipeline only there
    train, test = config.train_dataloader.dataset.pipeline, config.val_dataloader.dataset.pipeline
    source = {
        "type": "CocoDataset",
        "metainfo": {"classes": list(metadata.classes)},
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
    samples = {
        "type": "SeededDataset",
        "seed": options.seed,
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
    sampler = {"type": "EpochSampler", "shuffle": True, "seed": options.seed}
    batch = options.batch_size // devices
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
        # through the process group, on a CPU too; "cpu" would write files to the current folder
        "collect_device": "gpu",
    }
    for unused in ("train_dataset", "train_pipeline", "test_pipeline", "test_dataloader", "test_evaluator", "test_cfg"):
        config.pop(unused, None)


def _sample_pipeline(train: list[Any], size: tuple[int, int], *, mosaic: bool) -> list[Any]:
    """mmdet's transforms for images that fit the input; without mosaic, also without the others that mix images."""
    transforms = []
    for transform in train:
        if transform.type in ("Mosaic", "MixUp"):
            transform.img_scale = size  # a tuple: mmcv refuses a list
        elif transform.type == "RandomAffine":
            transform.border = (-size[0] // 2, -size[1] // 2)
        transform.type = REPLACEMENTS.get(transform.type, transform.type)
        if transform.type != "Resize" and (mosaic or transform.type not in MIXING):
            transforms.append(transform)
    return transforms


def _eval_pipeline(test: list[Any], fitted: dict[str, Any]) -> list[Any]:
    """mmdet's transforms, with boxes in pixels of the original."""
    transforms = [fitted]
    for transform in test:
        if transform.type == "Pad":
            transform.update(pad_to_square=True, pad_val={"img": (PAD_VALUE,) * 3})
        transform.type = REPLACEMENTS.get(transform.type, transform.type)
        if transform.type not in ("LoadImageFromFile", "Resize"):
            transforms.append(transform)
    return transforms


def set_machine(
    config: Config, train_folder: Path, eval_folder: Path, *, workers: int, devices: int = 1, cuda: bool = False
) -> None:
    """Add what differs between machines and does not change the result.

    Args:
        config: As `set_data` left it.
        train_folder: The train set.
        eval_folder: The eval set.
        workers: Data loading processes of each data set.
        devices: Processes that keep images in this machine's memory.
        cuda: Whether batches go to a GPU, which copies while it computes from pinned memory only.
    """
    train, test = config.train_dataloader, config.val_dataloader
    train.dataset.dataset.data_root = f"{train_folder}/"
    test.dataset.data_root = f"{eval_folder}/"
    config.val_evaluator.ann_file = str(eval_folder / "annotations.json")
    memory = int(min(IMAGE_MEMORY, psutil.virtual_memory().available * IMAGE_MEMORY_SHARE)) // (
        devices * max(1, workers)
    )
    train.dataset.dataset.pipeline[-1].memory = memory * 4 // 5
    test.dataset.pipeline[0].memory = memory // 5
    for loader in (train, test):
        loader.num_workers = workers
        loader.persistent_workers = workers > 0
        loader.pin_memory = cuda
    config.model.data_preprocessor.non_blocking = cuda
