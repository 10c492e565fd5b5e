"""A step taken in parts, and a detector laid out for speed: against the whole step, and against mmdet's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor

from pipeline.detection.checkpoints import fit, read_checkpoint
from pipeline.detection.families.yolox import FAMILY as YOLOX
from pipeline.detection.families.yolox.config import model_config
from pipeline.detection.families.yolox.detector import PartwiseYOLOX
from pipeline.detection.families.yolox.head import IgnoringYOLOXHead
from pipeline.serving.model_metadata import ModelMetadata

SIZE = 64
SPEC = ModelMetadata("nano", (SIZE, SIZE), ("disc", "block"))


def detector(micro_batch: int = 0) -> PartwiseYOLOX:
    """One of equal initial weights each time."""
    from mmdet.registry import MODELS

    init_default_scope("mmdet")
    config = model_config(SPEC)
    config.model.update(type="PartwiseYOLOX", micro_batch=micro_batch)
    config.model.bbox_head.type = IgnoringYOLOXHead.__name__
    torch.manual_seed(1)
    model = MODELS.build(config.model)
    model.init_weights()
    return model


def sample(seed: int) -> tuple[Tensor, Any]:
    """An image with two objects, as a loader makes it."""
    from mmdet.structures import DetDataSample

    rng = np.random.default_rng(seed)
    corner = torch.tensor(rng.uniform(0, SIZE / 2, (2, 2)), dtype=torch.float32)
    side = torch.tensor(rng.uniform(SIZE / 4, SIZE / 2, (2, 1)), dtype=torch.float32)
    made = DetDataSample(metainfo={"img_shape": (SIZE, SIZE), "ori_shape": (SIZE, SIZE), "scale_factor": (1.0, 1.0)})
    made.gt_instances = InstanceData(bboxes=torch.cat([corner, corner + side], 1), labels=torch.tensor([0, 1]))
    made.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    return torch.tensor(rng.integers(0, 255, (3, SIZE, SIZE)), dtype=torch.uint8), made


def batch(*seeds: int) -> dict[str, Sequence[Any]]:
    inputs, samples = zip(*(sample(seed) for seed in seeds), strict=True)
    return {"inputs": list(inputs), "data_samples": list(samples)}


class Steps(OptimWrapper):
    """Keeps the gradients of a step as the optimiser finds them."""

    def __init__(self, model: torch.nn.Module, **settings: Any) -> None:
        super().__init__(torch.optim.SGD(model.parameters(), lr=0.01), **settings)
        self.model = model
        self.gradients: list[dict[str, Tensor]] = []

    def step(self, **settings: Any) -> None:
        self.gradients.append({name: p.grad.clone() for name, p in self.model.named_parameters()})
        super().step(**settings)


def step(micro_batch: int, *seeds: int, norms: bool = False) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Gradients and shown losses of one step, and the detector after it; its batch norms keep their statistics.

    In double precision, but for mmdet's cross entropy: sums come in another order, and only that may differ.
    """
    model = detector(micro_batch).double()
    model.register_forward_pre_hook(
        lambda _, given, named: (given, {**named, "inputs": named["inputs"].double()}), with_kwargs=True
    )
    model.train(norms)
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


@pytest.mark.parametrize(
    "micro_batch", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_parts_with_other_objects_in_each_give_the_gradients_of_the_whole(micro_batch: int) -> None:
    """Parts that do not divide the batch, too."""
    whole, whole_loss, whole_model = step(0, 1, 2, 3, 4, 5)
    parts, parts_loss, parts_model = step(micro_batch, 1, 2, 3, 4, 5)
    assert any(bool(value.abs().max() > 0) for value in whole.values())
    assert_close(parts, whole)
    assert_close(parts_loss, whole_loss)
    assert_close(parts_model.state_dict(), whole_model.state_dict())
    first, last = (step(0, *seeds)[1]["loss"] for seeds in ((1, 2), (5,)))
    assert abs(float(first - last)) > 1e-3  # or a mean of the parts would do


@pytest.mark.parametrize("micro_batch", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_part_that_is_the_whole_changes_no_bit(micro_batch: int) -> None:
    """With batch norms at work, too."""
    whole, whole_loss, whole_model = step(0, 1, 2, 3, 4, norms=True)
    parts, parts_loss, parts_model = step(micro_batch, 1, 2, 3, 4, norms=True)
    for found, expected in (
        (parts, whole),
        (parts_loss, whole_loss),
        (parts_model.state_dict(), whole_model.state_dict()),
    ):
        assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("micro_batch", "seen"), [(0, [5]), (2, [2, 2, 1]), pytest.param(1, [1] * 5, marks=pytest.mark.slow)]
)
def test_there_is_one_update_a_step_however_many_parts(micro_batch: int, seen: list[int]) -> None:
    model = detector(micro_batch).train()
    wrapper, sizes = Steps(model), []
    model.register_forward_pre_hook(lambda _, arguments, named: sizes.append(len(named["inputs"])), with_kwargs=True)
    for _ in range(2):
        model.train_step(batch(1, 2, 3, 4, 5), wrapper)
    assert sizes == seen * 2
    assert len(wrapper.gradients) == 2
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())  # nothing is left for the next step
    assert int(model.backbone.stem.conv.bn.num_batches_tracked) == 2 * len(seen)


def test_gradients_are_clipped_after_the_last_part() -> None:
    """By their sum: parts on their own are below the limit here."""
    free, clipped = detector(1).eval(), detector(1).eval()
    start = {name: value.clone() for name, value in free.named_parameters()}
    moved = []
    for model, settings in ((free, {}), (clipped, {"clip_grad": {"max_norm": 1e-3}})):
        model.train_step(batch(1, 2, 3), Steps(model, **settings))
        difference = torch.cat([(value.detach() - start[name]).flatten() for name, value in model.named_parameters()])
        moved.append(float(difference.norm()))
    assert moved[0] > 1e-4
    assert moved[1] == pytest.approx(0.01 * 1e-3, rel=0.05)


def test_convolutions_lie_in_memory_channels_last() -> None:
    model = detector()
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) > 50
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convolutions)
    features = model.extract_feat(torch.zeros(2, 3, SIZE, SIZE))
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in features)
    model.load_state_dict({name: value.contiguous() for name, value in model.state_dict().items()})
    assert all(each.weight.is_contiguous(memory_format=torch.channels_last) for each in convolutions)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_it_computes_what_mmdets_own_computes(training: bool, pretrained: Path) -> None:
    """With the real weights, output for output, in double precision: what is left is no rounding."""
    metadata = ModelMetadata("nano", (SIZE, SIZE), ("person", "car"))
    theirs, ours = YOLOX.build_model(metadata), detector()
    for model in (theirs, ours):
        fit(read_checkpoint(pretrained, YOLOX), model, metadata.classes)
        model.double().train(training)
    images = torch.stack([sample(seed)[0].double() for seed in range(3)])
    with torch.no_grad():
        expected, found = (model._forward(images) for model in (theirs, ours))
    assert len(found) == len(expected) == 3
    for own, other in zip(found, expected, strict=True):
        for level, (a, b) in enumerate(zip(own, other, strict=True)):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9, msg=lambda m, n=level: f"level {n}: {m}")
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-9, rtol=1e-9)
