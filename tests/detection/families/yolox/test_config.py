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

from pipeline.detection import mmdet_training
from pipeline.detection.families.yolox.config import training_config
from pipeline.detection.hyperparameters import FROM_SCRATCH, ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.detection.mmdet_training import base_config, set_machine
from pipeline.detection.transforms import stack_channels_last
from pipeline.serving.model_metadata import ModelMetadata

MIXING = {"Mosaic", "RandomAffine", "MixUp"}
PLAIN = ExecutionConfig(iterations=10, micro_batch=4)
MOSAIC = replace(PLAIN, mosaic=True)


def config_of(
    execution: ExecutionConfig = MOSAIC, hyperparameters: Hyperparameters = FROM_SCRATCH, **changes: Any
) -> Config:
    options = TrainingOptions(**{"detector": "yolox-nano", "image_size": 96, "epochs": 20, "batch_size": 4, **changes})
    metadata = ModelMetadata(options.variant, (options.image_size, options.image_size), ("disc", "block"))
    return training_config(options, hyperparameters, metadata, execution)


def hooks_of(config: Config) -> dict[str, Any]:
    return {hook["type"]: hook for hook in config.custom_hooks}


@pytest.mark.parametrize("epochs", [1, 3, 20, 300])
def test_the_schedule_fits_the_run(epochs: int) -> None:
    """Nothing of the 300-epoch schedule is left: warm-up, decay, mosaic's end and EMA all end with the run."""
    config = config_of(epochs=epochs)
    steps = 10 * epochs
    *warm_up, decay = config.param_scheduler
    begin = warm_up[0]["end"] if warm_up else 0
    assert begin <= min(steps // 10, 30)
    assert (decay["begin"], decay["end"], decay["T_max"]) == (begin, steps, steps - begin)
    assert config.train_cfg.max_epochs == epochs
    hooks = hooks_of(config)
    assert 0 <= hooks["YOLOXModeSwitchHook"]["num_last_epochs"] < max(1, epochs // 4)
    assert hooks["EMAHook"]["gamma"] <= max(1, steps // 10)
    assert 1 / hooks["EMAHook"]["momentum"] <= max(2, steps / 2)


@pytest.mark.parametrize(("epochs", "plain", "last"), [(20, 0.2, 4), (20, 0.5, 10), (3, 0.1, 1), (2, 1.0, 2)])
def test_so_many_epochs_at_the_end_are_without_mosaic(epochs: int, plain: float, last: int) -> None:
    """mmdet's hook switches in the epoch before those that it counts."""
    hooks = hooks_of(config_of(epochs=epochs, hyperparameters=replace(FROM_SCRATCH, plain_epochs=plain)))
    assert hooks["YOLOXModeSwitchHook"]["num_last_epochs"] == last - 1


def test_hooks_that_a_training_does_not_need() -> None:
    assert hooks_of(config_of(PLAIN, replace(FROM_SCRATCH, averaged_steps=0.0))) == {}
    assert hooks_of(config_of(hyperparameters=replace(FROM_SCRATCH, plain_epochs=0.0))).keys() == {"EMAHook"}


@pytest.mark.parametrize(("epochs", "patience", "interval"), [(3, 0, 1), (20, 0, 4), (20, 2, 1)])
def test_how_often_the_eval_set_is_looked_at(epochs: int, patience: int, interval: int) -> None:
    assert config_of(epochs=epochs, patience=patience).train_cfg.val_interval == interval


@pytest.mark.parametrize("cuda", [False, True])
def test_what_differs_on_a_gpu(cuda: bool, datasets: tuple[Path, Path]) -> None:
    execution = replace(PLAIN, cuda=cuda, mixed=cuda)
    config = config_of(execution)
    assert config.randomness == {"seed": 0, "deterministic": not cuda}
    assert config.env_cfg.cudnn_benchmark == cuda
    assert config.optim_wrapper.type == ("AmpOptimWrapper" if cuda else "OptimWrapper")
    set_machine(config, *datasets, execution)
    assert [config.train_dataloader.pin_memory, config.val_dataloader.pin_memory] == [cuda, cuda]
    assert config.model.data_preprocessor.non_blocking == cuda


def test_several_devices_share_a_batch_and_meet_in_torch_distributed() -> None:
    config = config_of(replace(PLAIN, devices=2, micro_batch=2))
    assert config.launcher == "pytorch"
    wrapper = {"type": "PartwiseDistributed", "broadcast_buffers": False}  # or one process's statistics were all
    assert config.model_wrapper_cfg == {**wrapper, "device_ids": None}
    assert "sync_bn" not in config
    assert config_of(replace(PLAIN, devices=2, cuda=True)).sync_bn == "torch"
    assert (config.train_dataloader.batch_size, config.val_dataloader.batch_size) == (2, 2)
    assert "device_ids" not in config_of(replace(PLAIN, devices=2, cuda=True)).model_wrapper_cfg
    assert config_of().get("launcher", "none") == "none"


@pytest.mark.parametrize(
    ("freeze", "frozen"),
    [
        pytest.param("nothing", (), id="nothing"),
        pytest.param("stem", ("stem", "stage1"), id="stem"),
        pytest.param("backbone", ("stem", "stage1", "stage2", "stage3", "stage4"), id="backbone"),
    ],
)
@pytest.mark.parametrize("frozen_norm", [False, True])
def test_what_is_frozen_is_so_in_a_new_detector(freeze: str, frozen: tuple[str, ...], frozen_norm: bool) -> None:
    """From the first moment: the optimiser, and the wrapper for several devices, look at a detector only once."""
    model = built(config_of(hyperparameters=Hyperparameters(freeze=freeze, frozen_norm=frozen_norm)))
    fixed = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    expected = {n for n, _ in model.named_parameters() if n.startswith(tuple(f"backbone.{each}." for each in frozen))}
    assert fixed == expected
    model.train()
    norms = {name: module.training for name, module in model.named_modules() if hasattr(module, "running_mean")}
    still = {f"backbone.{stage}." for stage in frozen} | ({"backbone."} if frozen_norm else set())
    assert {name for name, training in norms.items() if not training} == {
        name for name in norms if name.startswith(tuple(still))
    }


def built(config: Config) -> Any:
    from mmdet.registry import MODELS

    import_modules_from_strings(**config.custom_imports)
    init_default_scope("mmdet")
    return MODELS.build(config.model)


def test_the_dumped_config_builds_the_detector(tmp_path: Path) -> None:
    """By itself: our parts are imported by what it says, and no path of this machine is in it."""
    config_of().dump(str(tmp_path / "config.py"))
    text = (tmp_path / "config.py").read_text()
    assert "coco_train_dataset/" in text
    assert str(Path.home()) not in text
    assert "site-packages" not in text
    model = built(Config.fromfile(str(tmp_path / "config.py")))
    assert (type(model).__name__, model.micro_batch, model.bbox_head.num_classes) == ("PartwiseYOLOX", 4, 2)


def built_set(dataset: Any) -> Any:
    from mmdet.registry import DATASETS

    init_default_scope("mmdet")
    return DATASETS.build(dataset)


def machine_config(datasets: tuple[Path, Path]) -> Config:
    config = config_of(PLAIN)
    import_modules_from_strings(**config.custom_imports)
    set_machine(config, *datasets, PLAIN)
    return config


def test_the_data_sets_classes_reach_mmdet(datasets: tuple[Path, Path]) -> None:
    """Upper-case CLASSES would be ignored without a word, and 80 COCO names would stay."""
    config = machine_config(datasets)
    for dataset, images in ((config.train_dataloader.dataset, 13), (config.val_dataloader.dataset, 5)):
        done = built_set(dataset)
        assert tuple(done.metainfo["classes"]) == ("disc", "block")
        assert len(done) == images  # the empty image and those under 32 px are data_prep's to drop


@pytest.mark.parametrize("mosaic", [True, False])
@pytest.mark.parametrize("variant", ["nano", "s"])
def test_the_input_size_is_everywhere(variant: str, mosaic: bool) -> None:
    config = config_of(MOSAIC if mosaic else PLAIN, detector=f"yolox-{variant}")
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
    theirs = [
        step.type for step in base_config(f"yolox/yolox_{variant}_8xb8-300e_coco").train_dataloader.dataset.pipeline
    ]
    ours = [step.type for step in config_of(detector=f"yolox-{variant}").train_dataloader.dataset.pipeline]
    named = {new: old for old, new in mmdet_training.REPLACEMENTS.items()}
    assert [named.get(name, name) for name in ours] == [name for name in theirs if name != "Resize"]


def test_crowds_reach_the_head_from_a_data_set(datasets: tuple[Path, Path]) -> None:
    """`iscrowd` in the file, through the transforms and the preprocessor, to what the loss leaves out."""
    config = machine_config(datasets)
    model, data = built(config), built_set(config.train_dataloader.dataset)
    annotations = json.loads((datasets[0] / "annotations.json").read_text())["annotations"]
    crowds = [one["image_id"] - 1 for one in annotations if one["iscrowd"]]
    batch = model.data_preprocessor(stack_channels_last([data[number] for number in range(4)]), training=True)
    seen: list[torch.Tensor] = []
    plain = model.bbox_head._counted
    model.bbox_head._counted = lambda *given: seen.append(plain(*given)) or seen[0]
    model.loss(batch["inputs"], batch["data_samples"])
    assert (~seen[0].all(1)).nonzero()[:, 0].tolist() == crowds


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
    config = machine_config((tmp_path, tmp_path))
    theirs = copy.deepcopy(config.val_dataloader.dataset)
    theirs.pipeline = base_config("yolox/yolox_nano_8xb8-300e_coco").val_dataloader.dataset.pipeline
    for transform in theirs.pipeline:
        if transform.type == "Resize":
            transform.scale = (96, 96)
        if transform.type == "Pad":
            transform.update(pad_to_square=True, pad_val={"img": (114.0,) * 3})
            transform.pop("size", None)
    pairs = list(zip(built_set(config.val_dataloader.dataset), built_set(theirs), strict=True))
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
    set_machine(config, *datasets, PLAIN)
    assert not any(str(folder) in before for folder in datasets)
    assert config.train_dataloader.dataset.dataset.data_root == f"{datasets[0]}/"
    assert config.val_dataloader.dataset.data_root == f"{datasets[1]}/"
    assert config.val_evaluator.ann_file == str(datasets[1] / "annotations.json")


def test_all_processes_of_a_machine_read_its_tables(datasets: tuple[Path, Path], tmp_path: Path) -> None:
    config = config_of()
    set_machine(config, *datasets, PLAIN, tmp_path)
    sets = config.train_dataloader.dataset.dataset, config.val_dataloader.dataset
    assert [each.type for each in sets] == ["MappedDataset"] * 2
    assert [each.ann_file for each in sets] == [str(tmp_path / "train"), str(tmp_path / "eval")]
    assert config.val_evaluator.ann_file == str(tmp_path / "eval" / "truth.npz")


@pytest.mark.parametrize("free", [8 * 2**30, 2**50], ids=["little memory", "much memory"])
@pytest.mark.parametrize(("workers", "devices"), [(0, 1), (1, 1), (4, 2)])
def test_processes_stay_and_share_the_memory(
    workers: int, devices: int, free: int, datasets: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    config = config_of()
    set_machine(config, *datasets, replace(PLAIN, workers=workers, devices=devices))
    for loader in (config.train_dataloader, config.val_dataloader):
        assert (loader.num_workers, loader.persistent_workers) == (workers, workers > 0)
    kept = config.train_dataloader.dataset.dataset.pipeline[-1].memory
    evaluated = config.val_dataloader.dataset.pipeline[0].memory
    assert 0 < evaluated < kept
    most = min(free * mmdet_training.IMAGE_MEMORY_SHARE, mmdet_training.IMAGE_MEMORY)
    assert (kept + evaluated) * max(1, workers) * devices == pytest.approx(most)
