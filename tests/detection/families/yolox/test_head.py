"""The head's losses against mmdet's own head, and what an ignored region changes."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.detection.families.yolox import head
from pipeline.detection.mmdet_training import base_config

from mmdet.registry import MODELS  # isort: skip  # after head, which installs what mmdet needs
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

SIZE = 96
Outputs = tuple[list[Tensor], list[Tensor], list[Tensor]]


def make_head(kind: str, classes: int, use_l1: bool = False) -> Any:
    init_default_scope("mmdet")
    model = base_config("yolox/yolox_nano_8xb8-300e_coco").model
    made = MODELS.build({**model.bbox_head, "type": kind, "num_classes": classes, "train_cfg": model.train_cfg})
    made.use_l1 = use_l1
    return made


def outputs(images: int, classes: int, seed: int, size: int = SIZE) -> Outputs:
    g = torch.Generator().manual_seed(seed)
    sides = [size // stride for stride in (8, 16, 32)]
    shapes = [[(images, channels, side, side) for side in sides] for channels in (classes, 4, 1)]
    scores, boxes, objectness = ([torch.randn(*shape, generator=g) for shape in level] for level in shapes)
    return [each * 1.5 - 3 for each in scores], boxes, [each * 1.5 - 3 for each in objectness]


def instances(counts: list[int], classes: int, seed: int, size: int = SIZE) -> list[InstanceData]:
    g, made = torch.Generator().manual_seed(seed), []
    for count in counts:
        middle = torch.rand(count, 2, generator=g) * size
        half = torch.rand(count, 2, generator=g).mul(4).exp() / 2
        labels = torch.randint(classes, (count,), generator=g)
        made.append(InstanceData(bboxes=torch.cat([middle - half, middle + half], 1).clamp(0, size), labels=labels))
    return made


def regions(*boxes: list[list[float]] | None) -> list[InstanceData | None]:
    return [None if each is None else InstanceData(bboxes=torch.tensor(each).reshape(-1, 4)) for each in boxes]


def losses_and_gradients(
    made: Any, said: Outputs, objects: list[InstanceData], ignored: list[InstanceData | None] | None = None
) -> tuple[dict[str, Tensor], Outputs]:
    leaves = tuple([each.detach().clone().requires_grad_() for each in level] for level in said)
    losses = made.loss_by_feat(*leaves, objects, [{}] * len(objects), ignored)
    sum(losses.values()).backward()
    return losses, tuple([each.grad for each in level] for level in leaves)


def assert_equal(one: Outputs, other: Outputs) -> None:
    assert all(torch.equal(a, b) for a, b in zip(chain(*one), chain(*other), strict=True))


@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.integers(0, 20) | st.just(60), min_size=1, max_size=4),
    classes=st.sampled_from([1, 4, 80]),
    seed=st.integers(0, 2**31),
    use_l1=st.booleans(),
)
def test_the_losses_are_mmdets(counts: list[int], classes: int, seed: int, use_l1: bool) -> None:
    """To the last bit, the gradients too."""
    said, objects = outputs(len(counts), classes, seed), instances(counts, classes, seed)
    expected, slopes = losses_and_gradients(make_head("YOLOXHead", classes, use_l1), said, objects)
    found, ours = losses_and_gradients(make_head("IgnoringYOLOXHead", classes, use_l1), said, objects)
    assert found == expected
    assert_equal(ours, slopes)


class TestIgnoredRegions:
    def test_nothing_is_learnt_of_objectness_within_them(self) -> None:
        """The crowd covers the left half of the first image: 32 px and more of it, at stride 8 the first 6 columns."""
        made, said = make_head("IgnoringYOLOXHead", 3), outputs(2, 3, 0)
        objects = instances([0, 4], 3, 0)
        _, (_, _, slopes) = losses_and_gradients(made, said, objects, regions([[0, 0, 48, 96]], None))
        for stride, slope in zip((8, 16, 32), slopes, strict=True):
            across = (torch.arange(SIZE // stride) + 0.5) * stride
            assert (slope[0, 0][:, across < 48] == 0).all()
            assert (slope[0, 0][:, across > 48] != 0).all()
            assert (slope[1] != 0).all()

    def test_objects_within_them_are_learnt(self) -> None:
        made, said, objects = make_head("IgnoringYOLOXHead", 3), outputs(1, 3, 1), instances([5], 3, 1)
        plain, before = losses_and_gradients(made, said, objects)
        losses, after = losses_and_gradients(made, said, objects, regions([[0, 0, 96, 96]]))
        assert losses["loss_cls"] == plain["loss_cls"]
        assert losses["loss_bbox"] == plain["loss_bbox"]
        positive = torch.cat([each.abs().sum(1).flatten() for each in before[0]]) > 0
        slope = torch.cat([each.flatten() for each in after[2]])
        assert positive.any()
        assert torch.equal(slope != 0, positive)
        assert torch.equal(slope[positive], torch.cat([each.flatten() for each in before[2]])[positive])

    def test_they_are_no_objects(self) -> None:
        made, said = make_head("IgnoringYOLOXHead", 3), outputs(1, 3, 2)
        losses, (scores, boxes, _) = losses_and_gradients(made, said, instances([0], 3, 0), regions([[8, 8, 60, 60]]))
        assert losses["loss_cls"] == losses["loss_bbox"] == 0
        assert not any(each.any() for each in [*scores, *boxes])

    @pytest.mark.parametrize(
        "ignored",
        [
            pytest.param(None, id="not given"),
            pytest.param(regions(None, None), id="none"),
            pytest.param(regions([], []), id="empty"),
            pytest.param(regions(None, [[10, 10, 10, 40]]), id="without area"),
            pytest.param(regions([[200, 0, 300, 96]], None), id="outside"),
        ],
    )
    def test_none_change_nothing(self, ignored: list[InstanceData | None] | None) -> None:
        made, said, objects = make_head("IgnoringYOLOXHead", 3), outputs(2, 3, 3), instances([3, 2], 3, 3)
        plain, before = losses_and_gradients(make_head("YOLOXHead", 3), said, objects)
        losses, after = losses_and_gradients(made, said, objects, ignored)
        assert losses == plain
        assert_equal(before, after)


def test_any_memory_format() -> None:
    made, said, objects = make_head("IgnoringYOLOXHead", 3, True), outputs(3, 3, 0), instances([3, 0, 9], 3, 0)
    last = tuple([each.contiguous(memory_format=torch.channels_last) for each in level] for level in said)
    assert made.loss_by_feat(*last, objects, [{}] * 3) == made.loss_by_feat(*said, objects, [{}] * 3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_ends_at_the_loss(kind: torch.dtype) -> None:
    """The loss of what mixed precision says is that of the same numbers in single precision."""
    made, objects = make_head("IgnoringYOLOXHead", 3, True), instances([3, 0, 9], 3, 0)
    half = tuple([each.to(kind) for each in level] for level in outputs(3, 3, 0))
    whole = tuple([each.float() for each in level] for level in half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made.loss_by_feat(*half, objects, [{}] * 3)
    assert found == made.loss_by_feat(*whole, objects, [{}] * 3)
    assert all(loss.dtype == torch.float32 for loss in found.values())


@pytest.mark.parametrize("counts", [[3, 2], [0, 0]])
def test_processes_share_one_number_of_samples(monkeypatch: pytest.MonkeyPatch, counts: list[int]) -> None:
    """Each divides by the mean over all of them, here ten more than its own."""
    made, said, objects = make_head("IgnoringYOLOXHead", 3), outputs(2, 3, 0), instances(counts, 3, 0)
    alone = made.loss_by_feat(*said, objects, [{}] * 2)
    own: list[float] = []
    monkeypatch.setattr(head, "reduce_mean", lambda number: own.append(float(number)) or number + 10)
    together = made.loss_by_feat(*said, objects, [{}] * 2)
    for name, loss in together.items():
        assert float(loss) == pytest.approx(float(alone[name]) * max(own[0], 1) / (own[0] + 10))


def test_a_diverged_head_has_no_finite_loss() -> None:
    """Whereupon ProgressHook ends the run; mmdet's head stops in torch, with words about probabilities."""
    said = outputs(1, 3, 0)
    said[0][0].fill_(torch.nan)
    said[2][0].fill_(torch.nan)
    losses = make_head("IgnoringYOLOXHead", 3).loss_by_feat(*said, instances([3], 3, 0), [{}])
    assert not torch.isfinite(sum(losses.values()))
