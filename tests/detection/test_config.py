from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

from pipeline.detection.config import Recipe, base_config, build_model, set_data_roots, training_config
from pipeline.detection.spec import VARIANTS, DetectorSpec
from pipeline.errors import UsageError

MIXING = {"Mosaic", "RandomAffine", "MixUp"}


def config_of(**changes):
    recipe = Recipe(**{"variant": "nano", "image_size": 96, "epochs": 20, "batch_size": 4, **changes})
    spec = DetectorSpec(recipe.variant, (recipe.image_size, recipe.image_size), ("disc", "block"))
    return training_config(recipe, spec, iterations=10, learning_rate=1e-3, mosaic=True, cuda=False, workers=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_size_is_mmdets_own_with_our_classes(variant: str) -> None:
    model = build_model(DetectorSpec(variant, (64, 64), ("disc", "block", "star")))
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
    assert begin <= steps // 10
    assert (decay["begin"], decay["end"], decay["T_max"]) == (begin, steps, steps - begin)
    assert config.train_cfg.max_epochs == epochs
    hooks = {hook["type"]: hook for hook in config.custom_hooks}
    assert 0 <= hooks["YOLOXModeSwitchHook"]["num_last_epochs"] < max(1, epochs // 4)
    assert hooks["EMAHook"]["gamma"] <= max(1, steps // 10)
    assert 1 / hooks["EMAHook"]["momentum"] <= max(2, steps / 2)


def test_the_data_sets_classes_reach_mmdet(datasets: tuple[Path, Path]) -> None:
    """Upper-case CLASSES would be ignored without a word, and 80 COCO names would stay."""
    from mmdet.registry import DATASETS

    config = config_of()
    set_data_roots(config, *datasets)
    init_default_scope("mmdet")
    for dataset in (config.train_dataloader.dataset, config.val_dataloader.dataset):
        built = DATASETS.build(dataset)
        assert tuple(built.metainfo["classes"]) == ("disc", "block")
        assert len(built) in (13, 5)  # the empty image and those under 32 px are data_prep's to drop


def test_ap_is_taken_at_a_hundred_detections() -> None:
    assert tuple(config_of().val_evaluator.proposal_nums) == (1, 10, 100)


@pytest.mark.parametrize(("cuda", "wrapper"), [(True, "AmpOptimWrapper"), (False, "OptimWrapper")])
def test_mixed_precision_is_for_gpus_only(cuda: bool, wrapper: str) -> None:
    recipe, spec = Recipe("nano", 64), DetectorSpec("nano", (64, 64), ("a",))
    config = training_config(recipe, spec, iterations=1, learning_rate=1e-3, mosaic=False, cuda=cuda, workers=0)
    assert config.optim_wrapper.type == wrapper


@pytest.mark.parametrize("mosaic", [True, False])
@pytest.mark.parametrize("variant", ["nano", "s"])
def test_the_input_size_is_everywhere(variant: str, mosaic: bool) -> None:
    recipe, spec = Recipe(variant, 96), DetectorSpec(variant, (96, 96), ("a",))
    config = training_config(recipe, spec, iterations=1, learning_rate=1e-3, mosaic=mosaic, cuda=False, workers=0)
    training = {step.type: step for step in config.train_dataloader.dataset.pipeline}
    testing = {step.type: step for step in config.val_dataloader.dataset.pipeline}
    assert training["Resize"].scale == testing["Resize"].scale == (96, 96)
    assert testing["Pad"].pad_to_square
    assert testing["Pad"].pad_val["img"] == (114.0,) * 3
    expected = MIXING if variant == "s" else MIXING - {"MixUp"}
    assert training.keys() & MIXING == (expected if mosaic else set())
    if mosaic:
        assert training["Mosaic"].img_scale == (96, 96)
        assert training["RandomAffine"].border == (-48, -48)
    assert config.model.data_preprocessor.batch_augments is None


def test_the_dumped_config_names_no_path_of_this_machine(tmp_path: Path) -> None:
    config_of().dump(str(tmp_path / "config.py"))
    text = (tmp_path / "config.py").read_text()
    assert "coco_train_dataset/" in text
    assert str(Path.home()) not in text
    assert "site-packages" not in text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"variant": "xl"}, "no YOLOX variant", id="variant"),
        pytest.param({"image_size": 250}, "224 or 256", id="image size"),
        pytest.param({"epochs": -1}, "epochs is -1", id="epochs"),
        pytest.param({"batch_size": 0}, "batch_size is 0", id="batch size"),
        pytest.param({"learning_rate": -0.1}, "learning_rate", id="learning rate"),
        pytest.param({"augmentation": "cutout"}, "auto, flip, mosaic", id="augmentation"),
        pytest.param({"workers": -2}, "workers is -2", id="workers"),
    ],
)
def test_a_wrong_recipe(change: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Recipe(**change)
