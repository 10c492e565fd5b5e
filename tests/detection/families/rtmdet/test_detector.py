"""A step taken in parts against the whole step, decoding against mmdet's own, and filters that levels share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from pipeline.detection.checkpoints import fit, read_checkpoint
from pipeline.detection.export import load_detector
from pipeline.detection.families.rtmdet import FAMILY
from pipeline.detection.families.rtmdet.config import model_config
from pipeline.detection.families.rtmdet.detector import PartwiseRTMDet
from pipeline.detection.families.rtmdet.head import IgnoringRTMDetHead
from pipeline.detection.mmdet_training import base_config
from pipeline.detection.optimization import balance_filters
from pipeline.detection.reference_predictions import suppressed
from pipeline.serving.model_metadata import ModelMetadata

SIZE = 64
CLASSES = ("disc", "block")
SPEC = ModelMetadata("tiny", (SIZE, SIZE), CLASSES, family="RTMDet")


def detector(weights: Path, micro_batch: int = 0) -> PartwiseRTMDet:
    from mmdet.registry import MODELS

    init_default_scope("mmdet")
    config = model_config(SPEC)
    config.model.update(type=PartwiseRTMDet.__name__, micro_batch=micro_batch)
    config.model.bbox_head.type = IgnoringRTMDetHead.__name__
    model = MODELS.build(config.model)
    fit(read_checkpoint(weights, FAMILY), model, CLASSES)
    return model


def sample(seed: int, objects: int = 2) -> tuple[Tensor, Any]:
    """An image with objects, as a loader makes it."""
    from mmdet.structures import DetDataSample

    rng = np.random.default_rng(seed)
    corner = torch.tensor(rng.uniform(0, SIZE / 2, (objects, 2)), dtype=torch.float32)
    side = torch.tensor(rng.uniform(SIZE / 4, SIZE / 2, (objects, 1)), dtype=torch.float32)
    made = DetDataSample(metainfo={"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)})
    made.gt_instances = InstanceData(bboxes=torch.cat([corner, corner + side], 1), labels=torch.arange(objects) % 2)
    made.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return torch.tensor(rng.integers(0, 255, (3, SIZE, SIZE)), dtype=torch.uint8), made


def batch(*seeds: int, objects: int = 2) -> dict[str, Sequence[Any]]:
    inputs, samples = zip(*(sample(seed, objects) for seed in seeds), strict=True)
    return {"inputs": list(inputs), "data_samples": list(samples)}


class Steps(OptimWrapper):
    """Keeps the gradients of a step as the optimiser finds them."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__(torch.optim.SGD(model.parameters(), lr=0.01))
        self.model = model
        self.gradients: list[dict[str, Tensor]] = []

    def step(self, **settings: Any) -> None:
        self.gradients.append({name: p.grad.clone() for name, p in self.model.named_parameters()})
        super().step(**settings)


