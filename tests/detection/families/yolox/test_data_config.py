from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import psutil
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from pipeline.detection.families.yolox import data_config as module
from pipeline.detection.families.yolox.data_config import set_machine
from pipeline.detection.families.yolox.mmdet_config import base_config, training_config
from pipeline.detection.hyperparameters import FROM_SCRATCH, ExecutionConfig, TrainingOptions
from pipeline.serving.model_metadata import ModelMetadata

MIXING = {"Mosaic", "RandomAffine", "MixUp"}


def config_of(
    datasets: tuple[Path, Path] | None = None, *, mosaic: bool = False, workers: int = 0, **changes: Any
) -> Config:
    options = TrainingOptions(**{"variant": "nano", "image_size": 96, "epochs": 20, "batch_size": 4, **changes})
    metadata = ModelMetadata(options.variant, (options.image_size, options.image_size), ("disc", "block"))
    config = training_config(options, FROM_SCRATCH, metadata, ExecutionConfig(iterations=10, mosaic=mosaic))
    import_modules_from_strings(**config.custom_imports)
    if datasets:
        set_machine(config, *datasets, workers=workers)
    return config


def built(dataset: Any) -> Any:
    from mmdet.registry import DATASETS

    init_default_scope("mmdet")
    return DATASETS.build(dataset)


def test_the_data_sets_classes_reach_mmdet(datasets: tuple[Path, Path]) -> None:
    """Upper-case CLASSES would be ignored without a word, and 80 COCO names would stay."""
    config = config_of(datasets)
    for dataset, images in ((config.train_dataloader.dataset, 13), (config.val_dataloader.dataset, 5)):
        done = built(dataset)
        assert tuple(done.metainfo["classes"]) == ("disc", "block")
        assert len(done) == images  # the empty image and those under 32 px are data_prep's to drop


def test_ap_is_taken_at_a_hundred_detections() -> None:
    assert tuple(config_of().val_evaluator.proposal_nums) == (1, 10, 100)


@pytest.mark.parametrize("mosaic", [True, False])
@pytest.mark.parametrize("variant", ["nano", "s"])
def test_the_input_size_is_everywhere(variant: str, mosaic: bool) -> None:
    config = config_of(variant=variant, mosaic=mosaic)
    mixed = {step.type.removeprefix("Fitted"): step for step in config.train_dataloader.dataset.pipeline}
    single = {step.type: step for step in config.train_dataloader.dataset.dataset.pipeline}
    testing = {step.type: step for step in config.val_dataloader.dataset.pipeline}
    assert single["LoadFitted"].scale == testing["LoadFitted"].scale == (96, 96)
    assert not {"Resize", "LoadImageFromFile"} & (mixed.keys() | single.keys() | testing.keys())
    assert testing["Pad"].pad_to_square
    assert testing["Pad"].pad_val["img"] == (114.0,) * 3
    expected = MIXING if variant == "s" else MIXING - {"MixUp"}
    assert mixed.keys() & MIXING == (expected if mosaic else set())
    if mosaic:
        assert mixed["Mosaic"].img_scale == (96, 96)
        assert mixed["RandomAffine"].border == (-48, -48)


@pytest.mark.parametrize("variant", ["nano", "s"])
def test_of_mmdets_transforms_none_is_lost(variant: str) -> None:
    """They come in mmdet's order, but for loading and fitting, which are done before."""
    theirs = [step.type for step in base_config(variant).train_dataloader.dataset.pipeline]
    ours = [step.type for step in config_of(variant=variant, mosaic=True).train_dataloader.dataset.pipeline]
    named = {new: old for old, new in module.REPLACEMENTS.items()}
    assert [named.get(name, name) for name in ours] == [name for name in theirs if name != "Resize"]


