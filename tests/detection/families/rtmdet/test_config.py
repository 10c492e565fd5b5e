from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from pipeline.detection.families.rtmdet.config import model_config, training_config
from pipeline.detection.hyperparameters import FROM_SCRATCH, ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.serving.model_metadata import ModelMetadata

PLAIN = ExecutionConfig(iterations=10, micro_batch=4)
MIXING = {"FittedMosaic", "RandomAffine", "MixUp"}
VARIANTS = ("tiny", "s", "m", "l", "x")


def config_of(
    execution: ExecutionConfig = PLAIN, hyperparameters: Hyperparameters = FROM_SCRATCH, variant: str = "tiny"
) -> Config:
    options = TrainingOptions(f"rtmdet-{variant}", 96, 20, 4)
    metadata = ModelMetadata(variant, (96, 96), ("disc", "block"), family="RTMDet")
    return training_config(options, hyperparameters, metadata, execution)


def built(config: Config) -> Any:
    from mmdet.registry import MODELS

    import_modules_from_strings(**config.custom_imports)
    init_default_scope("mmdet")
    return MODELS.build(config.model)


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_is_downloaded_and_no_norm_waits_for_others(variant: str) -> None:
    config = model_config(ModelMetadata(variant, (96, 96), ("disc", "block"), 0.02, 0.5, family="RTMDet"))
    text = config.pretty_text
    assert "http" not in str(config.model)
    assert "SyncBN" not in text
    assert not config.model.use_syncbn
    assert config.model.bbox_head.num_classes == 2
    assert (config.model.test_cfg.score_thr, config.model.test_cfg.nms.iou_threshold) == (0.02, 0.5)


@pytest.mark.parametrize(("variant", "mixing"), [("tiny", MIXING - {"MixUp"}), ("s", MIXING)])
@pytest.mark.parametrize("mosaic", [True, False])
def test_images_are_prepared_as_for_yolox(variant: str, mixing: set[str], mosaic: bool) -> None:
    """And padded before they are normalised, with the grey that serving pads with."""
    config = config_of(replace(PLAIN, mosaic=mosaic), variant=variant)
    train, test = ([step.type for step in loader.dataset.pipeline] for loader in (
        config.train_dataloader, config.val_dataloader
    ))  # fmt: skip
    assert set(train) & MIXING == (mixing if mosaic else set())
    assert {"CachedMosaic", "CachedMixUp", "RandomCrop", "RandomResize"}.isdisjoint(train)
    assert test == ["LoadFitted", "Pad", "LoadAnnotations", "PackChannelsLast"]
    [pad] = [step for step in config.val_dataloader.dataset.pipeline if step.type == "Pad"]
    assert pad.pad_to_square
    assert pad.pad_val["img"] == (114.0,) * 3
    preprocessor = config.model.data_preprocessor
    assert (preprocessor.mean, preprocessor.bgr_to_rgb) == ([103.53, 116.28, 123.675], False)
    assert preprocessor.batch_augments is None


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


def test_the_dumped_config_builds_the_detector(tmp_path: Path) -> None:
    """By itself: our parts are imported by what it says, and no path of this machine is in it."""
    config_of().dump(str(tmp_path / "config.py"))
    text = (tmp_path / "config.py").read_text()
    assert "coco_train_dataset/" in text
    assert str(Path.home()) not in text
    assert "site-packages" not in text
    model = built(Config.fromfile(str(tmp_path / "config.py")))
    assert (type(model).__name__, model.micro_batch, model.bbox_head.num_classes) == ("PartwiseRTMDet", 4, 2)
    assert type(model.bbox_head).__name__ == "IgnoringRTMDetHead"
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convolutions)
    first, *others = model.bbox_head.cls_convs
    assert all(other[0].conv is first[0].conv for other in others)  # the levels still share their filters
