"""What is published fits: checkpoints of each release's names and shapes, made up, are read as one would be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from megvii_network import MegviiNetwork

from pipeline.data.pretrained import PublishedWeights, coco_weights, published_weights
from pipeline.detection.checkpoints import coco_classes, fit, read_checkpoint
from pipeline.detection.families import FAMILY
from pipeline.detection.families.yolox.mmdet_config import build_model
from pipeline.detection.families.yolox.weights import variant_of
from pipeline.errors import DataError
from pipeline.serving.model_metadata import ModelMetadata


def release(entry: PublishedWeights, path: Path) -> Path:
    """A checkpoint as the publisher writes it, with random weights."""
    if entry.source == "Megvii":
        network = MegviiNetwork(entry.variant)
        network(torch.zeros(1, 3, 64, 64))
        torch.save({"start_epoch": 300, "model": network.state}, path)
    else:
        state = build_model(ModelMetadata(entry.variant, (64, 64), coco_classes())).state_dict()
        torch.save({"meta": {"CLASSES": coco_classes(), "epoch": 300}, "state_dict": state}, path)
    return path


LARGE = ("l", "x")
RELEASES = [
    pytest.param(each, id=f"{each.variant} by {each.source}", marks=[pytest.mark.slow] if each.variant in LARGE else [])
    for each in published_weights()
]


@pytest.mark.parametrize("entry", RELEASES)
@torch.no_grad()
def test_each_release_fits_its_variant_with_all_of_cocos_classes(entry: PublishedWeights, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(release(entry, tmp_path / "w.pth"))
    assert (checkpoint.source, variant_of(checkpoint.state)) == (entry.source, entry.variant)
    model = build_model(ModelMetadata(entry.variant, (64, 64), coco_classes()))
    carried = fit(checkpoint, model, coco_classes())
    assert (carried.known, carried.fresh) == (coco_classes(), ())
    assert all(torch.equal(value, checkpoint.state[name]) for name, value in model.state_dict().items())
    assert checkpoint.learned is None


def test_a_release_of_another_variant_is_refused(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(release(coco_weights("nano"), tmp_path / "w.pth"))
    with pytest.raises(DataError, match="weights of YOLOX-nano"):
        fit(checkpoint, build_model(ModelMetadata("tiny", (64, 64), coco_classes())), coco_classes())


def test_there_are_weights_for_every_variant() -> None:
    assert {coco_weights(variant).variant for variant in FAMILY.variants} == set(FAMILY.variants)
