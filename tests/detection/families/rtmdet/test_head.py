"""The head's losses against mmdet's own head, and what an ignored region changes."""

from __future__ import annotations

from functools import cache
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.detection.families.rtmdet import head
from pipeline.detection.mmdet_training import base_config

from mmdet.registry import MODELS  # isort: skip  # after head, which installs what mmdet needs
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

SIZE = 96
STRIDES = (8, 16, 32)
META = {"img_shape": (SIZE, SIZE), "pad_shape": (SIZE, SIZE)}
Outputs = tuple[list[Tensor], list[Tensor]]


@cache
def make_head(kind: str, classes: int) -> Any:
    init_default_scope("mmdet")
    model = base_config("rtmdet/rtmdet_tiny_8xb32-300e_coco").model
    norm = {"type": "BN"}
    settings = {"type": kind, "num_classes": classes, "train_cfg": model.train_cfg, "norm_cfg": norm}
    return MODELS.build({**model.bbox_head, **settings})


def ours(classes: int) -> Any:
    return make_head("IgnoringRTMDetHead", classes)


def outputs(images: int, classes: int, seed: int) -> Outputs:
    """Scores about 0.1, and distances of about a cell, some of them negative."""
    g = torch.Generator().manual_seed(seed)
    shapes = [[(images, channels, SIZE // s, SIZE // s) for s in STRIDES] for channels in (classes, 4)]
    scores, boxes = ([torch.randn(*shape, generator=g) for shape in level] for level in shapes)
    return [each * 1.5 - 3 for each in scores], [(each + 1) * s for each, s in zip(boxes, STRIDES, strict=True)]


def instances(counts: list[int], classes: int, seed: int) -> list[InstanceData]:
    g, made = torch.Generator().manual_seed(seed), []
    for count in counts:
        middle = torch.rand(count, 2, generator=g) * SIZE
        half = torch.rand(count, 2, generator=g).mul(4).exp() / 2
        labels = torch.randint(classes, (count,), generator=g)
        made.append(InstanceData(bboxes=torch.cat([middle - half, middle + half], 1).clamp(0, SIZE), labels=labels))
    return made


def regions(*boxes: list[list[float]] | None) -> list[InstanceData | None]:
    return [None if each is None else InstanceData(bboxes=torch.tensor(each).reshape(-1, 4)) for each in boxes]


def losses_and_gradients(
    made: Any, said: Outputs, objects: list[InstanceData], ignored: list[InstanceData | None] | None = None
) -> tuple[dict[str, Tensor], Outputs]:
    """mmdet's head gives a loss per level."""
    scores, boxes = ([each.detach().clone().requires_grad_() for each in level] for level in said)
    found = made.loss_by_feat(scores, boxes, objects, [META] * len(objects), ignored)
    losses = {name: sum(loss) if isinstance(loss, list) else loss for name, loss in found.items()}
    sum(losses.values()).backward()
    return losses, ([each.grad for each in scores], [each.grad for each in boxes])


def assert_close(one: Any, other: Any) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 20) | st.just(60), min_size=1, max_size=3),
    classes=st.sampled_from([1, 4, 80]),
    seed=st.integers(0, 2**31),
)
def test_the_losses_are_mmdets(counts: list[int], classes: int, seed: int) -> None:
    """The gradients too. Only sums are made in another order: here over all levels at once."""
    said, objects = outputs(len(counts), classes, seed), instances(counts, classes, seed)
    expected, slopes = losses_and_gradients(make_head("RTMDetSepBNHead", classes), said, objects)
    found, own = losses_and_gradients(ours(classes), said, objects)
    assert_close(found, expected)
    assert_close(own, slopes)


def test_the_losses_were_divided_by_the_positives() -> None:
    """What they are sums of is `positives` times them; a mean overlap of an object's priors is below 1."""
    made, objects = ours(3), instances([9, 4], 3, 0)
    made.loss_by_feat(*outputs(2, 3, 0), objects, [META] * 2)
    assert 1 < float(made.positives) < 13 * (9 + 4)
    made.loss_by_feat(*outputs(2, 3, 0), instances([0, 0], 3, 0), [META] * 2)
    assert float(made.positives) == 0