def test_an_evaluated_image_is_the_one_that_mmdet_would_make(photographs: list[Path], tmp_path: Path) -> None:
    """Tensor for tensor, with the boxes of the original: photographs are wide, tall, and larger than the input."""
    images = tmp_path / "images"
    images.mkdir()
    records, boxes = [], []
    for number, path in enumerate(photographs, 1):
        (images / path.name).write_bytes(path.read_bytes())
        height, width = cv2.imread(str(path)).shape[:2]
        records.append({"id": number, "file_name": path.name, "height": height, "width": width})
        box = {"bbox": [width / 4, height / 4, width / 2, height / 2], "area": width * height / 4, "iscrowd": 0}
        boxes.append({"id": number, "image_id": number, "category_id": 1 + number % 2, **box})
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "block"}]
    content = {"images": records, "annotations": boxes, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    config = config_of((tmp_path, tmp_path))
    theirs = copy.deepcopy(config.val_dataloader.dataset)
    theirs.pipeline = base_config("nano").val_dataloader.dataset.pipeline
    for transform in theirs.pipeline:
        if transform.type == "Resize":
            transform.scale = (96, 96)
        if transform.type == "Pad":
            transform.update(pad_to_square=True, pad_val={"img": (114.0,) * 3})
            transform.pop("size", None)
    pairs = list(zip(built(config.val_dataloader.dataset), built(theirs), strict=True))
    assert len(pairs) == len(photographs)
    for own, expected in pairs:
        assert torch.equal(own["inputs"], expected["inputs"])
        for name in ("ori_shape", "scale_factor"):
            assert own["data_samples"].metainfo[name] == expected["data_samples"].metainfo[name]
        boxes = (sample["data_samples"].gt_instances.bboxes for sample in (own, expected))
        assert torch.equal(*(getattr(each, "tensor", each) for each in boxes))


def test_only_the_machines_part_names_its_folders(datasets: tuple[Path, Path]) -> None:
    config = config_of()
    before = config.pretty_text
    set_machine(config, *datasets, workers=2)
    assert not any(str(folder) in before for folder in datasets)
    assert config.train_dataloader.dataset.dataset.data_root == f"{datasets[0]}/"
    assert config.val_dataloader.dataset.data_root == f"{datasets[1]}/"
    assert config.val_evaluator.ann_file == str(datasets[1] / "annotations.json")


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_workers_stay_and_share_the_memory(
    workers: int, datasets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 8 * 2**30
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    config = config_of(datasets, workers=workers)
    for loader in (config.train_dataloader, config.val_dataloader):
        assert (loader.num_workers, loader.persistent_workers) == (workers, workers > 0)
    processes = max(1, workers)
    kept = config.train_dataloader.dataset.dataset.pipeline[-1].memory
    evaluated = config.val_dataloader.dataset.pipeline[0].memory
    assert 0 < evaluated < kept
    assert (kept + evaluated) * processes <= free * module.IMAGE_MEMORY_SHARE


def test_there_is_a_most_that_is_kept(datasets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**50))
    assert config_of(datasets).train_dataloader.dataset.dataset.pipeline[-1].memory == module.IMAGE_MEMORY * 4 // 5


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_processes_of_a_machine_share_its_memory(devices: int, datasets: tuple[Path, Path]) -> None:
    config = config_of()
    set_machine(config, *datasets, workers=2, devices=devices)
    assert config.train_dataloader.dataset.dataset.pipeline[-1].memory * devices * 2 <= module.IMAGE_MEMORY


@pytest.mark.parametrize("cuda", [False, True])
def test_a_gpu_takes_batches_from_pinned_memory(cuda: bool, datasets: tuple[Path, Path]) -> None:
    config = config_of()
    set_machine(config, *datasets, workers=0, cuda=cuda)
    loaders = (config.train_dataloader, config.val_dataloader)
    assert [loader.pin_memory for loader in loaders] == [cuda, cuda]
    assert config.model.data_preprocessor.non_blocking == cuda


def test_devices_share_a_batch() -> None:
    options = TrainingOptions("nano", 96, batch_size=6)
    metadata = ModelMetadata("nano", (96, 96), ("disc", "block"))
    execution = ExecutionConfig(iterations=10)
    for devices, images in ((1, 6), (2, 3), (3, 2)):
        config = training_config(options, FROM_SCRATCH, metadata, replace(execution, devices=devices))
        assert config.train_dataloader.batch_size == images


@pytest.mark.parametrize(("micro_batch", "images"), [(0, 3), (2, 2)])
def test_evaluation_holds_no_more_images_at_once_than_a_step(micro_batch: int, images: int) -> None:
    metadata = ModelMetadata("nano", (96, 96), ("disc", "block"))
    execution = ExecutionConfig(iterations=10, devices=2, micro_batch=micro_batch)
    config = training_config(TrainingOptions("nano", 96, batch_size=6), FROM_SCRATCH, metadata, execution)
    assert (config.train_dataloader.batch_size, config.val_dataloader.batch_size) == (3, images)
