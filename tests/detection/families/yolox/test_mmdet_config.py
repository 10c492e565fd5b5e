from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import import_modules_from_strings

from pipeline.detection.families import FAMILY
from pipeline.detection.families.yolox.mmdet_config import base_config, build_model, training_config
from pipeline.detection.hyperparameters import FROM_SCRATCH, ExecutionConfig, Hyperparameters, TrainingOptions
from pipeline.serving.model_metadata import ModelMetadata

PLAIN = ExecutionConfig(iterations=10, micro_batch=4)
MOSAIC = replace(PLAIN, mosaic=True)


def config_of(
    execution: ExecutionConfig = MOSAIC, hyperparameters: Hyperparameters = FROM_SCRATCH, **changes: Any
) -> Config:
    options = TrainingOptions(**{"variant": "nano", "image_size": 96, "epochs": 20, "batch_size": 4, **changes})
    metadata = ModelMetadata(options.variant, (options.image_size, options.image_size), ("disc", "block"))
    return training_config(options, hyperparameters, metadata, execution)


def hooks_of(config: Config) -> dict[str, Any]:
    return {hook["type"]: hook for hook in config.custom_hooks}


@pytest.mark.parametrize("variant", FAMILY.variants)
def test_every_size_is_mmdets_own_with_our_classes(variant: str) -> None:
    model = build_model(ModelMetadata(variant, (64, 64), ("disc", "block", "star")))
    base = base_config(variant).model
    assert model.bbox_head.num_classes == 3
    assert model.backbone.stem.conv.conv.out_channels == int(64 * base.backbone.widen_factor)


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


@pytest.mark.parametrize(
    ("epochs", "plain", "last"),
    [
        pytest.param(20, 0.2, 4, id="a fifth"),
        pytest.param(20, 0.5, 10, id="half"),
        pytest.param(3, 0.1, 1, id="at least one"),
        pytest.param(2, 1.0, 2, id="all"),
    ],
)
def test_so_many_epochs_at_the_end_are_without_mosaic(epochs: int, plain: float, last: int) -> None:
    from mmdet.engine.hooks import YOLOXModeSwitchHook

    settings = hooks_of(config_of(epochs=epochs, hyperparameters=replace(FROM_SCRATCH, plain_epochs=plain)))
    hook = YOLOXModeSwitchHook(num_last_epochs=settings["YOLOXModeSwitchHook"]["num_last_epochs"])
    switched = [epoch for epoch in range(epochs) if epoch + 1 >= epochs - hook.num_last_epochs]  # the hook's own test
    assert len(switched) == last


def test_mosaic_may_be_on_to_the_end() -> None:
    hyperparameters = replace(FROM_SCRATCH, plain_epochs=0.0)
    assert "YOLOXModeSwitchHook" not in hooks_of(config_of(epochs=20, hyperparameters=hyperparameters))


def test_without_mosaic_nothing_is_switched() -> None:
    assert "YOLOXModeSwitchHook" not in hooks_of(config_of(PLAIN))


def test_without_a_window_nothing_is_averaged() -> None:
    assert "EMAHook" not in hooks_of(config_of(hyperparameters=replace(FROM_SCRATCH, averaged_steps=0.0)))


@pytest.mark.parametrize(
    ("epochs", "patience", "interval"),
    [
        pytest.param(3, 0, 1, id="short"),
        pytest.param(20, 0, 4, id="five points"),
        pytest.param(20, 2, 1, id="every epoch for patience"),
    ],
)
def test_how_often_the_eval_set_is_looked_at(epochs: int, patience: int, interval: int) -> None:
    assert config_of(epochs=epochs, patience=patience).train_cfg.val_interval == interval


@pytest.mark.parametrize(("mixed", "wrapper"), [(True, "AmpOptimWrapper"), (False, "OptimWrapper")])
def test_mixed_precision_is_an_optimizer_wrapper(mixed: bool, wrapper: str) -> None:
    assert config_of(replace(PLAIN, mixed=mixed)).optim_wrapper.type == wrapper


@pytest.mark.parametrize("cuda", [False, True])
def test_what_differs_on_a_gpu(cuda: bool) -> None:
    config = config_of(replace(PLAIN, cuda=cuda))
    assert config.randomness == {"seed": 0, "deterministic": not cuda}
    assert config.env_cfg.cudnn_benchmark == cuda


def test_several_devices_share_a_batch_and_meet_in_torch_distributed() -> None:
    config = config_of(replace(PLAIN, devices=2, micro_batch=2))
    assert config.launcher == "pytorch"
    wrapper = {"type": "PartwiseDistributed", "broadcast_buffers": False}  # or one process's statistics were all
    assert config.model_wrapper_cfg == {**wrapper, "device_ids": None}
    assert "sync_bn" not in config
    assert config_of(replace(PLAIN, devices=2, cuda=True)).sync_bn == "torch"
    assert config.train_dataloader.batch_size == 2
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


def test_the_dumped_config_names_no_path_of_this_machine(tmp_path: Path) -> None:
    config_of().dump(str(tmp_path / "config.py"))
    text = (tmp_path / "config.py").read_text()
    assert "coco_train_dataset/" in text
    assert str(Path.home()) not in text
    assert "site-packages" not in text


def test_the_dumped_config_builds_the_detector(tmp_path: Path) -> None:
    """By itself: our parts are imported by what it says."""
    config_of().dump(str(tmp_path / "config.py"))
    model = built(Config.fromfile(str(tmp_path / "config.py")))
    assert (type(model).__name__, model.micro_batch, model.bbox_head.num_classes) == ("PartwiseYOLOX", 4, 2)


def test_multi_scale_batches_are_off() -> None:
    assert config_of().model.data_preprocessor.batch_augments is None