class TestIgnoredRegions:
    def test_nothing_is_learnt_of_background_within_them(self) -> None:
        """The crowd covers the left half of the first image, at stride 8 the first 6 columns."""
        said = outputs(2, 3, 0)
        _, (slopes, _) = losses_and_gradients(ours(3), said, instances([0, 4], 3, 0), regions([[0, 0, 48, 96]], None))
        for stride, slope in zip(STRIDES, slopes, strict=True):
            left = torch.arange(SIZE // stride) * stride
            assert (slope[0][..., left < 48] == 0).all()
            assert (slope[0][..., left >= 48] != 0).all()
            assert (slope[1] != 0).all()

    def test_objects_within_them_are_learnt(self) -> None:
        said, objects = outputs(1, 3, 1), instances([5], 3, 1)
        plain, (before, _) = losses_and_gradients(ours(3), said, objects)
        losses, (after, boxes) = losses_and_gradients(ours(3), said, objects, regions([[0, 0, 96, 96]]))
        assert losses["loss_bbox"] == plain["loss_bbox"] > 0
        rows = [torch.cat([each.flatten(2) for each in level], 2)[0] for level in (before, after, boxes)]
        positive = rows[2].abs().sum(0) > 0
        assert 0 < int(positive.sum()) < len(positive) / 2
        assert torch.equal((rows[1] != 0).any(0), positive)
        assert torch.equal(rows[1][:, positive], rows[0][:, positive])

    def test_they_are_no_objects(self) -> None:
        losses, (_, boxes) = losses_and_gradients(
            ours(3), outputs(1, 3, 2), instances([0], 3, 0), regions([[8, 8, 60, 60]])
        )
        assert losses["loss_bbox"] == 0
        assert not any(each.any() for each in boxes)

    @pytest.mark.parametrize(
        "ignored",
        [
            pytest.param(None, id="not given"),
            pytest.param(regions(None, None), id="none"),
            pytest.param(regions([], []), id="empty"),
            pytest.param(regions(None, [[16, 16, 16, 40]]), id="without area"),
            pytest.param(regions([[200, 0, 300, 96]], None), id="outside"),
        ],
    )
    def test_none_change_nothing(self, ignored: list[InstanceData | None] | None) -> None:
        said, objects = outputs(2, 3, 3), instances([3, 2], 3, 3)
        plain, before = losses_and_gradients(ours(3), said, objects)
        losses, after = losses_and_gradients(ours(3), said, objects, ignored)
        assert losses == plain
        assert all(torch.equal(a, b) for a, b in zip(chain(*before), chain(*after), strict=True))


def test_any_memory_format() -> None:
    said, objects = outputs(3, 3, 0), instances([3, 0, 9], 3, 0)
    last = tuple([each.contiguous(memory_format=torch.channels_last) for each in level] for level in said)
    assert ours(3).loss_by_feat(*last, objects, [META] * 3) == ours(3).loss_by_feat(*said, objects, [META] * 3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_ends_at_the_loss(kind: torch.dtype) -> None:
    """The loss of what mixed precision says is that of the same numbers in single precision."""
    objects = instances([3, 0, 9], 3, 0)
    half = tuple([each.to(kind) for each in level] for level in outputs(3, 3, 0))
    whole = tuple([each.float() for each in level] for level in half)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = ours(3).loss_by_feat(*half, objects, [META] * 3)
    assert found == ours(3).loss_by_feat(*whole, objects, [META] * 3)
    assert all(loss.dtype == torch.float32 for loss in found.values())


@pytest.mark.parametrize("counts", [[3, 2], [0, 0]])
def test_processes_share_one_number_of_positives(monkeypatch: pytest.MonkeyPatch, counts: list[int]) -> None:
    """Each divides by the mean over all of them, here ten more than its own."""
    said, objects = outputs(2, 3, 0), instances(counts, 3, 0)
    alone = ours(3).loss_by_feat(*said, objects, [META] * 2)
    own: list[float] = []
    monkeypatch.setattr(head, "reduce_mean", lambda number: own.append(float(number)) or number + 10)
    together = ours(3).loss_by_feat(*said, objects, [META] * 2)
    for name, loss in together.items():
        assert float(loss) == pytest.approx(float(alone[name]) * max(own[0], 1) / (own[0] + 10))


def test_a_diverged_head_has_no_finite_loss() -> None:
    """Whereupon ProgressHook ends the run."""
    said = outputs(1, 3, 0)
    said[0][0].fill_(torch.nan)
    losses = ours(3).loss_by_feat(*said, instances([3], 3, 0), [META])
    assert not torch.isfinite(sum(losses.values()))
