from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from megvii_network import SIZES, MegviiNetwork
from torch import Tensor

from pipeline.detection.checkpoints import coco_classes, fit, read_checkpoint
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.families.yolox.weights import normalize, variant_of
from pipeline.errors import DataError
from pipeline.serving.model_metadata import ModelMetadata


def picture() -> Tensor:
    return torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def nano() -> tuple[dict[str, Tensor], list[list[Tensor]]]:
    """Weights of a YOLOX-nano under Megvii's names, and its raw outputs for `picture()`."""
    network = MegviiNetwork("nano")
    outputs = network(picture())
    return network.state, outputs


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.slow] if name in "mlx" else []) for name in SIZES]
)
@torch.no_grad()
def test_the_mapped_network_computes_what_megviis_does(variant: str) -> None:
    network = MegviiNetwork(variant)
    expected = network(picture())
    count, digest = SIZES[variant][3:]
    lines = "\n".join(sorted(f"{name} {tuple(value.shape)}" for name, value in network.state.items()))
    assert (len(network.state), hashlib.sha256(lines.encode()).hexdigest()[:16]) == (count, digest)

    mapped, source = normalize(network.state, Path("w.pth"))
    assert source == "Megvii"
    model = YOLOX.build_model(ModelMetadata(variant, (64, 64), coco_classes())).eval()
    assert {n: v.shape for n, v in mapped.items()} == {n: v.shape for n, v in model.state_dict().items()}
    assert len(mapped) == count
    assert variant_of(mapped) == variant
    model.load_state_dict(mapped)
    for ours, theirs in zip(model.bbox_head(model.extract_feat(picture())), expected, strict=True):
        for level, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("layout", ["training", "published", "bare", "DataParallel"])
def test_a_file_of_megviis_is_read(tmp_path: Path, nano: Any, layout: str) -> None:
    state, outputs = nano
    path = tmp_path / "yolox_nano.pth"
    wrapped = {f"module.{name}": value for name, value in state.items()} if layout == "DataParallel" else state
    content = wrapped if layout == "bare" else {"model": wrapped}
    if layout == "training":  # as `Trainer.save_ckpt` writes it
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], 0.1, momentum=0.9).state_dict()
        content = {"start_epoch": 3, **content, "optimizer": optimizer, "best_ap": 0.5, "curr_ap": None}
    torch.save(content, path, _use_new_zipfile_serialization=layout != "training")  # as torch before 1.6 saved
    checkpoint = read_checkpoint(path, YOLOX)
    assert checkpoint.classes == coco_classes()
    rest = "; not used: start_epoch, optimizer, best_ap, curr_ap" if layout == "training" else ""
    assert checkpoint.summary == f"YOLOX-nano by Megvii, 80 classes taken for COCO's{rest}"

    model = YOLOX.build_model(ModelMetadata("nano", (64, 64), coco_classes())).eval()
    fit(checkpoint, model, coco_classes())
    scores, *_ = model.bbox_head(model.extract_feat(picture()))
    torch.testing.assert_close(scores[0], outputs[0][0], rtol=1e-4, atol=1e-4)


def test_megviis_classes_are_cocos_in_the_same_order() -> None:
    # SHA-256 of the lines of COCO_CLASSES in yolox 0.3.0, yolox/data/datasets/coco_classes.py
    assert hashlib.sha256("\n".join(coco_classes()).encode()).hexdigest()[:16] == "d7654b2610157284"


def test_what_megviis_yolox_does_not_have_is_refused_by_name(tmp_path: Path, nano: Any) -> None:
    state = dict(nano[0])
    state["backbone.fpn.weight"] = state.pop("backbone.C3_p4.conv1.conv.weight")
    torch.save({"model": state}, tmp_path / "w.pth")
    checkpoint = read_checkpoint(tmp_path / "w.pth", YOLOX)
    model = YOLOX.build_model(ModelMetadata("nano", (64, 64), ("dog",)))
    says = (
        r"2 param[\s\S]*neck\.top_down_blocks\.0\.main_conv\.conv\.weight is missing, "
        r"backbone\.fpn\.weight is unknown[\s\S]*unchanged YOLOX-nano"
    )
    with pytest.raises(DataError, match=says):
        fit(checkpoint, model, ("dog",))
