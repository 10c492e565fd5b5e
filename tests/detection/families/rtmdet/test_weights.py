from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.detection.checkpoints import coco_classes, fit, read_checkpoint
from pipeline.detection.families.rtmdet import FAMILY
from pipeline.detection.families.rtmdet.weights import variant_of
from pipeline.errors import DataError
from pipeline.serving.model_metadata import ModelMetadata


def network(variant: str, classes: tuple[str, ...] = ("dog",)) -> Any:
    return FAMILY.build_model(ModelMetadata(variant, (64, 64), classes, family="RTMDet"))


@pytest.mark.parametrize(
    ("variant", "millions"),  # of parameters, as the table of mmdet's configs/rtmdet has them, for 80 classes
    [
        ("tiny", 4.8),
        ("s", 8.89),
        pytest.param("m", 24.71, marks=pytest.mark.slow),
        pytest.param("l", 52.3, marks=pytest.mark.slow),
        pytest.param("x", 94.86, marks=pytest.mark.slow),
    ],
)
def test_the_size_is_told_by_the_parameters(variant: str, millions: float) -> None:
    with torch.device("meta"):  # names and shapes without values
        model = network(variant, coco_classes())
    state = model.state_dict()
    assert variant_of(state) == variant
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
    del state["backbone.stem.0.conv.weight"]
    assert variant_of(state) is None


@pytest.mark.parametrize("layout", ["published", "training", "mmdet with the input's mean", "bare", "DataParallel"])
def test_a_file_of_openmmlabs_is_read(layout: str, tmp_path: Path) -> None:
    model = network("tiny", coco_classes())
    state = model.state_dict()
    content: Any = {"meta": {"dataset_meta": {"CLASSES": coco_classes()}}, "state_dict": state}
    rest = ""
    if layout == "training":  # averaged weights are the model's, as mmengine stores them
        content |= {"ema_state_dict": {name: value + 1 for name, value in state.items()}, "message_hub": {}}
        rest = "; not used: ema_state_dict, message_hub"
    elif layout == "mmdet with the input's mean":
        content["state_dict"] = {**state, "data_preprocessor.mean": torch.zeros(3, 1, 1)}
    elif layout == "bare":
        content, rest = state, ""
    elif layout == "DataParallel":
        content = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(content, tmp_path / "rtmdet_tiny.pth")
    checkpoint = read_checkpoint(tmp_path / "rtmdet_tiny.pth", FAMILY)
    assumed = " taken for COCO's" if layout in ("bare", "DataParallel") else ""
    assert checkpoint.summary == f"RTMDet-tiny by mmdet, 80 classes{assumed}{rest}"
    assert checkpoint.classes == coco_classes()
    target = network("tiny", ("zebra", "unheard of", "person"))
    fit(checkpoint, target, ("zebra", "unheard of", "person"))
    rows = [coco_classes().index(name) for name in ("zebra", "person")]
    for level in range(3):
        name = f"bbox_head.rtm_cls.{level}.weight"
        assert torch.equal(target.state_dict()[name][[0, 2]], state[name][rows])
    assert torch.equal(target.backbone.stem[0].conv.weight, model.backbone.stem[0].conv.weight)


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"bbox_head.multi_level_conv_cls.0.bias": torch.zeros(80)}, id="a YOLOX"),
        pytest.param({"bbox_head.rtm_cls.0.bias": torch.tensor(0.0)}, id="a number for a bias"),
    ],
)
def test_what_is_no_rtmdet_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    says = r"not an mmdet RTMDet checkpoint[\s\S]*w\.pth[\s\S]*bbox_head\.rtm_cls\.0\.bias[\s\S]*no other names"
    with pytest.raises(DataError, match=says):
        read_checkpoint(tmp_path / "w.pth", FAMILY)


def test_another_size_is_refused_by_name(random_weights: Path) -> None:
    with torch.device("meta"):
        small = network("s", ("disc",))
    with pytest.raises(DataError, match=r"weights of RTMDet-tiny: set detector=rtmdet-tiny"):
        fit(read_checkpoint(random_weights, FAMILY), small, ("disc",))
