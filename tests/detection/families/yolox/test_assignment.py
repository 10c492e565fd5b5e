"""SimOTA in one go against mmdet's, which takes image by image and object by object."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.detection import mmcv_ops
from pipeline.detection.families.yolox import assignment
from pipeline.detection.families.yolox.assignment import Objects, PriorPredictions, assign

mmcv_ops.install()

from mmdet.models.task_modules.assigners import SimOTAAssigner, sim_ota_assigner  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

RULE = SimOTAAssigner()
TABLES = [1, 2**40]  # image by image, and the whole batch
SIZE = 96
LEVELS = tuple((SIZE // stride, SIZE // stride, stride) for stride in (8, 16, 32))
POINTS = torch.tensor([[(x + 0.5) * s, (y + 0.5) * s, s, s] for h, w, s in LEVELS for y in range(h) for x in range(w)])


def predictions(images: int, classes: int, seed: int, spread: float = 1.0) -> PriorPredictions:
    """Boxes of some strides about their priors; with a spread of 0 all priors say the same."""
    g = torch.Generator().manual_seed(seed)
    shape = (images, len(POINTS))
    shift, side = torch.randn(*shape, 4, generator=g).mul(spread).split(2, -1)
    middle, half = POINTS[:, :2] + shift * POINTS[:, 2:], (side * 0.5 + 1).exp() * POINTS[:, 2:] / 2
    logits = torch.randn(*shape, classes + 1, generator=g) * 2 * spread - 2
    return PriorPredictions(logits[..., :-1], logits[..., -1], torch.cat([middle - half, middle + half], -1))


def some_objects(counts: list[int], classes: int, seed: int, largest: float = 60.0) -> Objects:
    """Objects of 2 px to `largest`, some of them partly outside the image."""
    g = torch.Generator().manual_seed(seed)
    most = max(counts, default=0)
    middle = torch.rand(len(counts), most, 2, generator=g) * SIZE
    side = torch.rand(len(counts), most, 2, generator=g) * (largest - 2) + 2
    real = torch.arange(most) < torch.tensor(counts)[:, None]
    boxes = torch.cat([middle - side / 2, middle + side / 2], -1) * real[..., None]
    labels = torch.randint(classes, (len(counts), most), generator=g)
    return Objects(boxes, torch.where(real, labels, -1))


def ours(said: PriorPredictions, objects: Objects, rule: SimOTAAssigner = RULE) -> list[tuple[int, int, int, float]]:
    return list(zip(*(column.tolist() for column in assign(said, objects, LEVELS, rule)), strict=True))


def mmdets(said: PriorPredictions, objects: Objects, rule: SimOTAAssigner = RULE) -> list[tuple[int, int, int, float]]:
    rows = []
    for image, labels in enumerate(objects.labels):
        real = labels >= 0
        scores = (said.classes[image].sigmoid() * said.objectness[image].sigmoid()[:, None]).sqrt()
        found = rule.assign(
            InstanceData(bboxes=said.boxes[image], scores=scores, priors=POINTS),
            InstanceData(bboxes=objects.boxes[image][real], labels=labels[real]),
        )
        owners, overlaps = found.gt_inds.tolist(), found.max_overlaps.tolist()
        rows += [(image, prior, owner - 1, overlaps[prior]) for prior, owner in enumerate(owners) if owner]
    return rows


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(0, 25) | st.just(60), min_size=1, max_size=4),
    classes=st.integers(1, 10) | st.just(80),
    seed=st.integers(0, 2**31),
    largest=st.sampled_from([3.0, 20.0, 150.0]),
    rule=st.sampled_from([RULE, SimOTAAssigner(1.5, 4, 2.0, 0.5), SimOTAAssigner(candidate_topk=500)]),
    elements=st.sampled_from(TABLES),
)
def test_any_assignment_is_mmdets_and_gives_a_prior_once(
    counts: Any, classes: Any, seed: Any, largest: Any, rule: Any, elements: Any
) -> None:
    said, objects = predictions(len(counts), classes, seed), some_objects(counts, classes, seed, largest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "CPU_ELEMENTS", elements)
        found = ours(said, objects, rule)
    assert found == mmdets(said, objects, rule)
    assert len({(image, prior) for image, prior, *_ in found}) == len(found)
    assert found == sorted(found, key=lambda row: row[:2])
    assert all(0 <= owner < counts[image] for image, _, owner, _ in found)


@pytest.mark.parametrize("elements", TABLES)
def test_of_equal_costs_the_first_prior_is_taken(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    """An untrained head says the same everywhere, and no box of it may meet an object of 2 px."""
    monkeypatch.setattr(assignment, "CPU_ELEMENTS", elements)

    def first_of_equals(values: torch.Tensor, k: int, dim: int = -1, largest: bool = True) -> tuple[torch.Tensor, ...]:
        order = values.argsort(dim=dim, descending=largest, stable=True).narrow(dim, 0, int(k))
        return values.gather(dim, order), order

    said = predictions(3, 4, 0, spread=0.0)
    objects = some_objects([9, 30, 2], 4, 0, largest=2.5)
    found = ours(said, objects)
    monkeypatch.setattr(sim_ota_assigner, "torch", SimpleNamespace(**{**vars(torch), "topk": first_of_equals}))
    assert found == mmdets(said, objects)


def test_scores_of_zero_and_one_cost_as_much_as_in_torch() -> None:
    """Where binary_cross_entropy clamps: a logarithm of 0 counts as -100."""
    said = predictions(1, 3, 1)
    certain = PriorPredictions(said.classes.sign() * 500, torch.full_like(said.objectness, 500.0), said.boxes)
    objects = some_objects([12], 3, 1)
    assert ours(certain, objects) == mmdets(certain, objects)


def test_what_is_not_a_number_is_given_to_no_object() -> None:
    said = predictions(1, 3, 1)
    broken = PriorPredictions(said.classes * torch.nan, said.objectness, said.boxes)
    assert ours(broken, some_objects([5], 3, 1)) == []