def step(weights: Path, micro_batch: int, *seeds: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Gradients and shown losses of one step, and the detector after it; its batch norms keep their statistics.

    In double precision: sums come in another order, and only that may differ.
    """
    model = detector(weights, micro_batch).double()
    model.register_forward_pre_hook(
        lambda _, given, named: (given, {**named, "inputs": named["inputs"].double()}), with_kwargs=True
    )
    model.eval()
    wrapper = Steps(model)
    shown = model.train_step(batch(*seeds), wrapper)
    [gradients] = wrapper.gradients
    return gradients, shown, model


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To a millionth of the largest number of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) or 1.0
        torch.testing.assert_close(found[name], value, atol=1e-6 * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_parts_with_other_objects_in_each_give_the_gradients_of_the_whole(random_weights: Path) -> None:
    """Parts that do not divide the batch."""
    whole, whole_loss, whole_model = step(random_weights, 0, 1, 2, 3, 4, 5)
    parts, parts_loss, parts_model = step(random_weights, 2, 1, 2, 3, 4, 5)
    assert all(bool(value.abs().max() > 0) for value in whole.values())
    assert_close(parts, whole)
    assert_close(parts_loss, whole_loss)
    assert_close(parts_model.state_dict(), whole_model.state_dict())
    first, last = (step(random_weights, 0, *seeds)[1]["loss"] for seeds in ((1, 2), (5,)))
    assert abs(float(first - last)) > 1e-3  # or a mean of the parts would do


def test_every_weight_has_a_gradient_without_any_object(random_weights: Path) -> None:
    """Distributed training waits for all of them."""
    model = detector(random_weights).train()
    wrapper = Steps(model)  # which fails where there is none
    shown = model.train_step(batch(1, 2, objects=0), wrapper)
    [gradients] = wrapper.gradients
    assert float(shown["loss_bbox"]) == 0 < float(shown["loss_cls"])
    assert all(bool(gradients[name].any()) for name in gradients if ".cls_convs." in name or ".rtm_cls." in name)


@torch.no_grad()
def test_filters_that_levels_share_stay_and_the_others_are_balanced(random_weights: Path) -> None:
    """The network computes the same."""
    model = detector(random_weights).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 4 - 2
    expected = model._forward(images)
    balance_filters(model)
    torch.testing.assert_close(model._forward(images), expected, rtol=1e-3, atol=1e-3)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any(name.startswith("bbox_head.") for name in changed)
    assert {"backbone.stem.0.conv.weight", "neck.out_convs.2.conv.weight"} < changed


@pytest.fixture(scope="module")
def compared(random_weights: Path, photographs: list[Path]) -> list[tuple[Any, tuple[Tensor, Tensor, Tensor]]]:
    """Of each photograph what mmdet predicts, from the file on, and what the exportable detector and suppression do."""
    metadata = ModelMetadata("tiny", (256, 256), CLASSES, family="RTMDet")
    exportable = load_detector(metadata, random_weights)
    pipeline = base_config("rtmdet/rtmdet_tiny_8xb32-300e_coco").val_dataloader.dataset.pipeline
    changes = {"Resize": {"scale": (256, 256)}, "Pad": {"size": (256, 256)}}
    steps = [{**each, **changes.get(each.type, {})} for each in pipeline if each.type != "LoadAnnotations"]
    init_default_scope("mmdet")
    prepare = Compose(steps)
    samples = [prepare({"img_path": str(path), "img_id": number}) for number, path in enumerate(photographs)]
    data = {name: [each[name] for each in samples] for name in ("inputs", "data_samples")}
    with torch.no_grad():
        given = exportable.model.data_preprocessor(data, False)
        theirs = exportable.model.predict(given["inputs"], given["data_samples"], rescale=False)
        pixels = torch.from_numpy(FAMILY.letterbox(photographs, (256, 256)))
        ours = suppressed(exportable, pixels, metadata)
    return [(each.pred_instances, own) for each, own in zip(theirs, ours, strict=True)]


def test_photographs_give_what_mmdet_predicts(compared: list[tuple[Any, tuple[Tensor, Tensor, Tensor]]]) -> None:
    """From the image file on; mmdet keeps the 300 best of an image."""
    for theirs, (boxes, scores, labels) in compared:
        assert len(theirs.scores) == min(len(scores), 300) > 20
        same = (boxes[:, None] - theirs.bboxes).abs().amax(2) <= 0.01
        same &= ((scores[:, None] - theirs.scores).abs() <= 1e-4) & (labels[:, None] == theirs.labels)
        assert same.any(0).all()
        assert same.any(1)[scores > theirs.scores.min() + 1e-4].all()


def test_an_anchor_may_have_several_classes(compared: list[tuple[Any, tuple[Tensor, Tensor, Tensor]]]) -> None:
    twice = 0
    for _, (boxes, _, labels) in compared:
        first, second = ({tuple(row) for row in boxes[labels == label].tolist()} for label in (0, 1))
        twice += len(first & second)
    assert twice > 0


def test_suppression_takes_every_pair_of_anchor_and_class() -> None:
    """Classes in their order, in each the best score first, and of equal scores the earlier anchor."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 11], [50, 50, 50, 60]])[None]
    scores = torch.tensor([[0.3, 0.5, 0.5, 0.0], [0.2, 0.005, 0.9, 0.01], [0.4, 0.4, 0.1, 0.0]])[None]
    [(kept, best, labels)] = suppressed(lambda _: (boxes, scores), torch.zeros(1), SPEC)  # type: ignore[arg-type]
    assert labels.tolist() == [0, 0, 1, 2, 2]
    assert best.tolist() == pytest.approx([0.5, 0.5, 0.9, 0.4, 0.4])
    assert torch.equal(kept, boxes[0][[1, 2, 2, 0, 1]])


@torch.no_grad()
def test_a_box_without_area_has_no_score(random_weights: Path) -> None:
    """Distances of RTMDet-tiny may be negative. mmdet drops such a box."""
    exportable = load_detector(SPEC, random_weights)
    for layer in exportable.model.bbox_head.rtm_reg:
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([0.0, 1.0, 1.0, 1.0]))  # left, top, right, bottom, in cells
    images = torch.full((1, 3, SIZE, SIZE), 114.0)
    _, plain = exportable(images)
    assert (plain > 0).all()
    for layer in exportable.model.bbox_head.rtm_reg:
        layer.bias[2] = -1.0
    boxes, scores = exportable(images)
    assert (scores == 0).all()
    assert (boxes >= 0).all()
    assert (boxes <= SIZE).all()


def test_padding_is_normalised_as_in_training(random_weights: Path, tmp_path: Path) -> None:
    """A narrow image is mostly padding: the outputs of the network are those of mmdet's preprocessor."""
    path = tmp_path / "narrow.png"
    cv2.imwrite(str(path), np.full((64, 16, 3), 200, np.uint8))
    pixels = torch.from_numpy(FAMILY.letterbox([path], (SIZE, SIZE)))
    assert (pixels[..., 16:] == 114).all()
    exportable = load_detector(SPEC, random_weights)
    given = exportable.model.data_preprocessor({"inputs": pixels.to(torch.uint8), "data_samples": None}, False)
    with torch.no_grad():
        classes, _ = exportable.model._forward(given["inputs"])
        _, scores = exportable(pixels)
    expected = torch.cat([each.flatten(2) for each in classes], 2).sigmoid()
    torch.testing.assert_close(scores, expected, atol=1e-6, rtol=0)
